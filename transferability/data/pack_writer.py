"""The array files of a pack during writing: rows are appended, and files can be cut to a safe
point.
"""

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0

from transferability.data.config import DatasetConfig
from transferability.data.duplicates import HASH
from transferability.data.encode import Chunk
from transferability.data.near_duplicates import PERCEPTUAL

# hashes of the rows so far; not part of the finished dataset
HASHES, PERCEPTUALS = "hashes.npy", "perceptual.npy"


class AppendableNpy:
    """A .npy file to which rows are appended.

    ``size``: the bytes to keep, the rest is cut off; None: a new file.
    """

    def __init__(self, path: Path, dtype: str, row: tuple[int, ...], size: int | None):
        self.dtype, self.row = np.dtype(dtype), row
        # Any: it writes arrays, which are not typed as buffers before Python 3.12
        self.file: Any = open(path, "wb" if size is None else "r+b")  # noqa: SIM115 (closed below)
        if size is None:
            self.file.write(self._header(0))
        else:
            self.file.truncate(size)
            self.file.seek(size)

    def __len__(self) -> int:
        return (self.file.tell() - len(self._header(0))) // (
            self.dtype.itemsize * math.prod(self.row)
        )

    def _header(self, count: int) -> bytes:
        """The header, of the same length for every count because numpy pads it."""
        out = io.BytesIO()
        write_array_header_1_0(
            out, {"descr": self.dtype.str, "fortran_order": False, "shape": (count, *self.row)}
        )
        return out.getvalue()

    def finish(self) -> None:
        header = self._header(len(self))
        self.file.seek(0)
        self.file.write(header)
        self.file.seek(0, os.SEEK_END)


class PackWriter:
    """The array files of a pack. ``sizes``: the bytes to keep of each; empty: new files."""

    def __init__(self, folder: Path, config: DatasetConfig, sizes: dict[str, int]):
        side = config.image_size
        kinds: dict[str, tuple[str, tuple]] = {"images.npy": ("|u1", (side, side, 3))}
        if config.encoding == "jpeg":
            kinds = {"jpegs.npy": ("|u1", ()), "offsets.npy": ("<i8", ())}
        kinds |= {HASHES: ("|u1", (HASH,)), PERCEPTUALS: ("|u1", (PERCEPTUAL,))}
        self.files = {
            name: AppendableNpy(folder / name, *kind, sizes.get(name))
            for name, kind in kinds.items()
        }
        self.images, self.offsets = next(iter(self.files.values())), self.files.get("offsets.npy")
        if self.offsets is not None and not len(self.offsets):
            self.offsets.file.write(np.zeros(1, "<i8"))

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        for growing in self.files.values():
            growing.file.close()

    def append(self, chunk: Chunk) -> None:
        if self.offsets is not None:
            self.offsets.file.write(
                len(self.images) + np.cumsum([row.nbytes for row in chunk.rows], dtype="<i8")
            )
        self.images.file.writelines(chunk.rows)
        self.files[HASHES].file.writelines(chunk.hashes)
        self.files[PERCEPTUALS].file.writelines(chunk.perceptual)

    def sync(self) -> dict[str, int]:
        """Force all files to disk, and return their sizes in bytes."""
        for growing in self.files.values():
            growing.file.flush()
            os.fsync(growing.file.fileno())
        return {name: growing.file.tell() for name, growing in self.files.items()}

    def finish(self) -> None:
        """Write the number of rows into every file."""
        for growing in self.files.values():
            growing.finish()
        self.sync()
