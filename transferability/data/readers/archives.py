"""The files of a zip file or a tar file, read one at a time without unpacking the whole."""

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
MAX_BYTES = 256 << 20  # of one file
_ZIP_ERRORS = (
    KeyError,
    RuntimeError,
    EOFError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_UTF8 = 0x800  # the flag of an entry whose name is UTF-8
_TAR_ERRORS = (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
# tar files, by their first bytes
_COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


def check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise OSError(f"{size:,} bytes; one image may have at most {MAX_BYTES:,}")


def open_archive(path: Path) -> "_Zip | _Tar":
    """A zip or tar file, if every entry's name is one of a file below it and none
    needs a password.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
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
    """The path of an entry below the archive, as a folder would list it."""
    if re.match(r"([A-Za-z]:)?[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise UserError(
            f"dataset.source={archive}: the entry {name} points outside it: an "
            "archive of images has names such as CLASS/IMAGE; make it again"
        )
    return posixpath.normpath(name)


def _names(archive: Path, entries: list[zipfile.ZipInfo]) -> list[str]:
    """The names of the entries of a zip file: of those that do not say their encoding, which
    ``zipfile`` takes for cp437, all are UTF-8, as macOS writes them, or they stay as they are.
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
                # CLASS\IMAGE where some program of Windows wrote it;
                # elsewhere a backslash is a character of a name.
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
                    self.entries[name] = entry  # a name that is there twice is the last of them
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
                return file.read(entry.file_size)  # no more than was claimed, whatever comes out
        except _ZIP_ERRORS as error:
            raise OSError(f"zip: {error}") from error

    def size(self, name: str) -> int:
        return self.entries[name].file_size

    def is_lost(self, name: str) -> bool:
        return self._is_link(self.entries[name])


class _Tar:
    """The files of a tar file; a compressed one is unpacked into a temporary file,
    to be read in any order.
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
                elif member.islnk():  # the same file once more
                    self.entries[name] = self.entries[posixpath.normpath(member.linkname)]
                else:
                    self.entries[name] = (-1, 0)
                    self.links.append(name)
                archive.members = []  # type: ignore[attr-defined]  # they would stay, a kilobyte each
            if self._bytes(archive.offset, 512) != bytes(512):
                # tarfile takes a damaged header, and a lost rest, for the end
                raise tarfile.ReadError("no end")

    @property
    def names(self) -> Iterable[str]:
        return self.entries

    def _bytes(self, offset: int, size: int) -> bytes:
        # the readers are several threads
        if hasattr(os, "pread"):
            return os.pread(self.file.fileno(), size, offset)
        with self.lock:  # Windows can read from where the file stands only
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
