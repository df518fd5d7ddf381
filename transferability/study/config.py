"""The typed configuration: the meaning and the possible values of every key.

``conf/`` holds the values, Hydra composes them, :func:`load` checks them.
A key that is not here is an error.
"""

import logging
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, ClassVar, cast

from omegaconf import MISSING, Container, DictConfig, OmegaConf

from transferability.bounds import SHARE, above, at_least, check_bounds, one_of
from transferability.data.config import PATHS, DatasetConfig
from transferability.errors import UserError, require
from transferability.files import expanded
from transferability.fingerprint import renamed
from transferability.networks import KINDS, NetworkConfig, config_class
from transferability.study.recipe import RecipeConfig
from transferability.study.trackers import FOLDERS, TrackersConfig

log = logging.getLogger(__name__)


@dataclass
class StudyPart:
    """Some networks of a study. Settings that are null are the study's."""

    splits: list[str] | None = None
    # A and B; splits of the kind "all" have the task "all" instead
    targets: list[str] | None = None
    seeds: list[int] | None = None
    # the values of n; null here and in the study: every layer below the classifier
    layers: list[int] | None = None
    # per kind of split: random, natural-manmade, distance, user, all, pretrained
    treatments: dict[str, list[str]] | None = None
    # training images per class of the target task; null: all
    images_per_class: Annotated[list[int | None] | None, above(0)] = None
    # learning rates, one network per rate; null: the recipe's
    rates: Annotated[list[float] | None, above(0)] = None
    recipe: dict[str, Any] | None = None  # settings that differ from the configured recipe
    network: dict[str, Any] | None = None  # settings that differ from the configured network
    # settings of the sources' recipe that differ from the configured recipe; null: as ``recipe``
    source_recipe: dict[str, Any] | None = None


@dataclass
class StudyConfig:
    """The networks of the figures: those of the parts or, without parts, the study's own."""

    name: str
    splits: list[str]
    targets: list[str]
    seeds: list[int]
    layers: list[int] | None
    treatments: dict[str, list[str]]
    images_per_class: Annotated[list[int | None], above(0)] = field(default_factory=lambda: [None])
    rates: Annotated[list[float] | None, above(0)] = None
    # if layers is null: the values of n as shares of the layers below the classifier, for any
    # network
    depths: Annotated[list[float] | None, SHARE] = None
    # accuracy | balanced_accuracy (the mean over classes): the metric that selects the best network
    # and that figures show
    choose_by: Annotated[str, one_of("accuracy", "balanced_accuracy")] = "accuracy"
    parts: dict[str, StudyPart] = field(default_factory=dict)


@dataclass
class Config:
    """All settings of ``python -m experiments.run``; conf/config.yaml explains each key."""

    dataset: DatasetConfig
    network: NetworkConfig
    recipe: RecipeConfig
    study: StudyConfig
    weights: str | None = None
    split: str | None = None
    target: str | None = None
    seed: int | None = None
    cell: str | None = None
    images_per_class: Annotated[int | None, above(0)] = None
    all_images: bool = False
    job: int | None = None
    mode: Annotated[str, one_of("train", "plan")] = "train"
    minutes: Annotated[float, above(0)] = 10.0
    sources: Annotated[str, one_of("train", "require")] = "train"
    data_dir: str = "data"
    store: str = "runs"
    device: str = "auto"
    threads: Annotated[int | None, above(0)] = None
    max_networks: Annotated[int | None, above(0)] = None
    stacked: bool | None = None
    graphs: bool | None = None
    deterministic: bool = False
    checkpoint_seconds: Annotated[float, at_least(0)] = 120.0
    run: str | None = None
    compare: bool = False
    out: str | None = None
    tracker: TrackersConfig = field(default_factory=TrackersConfig)
    words: ClassVar[tuple[str, ...]] = ()  # the settings on the command line, if there is one
    began: ClassVar[float | None] = None  # start of the command, by time.monotonic()

    def check(self) -> None:
        self.dataset.check()
        self.network.check()
        self.recipe.check()
        check_bounds(self)
        self.tracker.check()
        inner = range(1, self.network.n_layers)
        parts = {"study": self.study} | {
            f"study.parts.{name}": part for name, part in self.study.parts.items()
        }
        for where, part in parts.items():
            check_bounds(part, f"{where}.")
            for n in part.layers or []:
                wanted = f"from 1 to {inner[-1]}, the values of n of {self.network.name}"
                require(n in inner, f"{where}.layers", n, wanted)


