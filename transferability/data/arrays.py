"""The memory-mapped arrays of a packed dataset: raw pixels, or JPEG files."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import joblib
import numpy as np
from numpy.lib.format import open_memmap

from transferability.data.description import damaged


def open_images(
    folder: Path, count: int, side: int, encoding: str | None
) -> "np.memmap | JpegRows":
    """Open the images of a pack, (count, side, side, 3) uint8, memory-mapped.

    Raises:
        UserError: the files are damaged or not of this size.
    """
    if encoding:
        return JpegRows(folder, count, side)
    return open_array(folder / "images.npy", np.uint8, (count, side, side, 3))


class JpegRows:
    """Images stored as JPEG files in one array; indexing decodes them, as if from an (N, H, W, 3)
    uint8 array.

    Attributes:
        files: (bytes,) uint8, memory-mapped.
        offsets: (N+1,) int64; row i is ``files[offsets[i]:offsets[i + 1]]``.
        shape, nbytes: of the decoded array.
    """

    def __init__(self, folder: Path, count: int, side: int):
        self.offsets = open_array(folder / "offsets.npy", np.int64, (count + 1,))
        if self.offsets[0] != 0 or (np.diff(self.offsets) <= 0).any():
            raise damaged(folder, "offsets.npy is damaged (it does not rise from 0)")
        size = int(self.offsets[-1])
        self.files = open_array(folder / "jpegs.npy", np.uint8, (size,), "offsets.npy")
        self.shape = (count, side, side, 3)
        self.nbytes = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        rows = np.arange(len(self))[rows]
        return self.decode(rows.reshape(-1)).reshape(*rows.shape, *self.shape[1:])

    def decode(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Decode the images of ``rows``, (len(rows), H, W, 3) uint8, into ``out`` if given.

        Raises:
            UserError: a file is damaged.
        """
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def decode(indices: np.ndarray) -> None:
            for i in indices:
                self._decode(int(rows[i]), out[i])

        list(_decoders().map(decode, np.array_split(np.arange(len(rows)), joblib.cpu_count())))
        return out

    def _decode(self, row: int, out: np.ndarray) -> None:
        import cv2  # imported only here: packs of raw pixels do not need it

        try:
            file = self.files[self.offsets[row] : self.offsets[row + 1]]
            image = cv2.imdecode(file, cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
        if image is None or image.shape != out.shape:
            folder = Path(str(self.files.filename)).parent
            raise damaged(folder, f"row {row} in jpegs.npy is no longer an image")
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=out)


@lru_cache(maxsize=1)
def _decoders() -> ThreadPoolExecutor:
    # threads, because OpenCV decodes without Python's GIL
    return ThreadPoolExecutor(joblib.cpu_count(), "decode")


def read_rows(
    images: np.memmap | JpegRows, rows: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Read entire images, (len(rows), H, W, 3) uint8, into ``out`` if given."""
    if isinstance(images, JpegRows):
        starts, ends = images.offsets[rows], images.offsets[rows + 1]
        _read_ahead(images.files, starts, ends - starts)
        return images.decode(rows, out)
    size = math.prod(images.shape[1:])
    _read_ahead(images, rows * size, np.full(len(rows), size))
    # clip, because the default mode fills ``out`` by a copy
    return np.take(images, rows, axis=0, out=out, mode="clip")


def _read_ahead(mapped: np.memmap, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Prefetch these bytes of a mapped file: page faults would wait for each of them in turn."""
    if not hasattr(os, "posix_fadvise"):  # macOS
        return
    places = zip((mapped.offset + starts).tolist(), lengths.tolist(), strict=True)
    with suppress(OSError), open(str(mapped.filename), "rb") as file:  # only a hint
        for start, length in places:
            os.posix_fadvise(file.fileno(), start, length, os.POSIX_FADV_WILLNEED)


def open_array(
    path: Path, dtype: type, shape: tuple[int, ...], by: str = "dataset.json"
) -> np.memmap:
    """Map the array in ``path`` read-only, and check its shape and dtype, which the file ``by``
    gives; never unpickles anything.

    Raises:
        UserError: the array is damaged, or has another shape or dtype.
    """
    try:
        # refuses object arrays, other formats, and files shorter than they claim
        array = open_memmap(path, mode="r")
        size = path.stat().st_size
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise damaged(path.parent, f"{path.name} cannot be read ({error})") from error
    wanted = array.offset + array.nbytes
    if array.shape != shape or array.dtype != dtype:
        what = f"is {array.shape} {array.dtype}, but {by} says {shape} {dtype.__name__}"
        raise damaged(path.parent, f"{path.name} {what}")
    if size != wanted:
        raise damaged(path.parent, f"{path.name} has {size} bytes instead of {wanted}")
    return array
