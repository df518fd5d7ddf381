"""A run's identity: everything that can change its results, and nothing else."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from transferability.data.packed import PackedDataset
from transferability.errors import UserError, require
from transferability.fingerprint import AS_STR, COSMETIC, from_dict, omit_at, to_dict
from transferability.networks import NetworkConfig, config_class
from transferability.networks.config import MEAN
from transferability.networks.zoo.pretrained_info import PretrainedBase, PretrainedInfo
from transferability.study import cells
from transferability.study.cells import Cell
from transferability.study.recipe import LBFGS, RecipeConfig, probe_recipe
from transferability.tasks.splits import split_name, tasks_of

FORMAT = 1


@dataclass(frozen=True)
class DatasetId:
    """The identity of a run's packed images, with their encoding unless they are raw pixels."""

    name: str = field(metadata=COSMETIC)
    image_size: int
    checksum: str
    encoding: str | None = omit_at(None)


@dataclass(frozen=True)
class RunSpec:
    """The full specification of one run. Two runs with equal specs are one run.

    Attributes:
        dataset: the packed images.
        split: name of the split, a label: only the classes count.
        classes: dataset classes of the target task.
        images_per_class: training images per class; None for all.
        cell: the network of the study, such as A3B+.
        source: the run or pretrained base whose layers are copied: a base or, in the second of two
            phases, the first phase. None if nothing is copied.
        all_images: whether the run also trains on the task's validation and test images.
    """

    dataset: DatasetId
    split: str = field(metadata=COSMETIC)
    classes: tuple[int, ...]
    images_per_class: int | None
    cell: Cell = field(metadata=AS_STR)
    network: NetworkConfig
    recipe: RecipeConfig
    seed: int
    source: "RunSpec | PretrainedBase | None" = None
    all_images: bool = omit_at(False)
    format: int = field(default=FORMAT, init=False)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values, with the source's specification nested."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunSpec":
        """The inverse of :meth:`to_dict`, also after a round trip through JSON."""
        network = from_dict(config_class(values["network"]), values["network"])
        parts = {
            "dataset": DatasetId(**values["dataset"]),
            "classes": tuple(values["classes"]),
            "cell": cells.parse(values["cell"], network.whole_depth),
            "network": network,
            "recipe": from_dict(RecipeConfig, values["recipe"]),
            "source": _source_in(values["source"]),
        }
        return cls(**{k: v for k, v in values.items() if k != "format"} | parts)

    @cached_property
    def id(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the canonical JSON, without labels.

        ``network.name`` and ``recipe.name`` are labels: only the settings that they name count.
        """
        values = to_dict(self, labels=False)
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def run_id(self) -> str:
        """The name of the run's folder: a readable part, then the hash."""
        return f"{self.dataset.name}-{self.split}-{self.cell}-s{self.seed}-{self.id}"

    @property
    def base(self) -> "RunSpec | None":
        """The run that has to finish before this one; None if nothing is copied, or if the source
        is pretrained.
        """
        return self.source if isinstance(self.source, RunSpec) else None

    @property
    def stage(self) -> int:
        """0 for a run without a base, otherwise one more than the stage of the base."""
        return self.base.stage + 1 if self.base else 0

    @property
    def pretrained(self) -> PretrainedBase | None:
        """The pretrained base that the run starts from, directly or through its source."""
        return self.source.pretrained if isinstance(self.source, RunSpec) else self.source


def pretrained_base_of(specs: list[RunSpec]) -> PretrainedBase | None:
    """The pretrained base that runs of a study start from, if there is one."""
    return next((s.pretrained for s in specs if s.pretrained), None)


def _source_in(values: dict[str, Any] | None) -> RunSpec | PretrainedBase | None:
    if values is None:
        return None
    if "digest" not in values:
        return RunSpec.from_dict(values)
    network = from_dict(config_class(values["network"]), values["network"])
    return PretrainedBase(
        **values | {"network": network, "facts": PretrainedInfo(**values["facts"])}
    )


def make_spec(
    cell: Cell,
    split: str,
    dataset: PackedDataset,
    network: NetworkConfig,
    recipe: RecipeConfig,
    seed: int,
    images_per_class: int | None = None,
    source_recipe: RecipeConfig | None = None,
    pretrained: PretrainedBase | None = None,
) -> RunSpec:
    """Make the specification of ``cell`` with the specification of its source nested.

    Args:
        images_per_class: training images per class of the target task, also for a selffer's base
            (same task). The base of a transfer network is trained on all images of its task.
        source_recipe: the recipe of the source (the base or, for the second of two phases, the
            first) if it is another one.
        pretrained: the pretrained base of task A, if the split has no task A.

    Raises:
        UserError: the split has no such task, or the network does not fit task, images or recipe.
    """
    tasks = tasks_of(split, dataset)
    _check_tasks(cell, split, tasks, pretrained)
    _check_fit(cell, network, recipe, dataset)
    classes = tasks[cell.target]
    wanted = f"at least {len(classes)}, the classes of task {cell.target} of {split}, or null"
    fits = network.outputs is None or network.outputs >= len(classes)
    require(fits, "network.outputs", network.outputs, wanted)
    network = pretrained.adapted(network) if pretrained else network

    def other(
        of: Cell, own: RecipeConfig, images: int | None, its_source: RecipeConfig | None = None
    ) -> RunSpec:
        return make_spec(of, split, dataset, network, own, seed, images, its_source, pretrained)

    source: RunSpec | PretrainedBase | None = pretrained if cell.copied else None
    if first := cell.first_phase:
        own = source_recipe or (probe_recipe(recipe.mirror) if first.short else recipe)
        # the base of the first phase has the recipe of the second
        source = other(first, own, images_per_class, recipe)
    elif cell.copied and cell.source in tasks:
        reduced = images_per_class if cell.source == cell.target else None
        source = other(Cell(cell.source), source_recipe or recipe, reduced)
    return RunSpec(
        dataset=DatasetId(dataset.name, dataset.image_size, dataset.checksum, dataset.encoding),
        split=split_name(split),
        classes=tuple(classes),
        images_per_class=images_per_class,
        cell=cell,
        network=replace(
            network.resolved(len(classes)),
            depth=cell.n if cell.short else None,
            token_pool=network.token_pool if cell.short else MEAN,
        ),
        recipe=recipe,
        seed=seed,
        source=source,
    )


def _check_tasks(
    cell: Cell, split: str, tasks: dict[str, list[int]], pretrained: PretrainedBase | None
) -> None:
    """Raise :class:`UserError` if the split lacks the task of the cell or of its source."""
    source = cell.source if cell.copied and not pretrained else None
    for task in filter(None, (cell.target, source)):
        if task not in tasks:
            how = ": define A with weights=" if task == source and [*tasks] == ["B"] else ""
            raise UserError(f"{cell}: split={split} has tasks {', '.join(tasks)}, not {task}{how}")


def _check_fit(
    cell: Cell, network: NetworkConfig, recipe: RecipeConfig, dataset: PackedDataset
) -> None:
    """Raise :class:`UserError` if the network does not fit the packed images or the recipe."""
    if recipe.optimizer == LBFGS and not (cell.short and cell.copied and cell.frozen):
        raise UserError(
            f"{cell}: recipe.optimizer=lbfgs fits linear classifiers on frozen layers, such as A3.B"
        )
    if network.input_size > dataset.image_size:
        raise UserError(
            f"network.input_size={network.input_size} is not possible: the packed images of "
            f"{dataset.name} are {dataset.image_size}x{dataset.image_size} pixels "
            "(dataset.image_size)"
        )
    if network.has_batch_norm and recipe.batch_size == 1:
        raise UserError("recipe.batch_size=1 is not possible with network.normalization=batch")