def load(composed: DictConfig) -> Config:
    """Convert Hydra's composed configuration to the typed one, and check it.

    A path may begin with ``~``.

    Raises:
        UserError: an impossible value. (Unknown keys and wrong types are OmegaConf's own errors.)
    """
    composed = _renamed(composed)
    typed = OmegaConf.merge(_schema(config_class(composed.network)), composed)
    _check_texts(typed, composed)
    config = cast(Config, OmegaConf.to_object(typed))
    for part, prefix, keys in (
        (config, "", ("data_dir", "store", "out", "run", "weights")),
        (config.dataset, "dataset.", PATHS),
        *((part, f"tracker.{name}.", FOLDERS) for name, part in config.tracker.asked.items()),
    ):
        for key in keys:
            if (path := getattr(part, key, None)) is not None:
                setattr(part, key, expanded(path, prefix + key))
    config.check()
    if config.study.layers is None and config.study.depths:
        inner = config.network.n_layers - 1
        layers = {max(1, round(depth * inner)) for depth in config.study.depths}
        config.study.layers = sorted(layers)
    return config


@cache
def _schema(network: type[NetworkConfig]) -> DictConfig:
    """The types of all keys. Networks and recipes are frozen, but their schemas are writable."""
    schema = OmegaConf.structured(Config)
    for key, kind in (("network", network), ("recipe", RecipeConfig)):
        schema[key] = OmegaConf.structured(kind)
        OmegaConf.set_readonly(schema[key], False)
    return schema


OLD_NAMES = {
    old: new for kind in (*KINDS.values(), RecipeConfig) for old, new in renamed(kind).items()
}
HOLDERS = ("network", "recipe", "source_recipe")  # sections whose settings have been renamed


def current_name(key: str) -> str:
    """The current name of a setting: ``recipe.optimizer`` for ``recipe.optimiser``."""
    section, _, name = key.rpartition(".")
    return f"{section}.{OLD_NAMES.get(name, name)}" if section.split(".")[-1] in HOLDERS else key


def _renamed(composed: DictConfig) -> DictConfig:
    """Rename settings to their current names, with a warning for each."""
    settings = cast(dict[str, Any], OmegaConf.to_container(composed))
    return OmegaConf.create(settings) if _rename(settings) else composed


def _rename(settings: dict[str, Any], above: str = "") -> bool:
    """Rename settings in place; return whether any had an old name."""
    found = False
    for key, value in list(settings.items()):
        where = f"{above}.{key}".removeprefix(".")
        if isinstance(value, dict):
            found |= _rename(value, where)
        elif (name := current_name(where)) != where and value != MISSING:
            log.warning("%s is now called %s", where, name)
            settings[name.rpartition(".")[2]] = settings.pop(key)
            found = True
    return found


# for the paths that Hydra itself writes to (conf/config.yaml)
OmegaConf.register_new_resolver("expanded", expanded, replace=True)


def _check_texts(typed: Container, read: Container) -> None:
    """Raise :class:`UserError` for text that was read as a float or Boolean (2024.10, 1e3, true),
    which loses its spelling.
    """
    _compare_texts(
        OmegaConf.to_container(typed, resolve=True), OmegaConf.to_container(read, resolve=True)
    )


def _compare_texts(typed: Any, read: Any, where: str = "") -> None:
    if isinstance(typed, dict) and isinstance(read, dict):
        for key, value in typed.items():
            if key in read:
                _compare_texts(value, read[key], f"{where}.{key}".removeprefix("."))
    elif isinstance(typed, list) and isinstance(read, list):
        for i, values in enumerate(zip(typed, read, strict=True)):
            _compare_texts(*values, f"{where}[{i}]")
    elif isinstance(typed, str) and isinstance(read, (bool, float)):
        raise UserError(
            f"{where} was read as {str(read).lower()}, a {type(read).__name__}, but it must be "
            "text: put it in quotes, on a command line for example "
            "'dataset.name=\"2024.10\"'"
        )


def changed(settings: Any, changes: dict[str, Any] | None) -> Any:
    """Replace some settings of a network or recipe, and check the result.

    Raises:
        UserError: an impossible value. (Unknown keys and wrong types are OmegaConf's own errors.)
    """
    if not changes:
        return settings
    typed = OmegaConf.merge(OmegaConf.structured(settings), changes)
    _check_texts(typed, OmegaConf.create(changes))
    out: Any = OmegaConf.to_object(typed)
    out.check()
    return out
