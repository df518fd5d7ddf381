"""Read the files of a zip or tar file one at a time, without extracting the others."""

import bz2
import errno
import gzip
import logging
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from transferability.errors import UserError, reason, shown

log = logging.getLogger(__name__)
MAX_BYTES = 256 << 20  # per file
_ZIP_ERRORS = (
    KeyError,
    RuntimeError,
    EOFError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_UTF8 = 0x800  # the flag of entries whose names are UTF-8
_TAR_ERRORS = (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
# first bytes of compressed tar files -> how to open them
_COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


def check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise OSError(f"{size:,} bytes; one image may have at most {MAX_BYTES:,}")


def open_archive(path: Path) -> "_Zip | _Tar":
    """Open a zip or tar file.

    Raises:
        UserError: the file is of another kind, truncated or unreadable, the name of an entry points
            outside the archive, or an entry of a zip file is encrypted.
    """
    try:
        if not path.is_file():  # opening a pipe would block forever
            raise zipfile.BadZipFile
        with open(path, "rb") as file:
            is_zip = file.read(2) == b"PK"
        return _Zip(path) if is_zip else _Tar(path)
    except (*_ZIP_ERRORS, *_TAR_ERRORS) as error:
        raise UserError(
            f"dataset.source={path} is neither a folder nor a zip or tar file, or the file is "
            "truncated: get it again (if it is another kind of archive, unpack it and give the "
            "folder)"
        ) from error
    except OSError as error:
        raise UserError(f"dataset.source={path} cannot be read: {reason(error)}") from error


def _entry_name(archive: Path, name: str) -> str:
    """The normalized path of an entry relative to the archive's root."""
    if re.match(r"([A-Za-z]:)?[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise UserError(
            f"dataset.source={archive}: the entry {name} points outside it: an "
            "archive of images has names such as CLASS/IMAGE; make it again"
        )
    return posixpath.normpath(name)


def _names(archive: Path, entries: list[zipfile.ZipInfo]) -> list[str]:
    """The names of the entries of a zip file.

    ``zipfile`` decodes names without the UTF-8 flag as cp437. They are decoded as UTF-8, as macOS
    writes them, unless one of them is not valid UTF-8.
    """
    unsaid = [e for e in entries if not (e.flag_bits & _UTF8 or e.filename.isascii())]
    try:
        utf8 = {id(e): e.filename.encode("cp437").decode() for e in unsaid}
    except UnicodeError:
        utf8 = {}
        log.warning(
            "%s: it does not say how its names are encoded, and %d of them may be misread, "
            "the first %s: where that is wrong, unpack it yourself and give the folder",
            shown(archive),
            len(unsaid),
            shown(unsaid[0].filename),
        )
    return [utf8.get(id(entry), entry.filename) for entry in entries]


class _Zip:
    """The files of a zip file."""

    def __init__(self, path: Path):
        self.archive, self.entries, self.folders = zipfile.ZipFile(path), {}, []
        entries = self.archive.infolist()
        slashes = any("/" in entry.filename for entry in entries)
        try:
            for entry, name in zip(entries, _names(path, entries), strict=True):
                # Some Windows programs write CLASS\IMAGE. Otherwise a backslash is part
                # of the name.
                of_windows = entry.create_system == 0 or not slashes
                name = name.replace("\\", "/") if of_windows else name
                folder, name = name.endswith("/"), _entry_name(path, name)
                if entry.flag_bits & 1:
                    raise UserError(
                        f"dataset.source={path}: the entry {name} is "
                        "encrypted: unzip it with its password and give the folder"
                    )
                if folder:
                    self.folders.append(name)
                else:
                    self.entries[name] = entry  # of entries with the same name, the last
        except UserError:
            self.archive.close()
            raise
        self.links = [name for name, entry in self.entries.items() if self._is_link(entry)]

    @property
    def names(self) -> Iterable[str]:
        return self.entries

    @staticmethod
    def _is_link(entry: zipfile.ZipInfo) -> bool:
        return stat.S_ISLNK(entry.external_attr >> 16)

    def head(self, name: str) -> bytes:
        try:
            with self.archive.open(self.entries[name]) as file:
                return file.read(32)
        except (OSError, *_ZIP_ERRORS):
            return b""

    def read(self, name: str) -> bytes:
        entry = self.entries[name]
        if self._is_link(entry):
            raise OSError("a symbolic link in a zip file; zip what it points to")
        check_bytes(entry.file_size)
        try:
            with self.archive.open(entry) as file:
                return file.read(entry.file_size)  # never more than the header states
        except _ZIP_ERRORS as error:
            raise OSError(f"zip: {error}") from error

    def size(self, name: str) -> int:
        return self.entries[name].file_size

    def is_lost(self, name: str) -> bool:
        return self._is_link(self.entries[name])


class _Tar:
    """The files of a tar file. A compressed one is decompressed to a temporary file, for random
    access.
    """

    def __init__(self, path: Path):
        self.file, self.entries, self.folders, self.links = _uncompressed(path), {}, [], []
        self.lock = threading.Lock()
        with tarfile.open(fileobj=self.file, mode="r:") as archive:
            for member in archive:
                name = _entry_name(path, member.name)
                if member.isdir():
                    self.folders.append(name)
                elif member.isreg() and not member.issparse():
                    self.entries[name] = (member.offset_data, member.size)
                elif member.islnk():  # a hard link to an earlier entry
                    self.entries[name] = self.entries[posixpath.normpath(member.linkname)]
                else:
                    self.entries[name] = (-1, 0)
                    self.links.append(name)
                archive.members = []  # type: ignore[attr-defined]  # else kept, a kilobyte each
            if self._bytes(archive.offset, 512) != bytes(512):
                # tarfile mistakes a damaged header, or a missing rest, for the end
                raise tarfile.ReadError("no end")

    @property
    def names(self) -> Iterable[str]:
        return self.entries

    def _bytes(self, offset: int, size: int) -> bytes:
        # several threads read at the same time
        if hasattr(os, "pread"):
            return os.pread(self.file.fileno(), size, offset)
        with self.lock:  # Windows reads only from the current position
            self.file.seek(offset)
            return self.file.read(size)

    def head(self, name: str) -> bytes:
        offset, size = self.entries[name]
        return b"" if offset < 0 else self._bytes(offset, min(size, 32))

    def read(self, name: str) -> bytes:
        offset, size = self.entries[name]
        if offset < 0:
            raise OSError(
                "a symbolic link, or not a file, in a tar file; archive what it points to"
            )
        check_bytes(size)
        return self._bytes(offset, size)

    def size(self, name: str) -> int:
        return self.entries[name][1]

    def is_lost(self, name: str) -> bool:
        return self.entries[name][0] < 0


def _uncompressed(path: Path) -> BinaryIO:
    file = open(path, "rb")  # noqa: SIM115 (the tree reads from it later)
    head = file.read(8)
    file.seek(0)
    opened = next((opened for magic, opened in _COMPRESSED.items() if head.startswith(magic)), None)
    if opened is None:
        return file
    try:
        with file, opened(file) as packed:
            out = tempfile.TemporaryFile()  # noqa: SIM115
            shutil.copyfileobj(packed, out, 1 << 20)
            out.seek(0)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"dataset.source={path}: {tempfile.gettempdir()} has no room to unpack it: make "
            "room, set TMPDIR, or unpack it yourself and give the folder"
        ) from error
    return out
