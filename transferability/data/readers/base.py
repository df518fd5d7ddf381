"""A dataset before packing: its classes, and samples whose images are read one at a time."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from transferability.data.config import DatasetConfig
from transferability.data.decode import decode
from transferability.data.description import ClassInfo
from transferability.data.readers.file_tree import FileTree
from transferability.data.readers.subsets import SUBSETS
from transferability.errors import UserError, shown


@dataclass(frozen=True)
class Sample:
    """One image: its label, its name in messages, and a function that reads it.

    ``read`` returns the bytes of an image file, or pixels, (H, W, 3) uint8 RGB of any size.
    """

    label: int
    name: str
    read: Callable[[], bytes | np.ndarray]
    size: Callable[[], int] | None = None  # of the image file, in bytes
    group: str | None = None  # images of one group are in one subset

    def load(self) -> np.ndarray:
        """Read the pixels as stored, without applying orientation tags."""
        content = self.read()
        return decode(content) if isinstance(content, bytes) else content


def file_item(
    tree: FileTree, config: DatasetConfig, label: int, name: str, group: str | None = None
) -> Sample:
    """The sample in the file ``name`` of ``tree``; ``group`` defaults to the match of
    ``dataset.group`` in ``name``.
    """
    where = shown(f"{tree.source}/{name}")
    if config.group is not None and group is None:
        found = re.search(config.group, name)
        if found is None:
            raise UserError(
                f"dataset.group={config.group} is found nowhere in {name}: it must match the "
                "path of every file below dataset.source, and give its group"
            )
        group = found[1] if found.re.groups else found[0]
    return Sample(label, where, lambda: tree.read(name), lambda: tree.size(name), group)


@dataclass(frozen=True)
class RawDataset:
    """A dataset before packing.

    ``held_out``: whether ``val`` is a share of the training images and not a subset of the source.
    """

    classes: list[ClassInfo]
    train: list[Sample]
    val: list[Sample]
    test: list[Sample] = field(default_factory=list)
    held_out: bool = False

    @property
    def subsets(self) -> dict[str, list[Sample]]:
        """Name of each subset -> its samples, in the order of the pack."""
        return {"training": self.train, "validation": self.val} | (
            {"test": self.test} if self.test else {}
        )

    @property
    def items(self) -> list[Sample]:
        return [*self.train, *self.val, *self.test]

    def each(self, change: Callable[[str, list[Sample]], list[Sample]]) -> "RawDataset":
        """Return a copy whose train, val and test are ``change(name, samples)``."""
        made: dict[str, Any] = {name: change(name, getattr(self, name)) for name in SUBSETS}
        return replace(self, **made)

    def without(self, names: Collection[str]) -> "RawDataset":
        """Return a copy without the samples of these names."""
        return self.each(lambda _, items: [item for item in items if item.name not in names])
