"""The typed configuration: what every key means, and which values are possible.

``conf/`` holds the values, Hydra composes them, :func:`load` checks them.
A key that is not here is an error.
"""

import math
import os
import posixpath
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import DictConfig, ListConfig, OmegaConf

from transferability.errors import UserError, require
from transferability.identity import label, later
from transferability.networks import NetworkConfig, config_class

# By dataset.kind, the file of sources/ that opens such datasets.
READERS = {
    "procedural": "procedural",
    "tiny_imagenet": "tiny_imagenet",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "imagenet": "imagenet",
    "folder": "folder",
}
_PATHS = ("folder", "source", "val_labels")  # of the dataset


@dataclass
class GrammarConfig:
    """The random hierarchy behind the embedded images, see ``sources/procedural.py``."""

    seed: int = 0
    families: int = 2  # families of classes; the first is "natural", the second "man-made"
    classes_per_family: int = 20
    symbols: int = 10  # v: symbols a level
    rules: int = 2  # m: ways to expand one symbol
    levels: int = 3  # L: expansions from a class to the terminals
    shared_levels: int = 1  # rules of the lowest levels that all families share
    patch: int = 4  # pixels a side of one terminal
    noise: float = 0.25
    shift: int = 1  # pixels, cyclic
    brightness: float = 0.2
    train_per_class: int = 30
    val_per_class: int = 100

    def check(self) -> None:
        require(
            self.families == 2, "dataset.grammar.families", self.families, "there are two families"
        )
        counts = (
            "classes_per_family",
            "symbols",
            "rules",
            "levels",
            "patch",
            "train_per_class",
            "val_per_class",
        )
        for key in counts:
            require(
                getattr(self, key) > 0,
                f"dataset.grammar.{key}",
                getattr(self, key),
                "a number above 0",
            )
        for key in ("noise", "shift", "brightness"):
            require(
                getattr(self, key) >= 0, f"dataset.grammar.{key}", getattr(self, key), "at least 0"
            )
        require(
            0 <= self.shared_levels < self.levels,
            "dataset.grammar.shared_levels",
            self.shared_levels,
            f"it goes from 0 to levels-1={self.levels - 1}",
        )
        classes = self.families * self.classes_per_family
        for key, symbols in (("symbols", self.symbols), ("classes_per_family", classes)):
            require(
                symbols * self.rules <= self.symbols**4,
                f"dataset.grammar.{key}",
                getattr(self, key),
                f"{symbols} x {self.rules} rules need as many distinct productions, "
                f"of {self.symbols}^4",
            )


