"""The one data format: a folder of ``images.npy``, ``labels.npy`` and ``dataset.json``.

Rows are in a seeded shuffled order: the training images, the validation images and, where there are
any, the test images, on which nothing is ever trained or chosen. Tasks and reduced-volume sets are
index arrays.
A pack with ``encoding=jpeg`` has ``jpegs.npy``, all JPEG files one after the other, and
``offsets.npy`` in place of ``images.npy``.
"""

import hashlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import joblib
import numpy as np
from numpy.lib.format import open_memmap

from transferability.data.config import DatasetConfig
from transferability.errors import UserError, shown
from transferability.fingerprint import to_dict

if TYPE_CHECKING:
    import torch

FORMAT = 1
# settings that do not change what an image is
LOCATION_FIELDS = (
    "folder",
    "source",
    "parts",
    "class_level",
    "leave_out",
    "val_labels",
    "on_error",
)
_HASHED = 1 << 26  # elements that are hashed at once
_KEYS = {
    "name": str,
    "settings": dict,
    "image_size": int,
    "n_train": int,
    "n_val": int,
    "classes": list,
    "skipped": dict,
    "checksum": str,
}


@dataclass(frozen=True)
class ClassInfo:
    """One class of a dataset; its index is its position in sorted order of wnid (or name)."""

    name: str
    wnid: str | None = None
    group: str | None = None  # natural | man-made, where known


class PackedDataset:
    """A packed dataset, opened read-only.

    Attributes:
        images: (N, H, W, 3) uint8, memory-mapped: n_train training images, n_val of validation,
            n_test of test.
            Of a JPEG-compressed pack :class:`JpegRows`, which decodes the rows it is asked for.
        labels: (N,) int64, dataset class of each row.
        classes: a ClassInfo for each class.
        encoding: None for raw pixels, else what a pixel went through, such as "jpeg q95 4:4:4".
        checksum: SHA-256 of images (as they are stored), labels and class names.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.meta = _read_description(folder)
        self.name: str = self.meta["name"]
        self.checksum: str = self.meta["checksum"]
        self.n_train: int = self.meta["n_train"]
        self.n_val: int = self.meta["n_val"]
        self.n_test: int = self.meta.get("n_test", 0)
        self.image_size: int = self.meta["image_size"]
        self.classes = [_class_info(c, folder) for c in self.meta["classes"]]
        count = self.n_train + self.n_val + self.n_test
        self.encoding = encoding_of(self.meta["settings"], folder)
        self.images = open_images(folder, count, self.image_size, self.encoding)
        self.labels = np.array(_map(folder / "labels.npy", np.int64, (count,)))
        self._images_on: WeakValueDictionary[torch.device, torch.Tensor] = WeakValueDictionary()
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise _damaged(
                folder,
                f"labels.npy goes from {self.labels.min()} to {self.labels.max()}, but "
                f"dataset.json has {len(self.classes)} classes",
            )

    @property
    def train_counts(self) -> np.ndarray:
        """Training images of each class, (classes,) int64."""
        return np.bincount(self.labels[: self.n_train], minlength=len(self.classes))

    def train_rows(self, classes: list[int], images_per_class: int | None = None) -> np.ndarray:
        """Training rows of ``classes`` in file order;
        of each class the first ``images_per_class``, or all it has.

        As in the original's ``make_reduced_dataset.py``:
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
        """Test rows of ``classes`` in file order; none where the pack has no test part."""
        return self._rows(classes, self.n_train + self.n_val, len(self.labels))

    def every_row(self, classes: list[int]) -> np.ndarray:
        """Training, validation and test rows of ``classes`` in file order."""
        return self._rows(classes, 0, len(self.labels))

    def _rows(self, classes: list[int], start: int, stop: int) -> np.ndarray:
        return start + np.flatnonzero(np.isin(self.labels[start:stop], classes))

    def read_rows(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Whole images, (len(rows), H, W, 3) uint8; in ``out`` where it is given."""
        if isinstance(self.images, JpegRows):
            starts, ends = self.images.offsets[rows], self.images.offsets[rows + 1]
            _read_ahead(self.images.files, starts, ends - starts)
            return self.images.decode(rows, out)
        size = math.prod(self.images.shape[1:])
        _read_ahead(self.images, rows * size, np.full(len(rows), size))
        # clip: the other modes fill ``out`` by a copy
        return np.take(self.images, rows, axis=0, out=out, mode="clip")

    def images_on(self, device: "torch.device") -> "torch.Tensor":
        """All images on ``device``, the same for all who ask;
        gone when nobody holds them: a process may move on.
        """
        import torch  # which status and plans do without

        images = self._images_on.get(device)
        if images is None:
            images = torch.from_numpy(self.read_rows(np.arange(len(self.labels)))).to(device)
            self._images_on[device] = images
        return images

    def mean_image(self, rows: np.ndarray) -> np.ndarray:
        """The mean of ``rows``, (H, W, 3) float32; exact sums,
        so the order of rows does not matter.
        """
        total = np.zeros(self.images.shape[1:], dtype=np.int64)
        for start in range(0, len(rows), 1024):
            total += self.read_rows(rows[start : start + 1024]).sum(axis=0, dtype=np.int64)
        return (total / len(rows)).astype(np.float32)


def open_images(
    folder: Path, count: int, side: int, encoding: str | None
) -> "np.memmap | JpegRows":
    """The images of a pack, (count, side, side, 3) uint8, memory-mapped.

    Raises:
        UserError: their files are not of this size.
    """
    return (
        JpegRows(folder, count, side)
        if encoding
        else _map(folder / "images.npy", np.uint8, (count, side, side, 3))
    )


class JpegRows:
    """Images kept as JPEG files in one array; indexing decodes them, as if it were (N,
    H, W, 3) uint8.

    Attributes:
        files: (bytes,) uint8, memory-mapped.
        offsets: (N+1,) int64; row i is ``files[offsets[i]:offsets[i + 1]]``.
        shape, nbytes: those of the decoded array.
    """

    def __init__(self, folder: Path, count: int, side: int):
        self.offsets = _map(folder / "offsets.npy", np.int64, (count + 1,))
        if self.offsets[0] != 0 or (np.diff(self.offsets) <= 0).any():
            raise _damaged(folder, "offsets.npy is damaged (it does not rise from 0)")
        self.files = _map(folder / "jpegs.npy", np.uint8, (int(self.offsets[-1]),), "offsets.npy")
        self.shape = (count, side, side, 3)
        self.nbytes = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        rows = np.arange(len(self))[rows]
        return self.decode(rows.reshape(-1)).reshape(*rows.shape, *self.shape[1:])

    def decode(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The images of ``rows``, (len(rows), H, W, 3) uint8; in ``out`` where it is given.

        Raises:
            UserError: a file is damaged.
        """
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def decode(part: np.ndarray) -> None:
            for i in part:
                self._decode(int(rows[i]), out[i])

        list(_decoders().map(decode, np.array_split(np.arange(len(rows)), joblib.cpu_count())))
        return out

    def _decode(self, row: int, out: np.ndarray) -> None:
        import cv2  # which packs of raw pixels do without

        try:
            image = cv2.imdecode(
                self.files[self.offsets[row] : self.offsets[row + 1]], cv2.IMREAD_COLOR
            )
        except cv2.error:
            image = None
        if image is None or image.shape != out.shape:
            raise _damaged(
                Path(str(self.files.filename)).parent,
                f"row {row} in jpegs.npy is no image any more",
            )
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=out)


