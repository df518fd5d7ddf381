"""The data format: a folder with ``images.npy``, ``labels.npy`` and ``dataset.json``.

Rows are in a seeded random order within each subset: training images, then validation images, then
test images, if any, which are never used for training or selection. Tasks and training subsets of
reduced size are index arrays. A pack with ``encoding=jpeg`` has ``jpegs.npy``, all JPEG files
concatenated, and ``offsets.npy`` in place of ``images.npy``.
"""

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np

from transferability.data.arrays import JpegRows, open_array, open_images, read_rows
from transferability.data.config import DatasetConfig
from transferability.data.description import (
    damaged,
    encoding_of,
    read_description,
    same_source,
    settings_of,
)
from transferability.errors import UserError

if TYPE_CHECKING:
    import torch

_HASHED = 1 << 26  # elements hashed at once


class PackedDataset:
    """A packed dataset, opened read-only.

    Attributes:
        images: (N, H, W, 3) uint8, memory-mapped: n_train training, n_val validation and n_test
            test images. For a JPEG-compressed pack, :class:`JpegRows`, which decodes rows on
            access.
        labels: (N,) int64, dataset class of each row.
        classes: a ClassInfo per class.
        encoding: None for raw pixels, else the encoding, such as "jpeg q95 4:4:4".
        checksum: SHA-256 of images (as stored), labels and class names.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.meta, self.classes = read_description(folder)
        self.name: str = self.meta["name"]
        self.checksum: str = self.meta["checksum"]
        self.n_train: int = self.meta["n_train"]
        self.n_val: int = self.meta["n_val"]
        self.n_test: int = self.meta.get("n_test", 0)
        self.image_size: int = self.meta["image_size"]
        count = self.n_train + self.n_val + self.n_test
        self.encoding = encoding_of(self.meta["settings"], folder)
        self.images = open_images(folder, count, self.image_size, self.encoding)
        self.labels = np.array(open_array(folder / "labels.npy", np.int64, (count,)))
        self._images_on: WeakValueDictionary[torch.device, torch.Tensor] = WeakValueDictionary()
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise damaged(
                folder,
                f"labels.npy goes from {self.labels.min()} to {self.labels.max()}, but "
                f"dataset.json has {len(self.classes)} classes",
            )

    @property
    def train_counts(self) -> np.ndarray:
        """Number of training images per class, (classes,) int64."""
        return np.bincount(self.labels[: self.n_train], minlength=len(self.classes))

    def train_rows(self, classes: list[int], images_per_class: int | None = None) -> np.ndarray:
        """Training rows of ``classes`` in file order, at most the first ``images_per_class`` per
        class.

        Classes with fewer images keep all of them, as in the authors' ``make_reduced_dataset.py``:
        ImageNet's classes have 732 to 1300 training images.

        Raises:
            UserError: no class has that many.
        """
        rows = self._rows(classes, 0, self.n_train)
        if images_per_class is None:
            return rows
        labels = self.labels[rows]
        chosen = [rows[labels == c][:images_per_class] for c in classes]
        if (most := max(map(len, chosen))) < images_per_class:
            raise UserError(
                f"images_per_class={images_per_class}, but no class of the task has more than "
                f"{most} training images in {self.name}"
            )
        return np.sort(np.concatenate(chosen))

    def val_rows(self, classes: list[int]) -> np.ndarray:
        """Validation rows of ``classes`` in file order."""
        return self._rows(classes, self.n_train, self.n_train + self.n_val)

    def test_rows(self, classes: list[int]) -> np.ndarray:
        """Test rows of ``classes`` in file order; empty if the pack has no test subset."""
        return self._rows(classes, self.n_train + self.n_val, len(self.labels))

    def every_row(self, classes: list[int]) -> np.ndarray:
        """Training, validation and test rows of ``classes`` in file order."""
        return self._rows(classes, 0, len(self.labels))

    def _rows(self, classes: list[int], start: int, stop: int) -> np.ndarray:
        return start + np.flatnonzero(np.isin(self.labels[start:stop], classes))

    def read_rows(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Read entire images, (len(rows), H, W, 3) uint8, into ``out`` if given."""
        return read_rows(self.images, rows, out)

    def images_on(self, device: "torch.device") -> "torch.Tensor":
        """All images on ``device``, as one tensor for all callers. The tensor is freed when no
        caller holds it, because a process may move on to another dataset.
        """
        import torch  # imported only here: status and plans do not need it

        images = self._images_on.get(device)
        if images is None:
            images = torch.from_numpy(self.read_rows(np.arange(len(self.labels)))).to(device)
            self._images_on[device] = images
        return images

    def mean_image(self, rows: np.ndarray) -> np.ndarray:
        """The mean of ``rows``, (H, W, 3) float32. Sums are exact, so the order of rows does not
        matter.
        """
        total = np.zeros(self.images.shape[1:], dtype=np.int64)
        for start in range(0, len(rows), 1024):
            total += self.read_rows(rows[start : start + 1024]).sum(axis=0, dtype=np.int64)
        return (total / len(rows)).astype(np.float32)