@dataclass
class DatasetConfig:
    """Where images come from and how they are packed."""

    kind: str  # one of READERS, such as folder
    name: str  # names the packed folder and the runs
    folder: str  # the packed dataset
    image_size: int  # pixels a side, as packed
    source: str | None = None  # folder, zip or tar file with the original images
    # area | linear (OpenCV's; linear, without antialias, is the original's) | bilinear | bicubic
    # (Pillow's, with antialias: those of torchvision's and timm's transforms)
    resize: str = "area"
    on_error: str = "fail"  # fail | skip: what a corrupt image does
    # raw | jpeg: how images are stored; jpeg: about a fifth, changed a little
    encoding: str = later("raw")
    jpeg_quality: int = 95  # encoding=jpeg: 1 to 100, colours at full resolution (4:4:4)
    # kind=folder: folders of train, val, test; {}: all are classes; null: by name
    parts: dict[str, str] | None = None
    # kind=folder: the class is the so-manieth folder below that of train, val or test, or below the
    # one that holds all; null: the first, if it holds images itself
    class_level: int | None = later(None)
    # kind=folder: names, or paths below the source, of folders that are left out
    leave_out: list[str] | None = later(None, [])
    val_fraction: float = 0.1  # kind=folder without a val folder: the share of each class held out
    # a regular expression, found in a file's path below the source: what its first group, or all of
    # it, matches is held out as a whole, such as the images of a patient
    group: str | None = later(None)
    # the share of each class held out for test, of what a val folder leaves; 0: none
    test_fraction: float = later(0.0)
    # keep (and say so) | drop | fail: equal pictures, see duplicates.py
    duplicates: str = later("keep", "fail")
    val_labels: str | None = None  # kind=imagenet with a flat val folder: wnids, a line per image
    seed: int = 0  # of the order of the packed rows
    # ignore, as the original | apply: what EXIF or TIFF say of turning an image
    orientation: str = later("ignore")
    # squash, as the original: the aspect ratio is not kept | crop: the square in the middle
    fit: str = later("squash")
    grammar: GrammarConfig | None = None

    def check(self) -> None:
        require(self.kind in READERS, "dataset.kind", self.kind, f"one of {', '.join(READERS)}")
        require(self.fit in ("squash", "crop"), "dataset.fit", self.fit, "squash or crop")
        filters = ("area", "linear", "bilinear", "bicubic")
        require(
            self.resize in filters, "dataset.resize", self.resize, f"one of {', '.join(filters)}"
        )
        require(
            self.on_error in ("fail", "skip"), "dataset.on_error", self.on_error, "fail or skip"
        )
        known = ("ignore", "apply")
        require(
            self.orientation in known, "dataset.orientation", self.orientation, "ignore or apply"
        )
        require(self.encoding in ("raw", "jpeg"), "dataset.encoding", self.encoding, "raw or jpeg")
        require(0 < self.jpeg_quality <= 100, "dataset.jpeg_quality", self.jpeg_quality, "1 to 100")
        require(
            self.image_size > 0, "dataset.image_size", self.image_size, "a number of pixels above 0"
        )
        require(
            0 < self.val_fraction < 1, "dataset.val_fraction", self.val_fraction, "between 0 and 1"
        )
        require(
            0 <= self.test_fraction < 1,
            "dataset.test_fraction",
            self.test_fraction,
            "at least 0 and below 1",
        )
        ways = ("keep", "drop", "fail")
        require(
            self.duplicates in ways, "dataset.duplicates", self.duplicates, "keep, drop or fail"
        )
        for key, value in (("class_level", self.class_level), ("leave_out", self.leave_out)):
            fits = value is None or self.kind == "folder"
            require(fits, f"dataset.{key}", value, "it is for dataset=folder")
        try:
            re.compile(self.group or "")
        except re.error as error:
            require(False, "dataset.group", self.group, f"a regular expression ({error})")
        level = self.class_level
        require(level is None or level > 0, "dataset.class_level", level, "a number above 0")
        named = all(posixpath.normpath(folder) != "." for folder in self.leave_out or ())
        require(named, "dataset.leave_out", self.leave_out, "names of folders")
        if self.parts:
            known = "train" in self.parts and self.parts.keys() <= {"train", "val", "test"}
            known = known and all(isinstance(folder, str) for folder in self.parts.values())
            require(
                known,
                "dataset.parts",
                self.parts,
                "folders for train and, where there are any, val and test",
            )
        plain = (
            self.name.isprintable() and "/" not in self.name and 0 < len(self.name.encode()) <= 100
        )
        require(plain, "dataset.name", repr(self.name), "a folder name of at most 100 bytes")
        if self.embedded:
            self._check_grammar()

    @property
    def embedded(self) -> bool:
        """Whether the images are made, not read: they need no ``source``, and are packed on first
        use.
        """
        return self.kind == "procedural"

    def _check_grammar(self) -> None:
        if self.grammar is None:
            raise UserError("dataset.grammar=None is not possible: kind=procedural needs a grammar")
        self.grammar.check()
        side = self.grammar.patch * 2**self.grammar.levels
        if self.image_size != side:
            raise UserError(
                f"dataset.image_size={self.image_size} is not possible: "
                f"patch x 2^levels is {side} pixels"
            )


@dataclass(frozen=True)
class RecipeConfig:
    """How a network is trained.

    The learning rate is a pure function of the step, see ``optim.py``.
    """

    name: str = label()
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
    weight_decay: float = 5e-4  # of weights; biases and normalisation have none
    bias_lr_multiplier: float = 2.0
    copied_lr_multiplier: float = 1.0  # of copied layers that are fine-tuned; common advice is 0.1
    mirror: bool = True
    # false: every epoch in the order of the packed file, as Caffe reads its leveldb
    reshuffle: bool = True
    precision: str = "float32"  # float32 | bf16 (autocast, float32 weights)
    optimiser: str = later("sgd")  # sgd (Caffe's) | adamw (momentum is its first beta)

    @property
    def pace(self) -> tuple:
        """What the batches, their precision and the evaluations depend on: networks that have this
        in common can train in one cohort, whatever their rates.
        """
        return (
            self.steps,
            self.batch_size,
            self.mirror,
            self.reshuffle,
            self.precision,
            self.optimiser,
            self.eval_every,
            self.eval_batch_size,
        )

    def check(self) -> None:
        for key in ("steps", "batch_size", "eval_every", "eval_batch_size"):
            require(getattr(self, key) > 0, f"recipe.{key}", getattr(self, key), "a number above 0")
        require(0 < self.lr < math.inf, "recipe.lr", self.lr, "a number above 0")
        known = ("sgd", "adamw")
        require(self.optimiser in known, "recipe.optimiser", self.optimiser, "sgd or adamw")
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
    budget_minutes: float | None = None  # the plan says what of the study fits this time
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
        for key in ("threads", "max_networks", "images_per_class", "budget_minutes"):
            value = getattr(self, key)
            require(value is None or value > 0, key, value, "a number above 0, or null")
        if self.budget_minutes and self.mode != "plan":
            raise UserError("budget_minutes is for mode=plan, which says what fits it")
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
        (config.dataset, "dataset.", _PATHS),
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


def expanded(path: str, key: str) -> str:
    """``path`` with the home folder that its ``~`` or ``~user`` stands for.

    Raises:
        UserError: there is no such user.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise UserError(
            f"{key}={path}: there is no home folder {path.split('/')[0]}; "
            f"of a name as it is: ./{path}"
        )
    return found


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
