"""The one data format: a folder of ``images.npy``, ``labels.npy`` and ``dataset.json``.

Rows are in a seeded shuffled order; the training images come first. Tasks and reduced-volume sets are index arrays.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from transferability.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class ClassInfo:
    """One class of a dataset; its index is its position in sorted order of wnid (or name)."""

    name: str
    wnid: str | None = None
    group: str | None = None  # natural | man-made, where known


class PackedDataset:
    """A packed dataset, opened read-only.

    Attributes:
        images: (N, H, W, 3) uint8, memory-mapped; rows 0..n_train-1 are training images, the rest validation.
        labels: (N,) int64, dataset class of each row.
        classes: a ClassInfo for each class.
        checksum: SHA-256 of images, labels and class names.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.meta = json.loads((folder / "dataset.json").read_text())
        except json.JSONDecodeError as error:
            raise UserError(f"{folder}/dataset.json is damaged ({error}): delete the folder and pack again") from error
        if self.meta["format"] != FORMAT:
            raise UserError(f"{folder} has format {self.meta['format']}, this program reads {FORMAT}: pack it again")
        self.name: str = self.meta["name"]
        self.checksum: str = self.meta["checksum"]
        self.n_train: int = self.meta["n_train"]
        self.image_size: int = self.meta["image_size"]
        self.classes = [ClassInfo(**c) for c in self.meta["classes"]]
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.labels = np.load(folder / "labels.npy")
        expected = (self.n_train + self.meta["n_val"], self.image_size, self.image_size, 3)
        if self.images.shape != expected or self.labels.shape != expected[:1]:
            raise UserError(
                f"{folder}: images.npy is {self.images.shape} and labels.npy {self.labels.shape}, but dataset.json "
                f"says {expected}; delete the folder and pack again"
            )

    def train_rows(self, classes: list[int], images_per_class: int | None = None) -> np.ndarray:
        """Training rows of ``classes`` in file order; the first ``images_per_class`` of each class."""
        rows = np.flatnonzero(np.isin(self.labels[: self.n_train], classes))
        if images_per_class is None:
            return rows
        labels = self.labels[rows]
        chosen = [rows[labels == c][:images_per_class] for c in classes]
        for c, found in zip(classes, chosen, strict=True):
            if len(found) < images_per_class:
                raise UserError(
                    f"images_per_class={images_per_class}, but class {self.classes[c].name!r} of {self.name} has "
                    f"{len(found)} training images"
                )
        return np.sort(np.concatenate(chosen))

    def val_rows(self, classes: list[int]) -> np.ndarray:
        """Validation rows of ``classes`` in file order."""
        return self.n_train + np.flatnonzero(np.isin(self.labels[self.n_train :], classes))

    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Whole images, (len(rows), H, W, 3) uint8."""
        return self.images[rows]

    @lru_cache(maxsize=2)  # noqa: B019 (a dataset lives as long as the process)
    def images_on(self, device: torch.device) -> torch.Tensor:
        """All images on ``device``."""
        return torch.from_numpy(np.array(self.images)).to(device)

    def mean_image(self, rows: np.ndarray) -> np.ndarray:
        """The mean of ``rows``, (H, W, 3) float32; exact sums, so the order of rows does not matter."""
        total = np.zeros(self.images.shape[1:], dtype=np.int64)
        for start in range(0, len(rows), 1024):
            total += self.images[rows[start : start + 1024]].sum(axis=0, dtype=np.int64)
        return (total / len(rows)).astype(np.float32)


@lru_cache(maxsize=8)
def open_dataset(folder: str) -> PackedDataset:
    """The packed dataset in ``folder``.

    Raises:
        UserError: nothing is packed there, or it does not fit its description.
    """
    path = Path(folder)
    if not (path / "dataset.json").exists():
        raise UserError(
            f"no packed dataset in {path}: run `python -m experiments.pack` with the same dataset settings first"
        )
    return PackedDataset(path)