@lru_cache(maxsize=8)
def open_dataset(folder: str) -> PackedDataset:
    """Open the packed dataset in ``folder``.

    Raises:
        UserError: nothing is packed there, or its files do not match its description.
    """
    _require_packed(Path(folder))
    return PackedDataset(Path(folder))


def dataset_of(config: DatasetConfig) -> PackedDataset:
    """Open the packed dataset of ``config``; a synthetic one is packed on first use.

    Raises:
        UserError: as :func:`open_packed`.
    """
    if config.synthetic and not (Path(config.folder) / "dataset.json").exists():
        from transferability.data.pack import pack  # slow import, only to pack

        return pack(config)
    return open_packed(config)


def open_packed(config: DatasetConfig) -> PackedDataset:
    """Open the dataset of ``config``, packed before.

    Raises:
        UserError: the dataset is not packed, or was packed from another source or with other
            settings.
    """
    dataset = open_dataset(config.folder)
    wanted, found = settings_of(config), dataset.meta["settings"]
    differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if config.source and not same_source(dataset.meta, {"source": config.source}):
        raise UserError(
            f"{config.folder} was packed from {dataset.meta['source']}, not from "
            f"dataset.source={config.source}: set dataset.name to pack this beside it, "
            "or delete the folder"
        )
    if differing:
        raise UserError(
            f"{config.folder} was packed with other settings ({', '.join(differing)}): set "
            "dataset.name to pack these beside it, or delete the folder"
        )
    return dataset


def verify(dataset: PackedDataset | str | Path) -> None:
    """Read an entire packed dataset and compare it with the checksum from packing.

    Opening a dataset checks only sizes: a flipped bit in an image is found only here.

    Raises:
        UserError: images, labels or classes differ from those that were packed; the message names
            them.
    """
    folder = dataset.folder if isinstance(dataset, PackedDataset) else Path(dataset)
    _require_packed(folder)
    found = PackedDataset(folder)  # read from disk, whatever is open already
    classes = [asdict(c) for c in found.classes]
    sums = part_checksums(found.labels, classes)
    recorded = found.meta.get("part_checksums")  # None: packed before these were recorded
    for what, file in (("labels", "labels.npy"), ("classes", "dataset.json")):
        if isinstance(recorded, dict) and recorded.get(what) != sums[what]:
            raise damaged(folder, f"the {what} in {file} are not those that were packed (SHA-256)")
    checksum = checksum_of(found.images, found.labels, classes)
    if checksum != found.checksum:
        files = "jpegs.npy or offsets.npy" if found.encoding else "images.npy"
        where = f"{files} is" if recorded else "images, labels or class names are"
        raise damaged(
            folder,
            f"{where} not as packed (SHA-256 {checksum[:12]}..., dataset.json says "
            f"{found.checksum[:12]}...)",
        )


def checksum_of(images: np.ndarray | JpegRows, labels: np.ndarray, classes: list[dict]) -> str:
    """SHA-256 of the classes, all labels, and all pixels in row order; for JPEG files, of their
    offsets and bytes.
    """
    digest = hashlib.sha256(json.dumps(classes, sort_keys=True).encode())
    digest.update(labels.astype("<i8").tobytes())
    for array in (images.offsets, images.files) if isinstance(images, JpegRows) else (images,):
        flat = array.reshape(-1)
        for start in range(0, len(flat), _HASHED):
            digest.update(np.ascontiguousarray(flat[start : start + _HASHED]).data)
    return digest.hexdigest()


def part_checksums(labels: np.ndarray, classes: list[dict]) -> dict[str, str]:
    """SHA-256 of the small files: if these match and the full checksum does not, the images
    changed.
    """
    return {
        "classes": hashlib.sha256(json.dumps(classes, sort_keys=True).encode()).hexdigest(),
        "labels": hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest(),
    }


def _require_packed(folder: Path) -> None:
    if not (folder / "dataset.json").exists():
        raise UserError(
            f"no packed dataset in {folder}: run `python -m experiments.pack` with the same "
            "dataset settings first"
        )