@lru_cache(maxsize=1)
def _decoders() -> ThreadPoolExecutor:
    # threads: OpenCV decodes without Python's lock
    return ThreadPoolExecutor(joblib.cpu_count(), "decode")


def _read_ahead(mapped: np.memmap, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Have the system read these bytes of a mapped file all at once: reading them by page faults
    waits for each.
    """
    if not hasattr(os, "posix_fadvise"):  # macOS
        return
    with suppress(OSError):  # it is a hint
        descriptor = os.open(str(mapped.filename), os.O_RDONLY)
        try:
            for start, length in zip(
                (mapped.offset + starts).tolist(), lengths.tolist(), strict=True
            ):
                os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


@lru_cache(maxsize=8)
def open_dataset(folder: str) -> PackedDataset:
    """The packed dataset in ``folder``.

    Raises:
        UserError: nothing is packed there, or it does not fit its description.
    """
    _require_packed(Path(folder))
    return PackedDataset(Path(folder))


def dataset_of(config: DatasetConfig) -> PackedDataset:
    """The packed dataset; an embedded one is packed on first use.

    Raises:
        UserError: as :func:`open_packed`.
    """
    if config.embedded and not (Path(config.folder) / "dataset.json").exists():
        from transferability.data.pack import pack  # which only those that pack wait for

        return pack(config)
    return open_packed(config)


def open_packed(config: DatasetConfig) -> PackedDataset:
    """The dataset of ``config``, packed before.

    Raises:
        UserError: it is not packed, or was packed from another source or with other settings.
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


def same_source(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two descriptions name one folder or file, however they spell it;
    one that names none fits any.
    """
    names = [found for what in (first, second) if (found := what.get("source"))]
    return len({os.path.realpath(os.path.expanduser(str(name))) for name in names}) <= 1


def settings_of(config: DatasetConfig) -> dict[str, Any]:
    """The settings that the images of a pack depend on."""
    left_out = (*LOCATION_FIELDS, "jpeg_quality") if config.encoding == "raw" else LOCATION_FIELDS
    return {k: v for k, v in to_dict(config).items() if k not in left_out}


def verify(dataset: PackedDataset | str | Path) -> None:
    """Read a packed dataset whole and compare it with the checksum of the day it was packed.

    Opening checks sizes only: a flipped bit in an image goes unseen until this looks for it.

    Raises:
        UserError: images, labels or classes are not those that were packed; says which.
    """
    folder = dataset.folder if isinstance(dataset, PackedDataset) else Path(dataset)
    _require_packed(folder)
    found = PackedDataset(folder)  # from the disk, whatever was opened before
    classes = [asdict(c) for c in found.classes]
    sums = part_checksums(found.labels, classes)
    recorded = found.meta.get("part_checksums")  # None: packed before there were any
    for part, file in (("labels", "labels.npy"), ("classes", "dataset.json")):
        if isinstance(recorded, dict) and recorded.get(part) != sums[part]:
            raise _damaged(folder, f"the {part} in {file} are not those that were packed (SHA-256)")
    checksum = checksum_of(found.images, found.labels, classes)
    if checksum != found.checksum:
        files = "jpegs.npy or offsets.npy" if found.encoding else "images.npy"
        where = f"{files} is" if recorded else "images, labels or class names are"
        raise _damaged(
            folder,
            f"{where} not as packed (SHA-256 {checksum[:12]}..., dataset.json says "
            f"{found.checksum[:12]}...)",
        )


def checksum_of(images: np.ndarray | JpegRows, labels: np.ndarray, classes: list[dict]) -> str:
    """SHA-256 of the classes, all labels, and all pixels in row order;
    of JPEG files their offsets and bytes.
    """
    digest = hashlib.sha256(json.dumps(classes, sort_keys=True).encode())
    digest.update(labels.astype("<i8").tobytes())
    for array in (images.offsets, images.files) if isinstance(images, JpegRows) else (images,):
        flat = array.reshape(-1)
        for start in range(0, len(flat), _HASHED):
            digest.update(np.ascontiguousarray(flat[start : start + _HASHED]).data)
    return digest.hexdigest()


def encoding_of(settings: dict[str, Any], folder: Path) -> str | None:
    """What the settings of a pack say that its pixels went through; None: nothing, they are raw.

    Raises:
        UserError: it is no encoding that there is.
    """
    kind, quality = settings.get("encoding", "raw"), settings.get("jpeg_quality")
    if kind == "raw":
        return None
    if kind != "jpeg" or type(quality) is not int:
        raise _damaged(
            folder,
            f"dataset.json is damaged (encoding {shown(kind)}, jpeg_quality {shown(quality)})",
        )
    return f"jpeg q{quality} 4:4:4"


def part_checksums(labels: np.ndarray, classes: list[dict]) -> dict[str, str]:
    """SHA-256 of the small parts: where they are right and the whole is wrong, the images are."""
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


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"{folder}: {what}; delete the folder and pack again")


def _read_description(folder: Path) -> dict[str, Any]:
    """dataset.json, with every key that is used and of the right type."""
    try:
        meta = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder, f"dataset.json is damaged ({shown(error)})") from error
    if not isinstance(meta, dict):
        raise _damaged(folder, "dataset.json is damaged (not a description of a dataset)")
    if meta.get("format") != FORMAT:
        raise _damaged(
            folder, f"dataset.json has format {meta.get('format')!r}, this program reads {FORMAT}"
        )
    if missing := [key for key in _KEYS if key not in meta]:
        raise _damaged(folder, f"dataset.json lacks {', '.join(missing)}")
    if wrong := [key for key, kind in _KEYS.items() if type(meta[key]) is not kind]:
        raise _damaged(
            folder, f"dataset.json is damaged ({wrong[0]} is not a {_KEYS[wrong[0]].__name__})"
        )
    if min(meta["n_train"], meta["n_val"], meta["image_size"]) < 1:
        raise _damaged(
            folder, "dataset.json is damaged (n_train, n_val and image_size are numbers above 0)"
        )
    if type(meta.get("n_test", 1)) is not int or meta.get("n_test", 1) < 1:
        raise _damaged(folder, "dataset.json is damaged (n_test is a number above 0, or absent)")
    if "/" in meta["name"] or "\0" in meta["name"]:  # the folders of runs begin with it
        raise _damaged(
            folder, f"dataset.json is damaged (name {shown(meta['name'])} is no name of a folder)"
        )
    return meta


def _class_info(values: Any, folder: Path) -> ClassInfo:
    try:
        info = ClassInfo(**values)
    except TypeError as error:
        raise _damaged(folder, f"dataset.json is damaged (classes: {shown(error)})") from error
    if not isinstance(info.name, str):
        raise _damaged(folder, "dataset.json is damaged (classes: a name is no text)")
    return info


def _map(path: Path, dtype: type, shape: tuple[int, ...], by: str = "dataset.json") -> np.memmap:
    """The array in ``path``, mapped read-only, if it is what the file ``by`` says;
    never unpickles anything.
    """
    try:
        # refuses object arrays, other formats, and files shorter than they claim
        array = open_memmap(path, mode="r")
        size = path.stat().st_size
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise _damaged(path.parent, f"{path.name} cannot be read ({shown(error)})") from error
    if array.shape != shape or array.dtype != dtype:
        raise _damaged(
            path.parent,
            f"{path.name} is {array.shape} {array.dtype}, but {by} says {shape} {dtype.__name__}",
        )
    if size != array.offset + array.nbytes:
        raise _damaged(
            path.parent, f"{path.name} has {size} bytes instead of {array.offset + array.nbytes}"
        )
    return array
