"""The typed configuration: what every key means, and which values are possible.

``conf/`` holds the values, Hydra composes them, :func:`load` checks them.
A key that is not here is an error.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import DictConfig, ListConfig, OmegaConf

from transferability.data.config import PATHS, DatasetConfig
from transferability.errors import UserError, require
from transferability.files import expanded
from transferability.fingerprint import cosmetic, omit_at
from transferability.networks import NetworkConfig, config_class

LBFGS = "lbfgs"  # the optimizer that fits a linear classifier to its end


@dataclass(frozen=True)
class RecipeConfig:
    """How a network is trained.

    The learning rate is a pure function of the step, see ``optim.py``.
    """

    name: str = cosmetic()
    steps: int
    batch_size: int
    lr: float
    schedule: str  # step: lr x gamma^(step // step_size) | cosine: to zero at the last step
    eval_every: int  # steps between validations; the paper's statistic is a mean over them
    eval_batch_size: int
    step_size: int | None = None
    gamma: float = 0.1
    warmup_steps: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4  # of weights; biases and normalization have none
    bias_lr_multiplier: float = 2.0
    copied_lr_multiplier: float = 1.0  # of copied layers that are fine-tuned; common advice is 0.1
    mirror: bool = True
    # false: every epoch in the order of the packed file, as Caffe reads its leveldb
    reshuffle: bool = True
    precision: str = "float32"  # float32 | bf16 (autocast, float32 weights)
    # sgd (Caffe's) | adamw (momentum is its first beta) | lbfgs (of An.B alone: its classifier is
    # fitted in at most ``steps`` iterations, see probe.py; of the other settings ``mirror`` counts)
    optimizer: str = omit_at("sgd")
    # BatchNorm of copied layers normalizes with the source's statistics, in training as well
    keep_statistics: bool = omit_at(False)

    @property
    def batching_key(self) -> tuple:
        """What the batches, their precision and the evaluations depend on: networks that have this
        in common can train in one cohort, whatever their rates.
        """
        return (
            self.steps,
            self.batch_size,
            self.mirror,
            self.reshuffle,
            self.precision,
            self.optimizer,
            self.eval_every,
            self.eval_batch_size,
        )

    def check(self) -> None:
        for key in ("steps", "batch_size", "eval_every", "eval_batch_size"):
            require(getattr(self, key) > 0, f"recipe.{key}", getattr(self, key), "a number above 0")
        require(0 < self.lr < math.inf, "recipe.lr", self.lr, "a number above 0")
        known = ("sgd", "adamw", LBFGS)
        require(self.optimizer in known, "recipe.optimizer", self.optimizer, "sgd, adamw or lbfgs")
        require(
            self.schedule in ("step", "cosine"), "recipe.schedule", self.schedule, "step or cosine"
        )
        if self.schedule == "step":
            needed = self.step_size is not None and self.step_size > 0
            require(
                needed, "recipe.step_size", self.step_size, "schedule=step needs a number above 0"
            )
            require(0 < self.gamma < math.inf, "recipe.gamma", self.gamma, "a number above 0")
        for key in ("weight_decay", "bias_lr_multiplier", "copied_lr_multiplier"):
            value = getattr(self, key)
            require(0 <= value < math.inf, f"recipe.{key}", value, "a number from 0 on")
        require(
            0 <= self.warmup_steps < self.steps,
            "recipe.warmup_steps",
            self.warmup_steps,
            f"at least 0 and below steps={self.steps}",
        )
        require(0 <= self.momentum < 1, "recipe.momentum", self.momentum, "at least 0 and below 1")
        require(
            self.precision in ("float32", "bf16"),
            "recipe.precision",
            self.precision,
            "float32 or bf16",
        )


def probe_recipe(mirror: bool) -> RecipeConfig:
    """How linear classifiers are fitted: conf/recipe/probe.yaml."""
    return RecipeConfig(
        name="probe",
        steps=200,
        batch_size=64,
        lr=1.0,
        schedule="cosine",
        eval_every=200,
        eval_batch_size=250,
        momentum=0.0,
        weight_decay=0.0,
        bias_lr_multiplier=1.0,
        mirror=mirror,
        optimizer=LBFGS,
    )


@dataclass
class StudyPart:
    """Some networks of a study. What is null is as in the study."""

    splits: list[str] | None = None
    # A and B; splits of the kind "all" have the task "all" instead
    targets: list[str] | None = None
    seeds: list[int] | None = None
    # the values of n; null for the study as well: every layer below the classifier
    layers: list[int] | None = None
    # for each kind of split: random, natural-manmade, user, all
    treatments: dict[str, list[str]] | None = None
    images_per_class: list[int | None] | None = None  # of the target task; null: all
    rates: list[float] | None = None  # learning rates, each a network; null: the recipe's
    recipe: dict[str, Any] | None = None  # settings that differ from the configured recipe
    network: dict[str, Any] | None = None  # settings that differ from the configured network
    # of the bases that layers are copied from, as recipe; null: as recipe
    source_recipe: dict[str, Any] | None = None


@dataclass
class StudyConfig:
    """The networks that together make the figures: those of its parts or,
    without parts, its own.
    """

    name: str
    splits: list[str]
    targets: list[str]
    seeds: list[int]
    layers: list[int] | None
    treatments: dict[str, list[str]]
    images_per_class: list[int | None] = field(default_factory=lambda: [None])
    rates: list[float] | None = None
    # the values of n as shares of the layers below the classifier, of any network, where layers
    # is null
    depths: list[float] | None = None
    # accuracy | balanced_accuracy (the mean over classes): what the best is chosen by, and figures
    # show
    choose_by: str = "accuracy"
    parts: dict[str, StudyPart] = field(default_factory=dict)


@dataclass
class Config:
    """Everything ``python -m experiments.run`` knows."""

    dataset: DatasetConfig
    network: NetworkConfig
    recipe: RecipeConfig
    study: StudyConfig
    # what A is where the split does not say: a file of weights, or a library's name for them
    weights: str | None = None
    run: str | None = None  # the folder of a finished run, for experiments.export
    split: str | None = None  # null: every split of the study
    target: str | None = None  # null: every target of the study
    seed: int | None = None  # null: every seed of the study
    cell: str | None = None  # one cell such as A3B+; null: every cell of the study
    # at most so many training images a class of the target task
    images_per_class: int | None = None
    # train on validation and test images too: to use, nothing is left to measure it on
    all_images: bool = False
    # one job of the study (networks that train in lockstep), by its number in the plan
    job: int | None = None
    mode: str = "train"  # train | plan
    minutes: float = 10.0  # the time that experiments.advise may take
    # train | require: what happens when a cell's base network is not finished
    sources: str = "train"
    data_dir: str = "data"
    store: str = "runs"
    device: str = "auto"  # auto | cpu | cuda | cuda:1 ...
    threads: int | None = None  # networks that train at the same moment on a CPU; null: one a core
    # networks held in memory at once; null: the cohort, fewer if memory runs out
    max_networks: int | None = None
    # train networks of equal shape as one; null: on a GPU, where images are small
    stacked: bool | None = None
    graphs: bool | None = None  # replay a step's passes as one CUDA graph; null: on a GPU
    deterministic: bool = False  # on a GPU: the same bits every time, by kernels that may be slower
    # between checkpoints, at least 30 times what the last took; 0: after every step
    checkpoint_seconds: float = 120.0
    out: str | None = None  # where analysis.collect writes its table
    words: ClassVar[tuple[str, ...]] = ()  # the command line that it is made of, where there is one

    def check(self) -> None:
        self.dataset.check()
        self.network.check()
        self.recipe.check()
        require(self.mode in ("train", "plan"), "mode", self.mode, "train or plan")
        require(self.sources in ("train", "require"), "sources", self.sources, "train or require")
        for key in ("threads", "max_networks", "images_per_class", "minutes"):
            value = getattr(self, key)
            require(value is None or value > 0, key, value, "a number above 0, or null")
        known = ("accuracy", "balanced_accuracy")
        require(
            self.study.choose_by in known,
            "study.choose_by",
            self.study.choose_by,
            " or ".join(known),
        )
        for depth in self.study.depths or []:
            require(0 < depth <= 1, "study.depths", depth, "shares above 0, and at most 1")
        inner = range(1, self.network.n_layers)
        parts = {"study": self.study} | {
            f"study.parts.{name}": part for name, part in self.study.parts.items()
        }
        for where, part in parts.items():
            for n in part.layers or []:
                require(
                    n in inner,
                    f"{where}.layers",
                    n,
                    f"n goes from 1 to {inner[-1]} for {self.network.name}",
                )
            for rate in part.rates or []:
                require(0 < rate < math.inf, f"{where}.rates", rate, "a number above 0")
            for count in part.images_per_class or []:
                require(
                    count is None or count > 0,
                    f"{where}.images_per_class",
                    count,
                    "a number above 0, or null",
                )


def load(composed: DictConfig) -> Config:
    """The typed configuration for what Hydra composed.

    A path may begin with ``~``.

    Raises:
        UserError: an impossible value. (Unknown keys and wrong types are OmegaConf's own errors.)
    """
    typed = OmegaConf.merge(_schema(composed), composed)
    _check_texts(typed, composed)
    config = OmegaConf.to_object(typed)
    for part, prefix, keys in (
        (config, "", ("data_dir", "store", "out")),
        (config.dataset, "dataset.", PATHS),
    ):
        for key in keys:
            if (path := getattr(part, key)) is not None:
                setattr(part, key, expanded(path, prefix + key))
    config.check()
    if config.study.layers is None and config.study.depths:
        inner = config.network.n_layers - 1
        layers = {max(1, round(depth * inner)) for depth in config.study.depths}
        config.study.layers = sorted(layers)
    return config


def _schema(composed: DictConfig) -> DictConfig:
    """The types of all keys. Networks and recipes are frozen, their schemas are not yet."""
    schema = OmegaConf.structured(Config)
    for key, kind in (("network", config_class(composed.network)), ("recipe", RecipeConfig)):
        schema[key] = OmegaConf.structured(kind)
        OmegaConf.set_readonly(schema[key], False)
    return schema


# for what Hydra itself writes (conf/config.yaml)
OmegaConf.register_new_resolver("expanded", expanded, replace=True)


def _check_texts(typed: Any, read: Any, above: str = "") -> None:
    """A text that was read as a number or truth value (2024.10, 1e3, true)
    is not what was written any more.
    """
    for key in range(len(typed)) if isinstance(typed, ListConfig) else typed:
        if OmegaConf.is_missing(typed, key) or (isinstance(read, DictConfig) and key not in read):
            continue
        where = (
            f"{above}[{key}]"
            if isinstance(typed, ListConfig)
            else f"{above}.{key}".removeprefix(".")
        )
        if isinstance(typed[key], str) and isinstance(read[key], (bool, float)):
            raise UserError(
                f"{where} was read as {str(read[key]).lower()}, a {type(read[key]).__name__}, but "
                "it is a text: put it in quotes, on a command line such as "
                "'dataset.name=\"2024.10\"'"
            )
        if isinstance(typed[key], (DictConfig, ListConfig)):
            _check_texts(typed[key], read[key], where)


def changed(settings: Any, changes: dict[str, Any] | None) -> Any:
    """A network or recipe with some of its settings replaced, checked.

    Raises:
        UserError: an impossible value. (Unknown keys and wrong types are OmegaConf's own errors.)
    """
    if not changes:
        return settings
    typed = OmegaConf.merge(OmegaConf.structured(settings), changes)
    _check_texts(typed, OmegaConf.create(changes))
    out = OmegaConf.to_object(typed)
    out.check()
    return out
