"""Where files lie: a folder, a zip file or a tar file, as one tree of names that is read alike."""

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
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from torchvision.datasets.folder import IMG_EXTENSIONS

from transferability.errors import UserError, and_more, shown

log = logging.getLogger(__name__)

MAX_BYTES = 256 << 20  # of one file
# What systems, network disks and editors put beside one's files, in lower case; and every name that begins with a dot.
SYSTEM = {
    *(
        "__macosx",
        "__pycache__",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "#recycle",
        "#snapshot",
        "recycler",
    ),
    *("$recycle.bin", "desktop.ini", "ehthumbs.db", "found.000", "icon\r", "lost+found", "picasa.ini"),
    *("thumbs.db", "network trash folder", "system volume information", "temporary items"),
}
# Names that say "an image"; of files with other names the first bytes decide, but of texts, which may be millions.
IMAGES = (*IMG_EXTENSIONS, ".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpg_large")
TEXTS = (".csv", ".json", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml")
SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*|BM.{4}\0{4}|P[1-6]\s+[#\d]"
    rb"|.{4}ftyp(?:avi[fs]|hei[cfmsx]|hev[cx]|mif1|msf1)|\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)
_ZIP_ERRORS = (KeyError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_TAR_ERRORS = (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}  # tar files, by their first bytes


class FileTree:
    """The files of a folder, a zip file or a tar file by path relative to it; sorted, whatever the disk's order.

    What the system put there (SYSTEM) is left out, and counted in one line.

    Attributes:
        names: all files.
        folders: all folders, also empty ones; none for the top.
    """

    def __init__(self, source: str):
        try:
            self.source = Path(source).expanduser()
        except RuntimeError as error:
            raise UserError(f"dataset.source={shown(source)}: {error}") from error
        if not os.path.exists(self.source):
            raise UserError(f"dataset.source={shown(source)} does not exist")
        self._files = _Folder(self.source) if self.source.is_dir() else _open_archive(self.source)
        folders = _with_those_above({posixpath.dirname(n) for n in self._files.names} | set(self._files.folders))
        system = {path: own for path in (*self._files.names, *folders) if (own := _of_the_system(path))}
        self.names = sorted(n for n in self._files.names if n not in system)
        self.folders = sorted(f for f in folders if f not in system)
        self._known, self._sniffed = set(self.names), {}
        if owned := set(system.values()):
            kinds = Counter(_kind_of_system(name) for name in owned).most_common(5)
            listed = ", ".join(f"{count} {shown(kind)}" for kind, count in sorted(kinds))
            log.warning(
                "%s: %d files and folders that the system or an editor put there are left out (%s%s)",
                shown(source),
                len(owned),
                listed,
                " ..." if sum(count for _, count in kinds) < len(owned) else "",
            )

    def is_image(self, name: str) -> bool:
        """Whether a listed file says that it is an image or, by its first bytes, is one."""
        lower = name.lower()
        if lower.endswith(IMAGES):
            return True
        if lower.endswith(TEXTS):
            return False
        if name not in self._sniffed:
            self._sniffed[name] = SIGNATURE.match(self._files.head(name)) is not None
        return self._sniffed[name]

    def images(self, under: str) -> list[str]:
        """Image files below the folder ``under`` ('' for all)."""
        return [n for n in self.names if n.startswith(under) and self.is_image(n)]

    def read(self, name: str) -> bytes:
        """The bytes of a listed file (so a name in somebody's list never leads outside); OSError if not to be had."""
        if name not in self._known:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self._files.read(name)

    def size(self, name: str) -> int:
        """The bytes of a file; -1 where there is none (a link that leads nowhere)."""
        return self._files.size(name) if name in self._known else -1

    def is_lost(self, name: str) -> bool:
        """Whether a listed file is a link that leads nowhere, or one in an archive, which is not followed."""
        return self._files.is_lost(name)

    def text(self, name: str) -> str:
        try:
            return self.read(name).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{shown(self.source / name)} cannot be read: {reason(error)}") from error

    def find(self, *names: str) -> str | None:
        """The prefix ('' or 'a/b/') nearest the top with a file or a folder of images of one of ``names``."""
        prefixes = ["", *(f"{folder}/" for folder in self.folders)]
        for prefix in sorted(prefixes, key=lambda p: (p.count("/"), p)):
            if any(f"{prefix}{name}" in self._entries for name in names):
                return prefix
        return None

    @cached_property
    def _entries(self) -> set[str]:
        """All files, and all folders with images below (ILSVRC also has a train/ of annotations)."""
        return set(self.names) | _with_those_above({posixpath.dirname(n) for n in self.images("")})


def _with_those_above(folders: set[str]) -> set[str]:
    """Folders and all that they lie in, but for the top."""
    every = {str(above) for folder in folders for above in PurePosixPath(folder, "x").parents}
    return every - {"."}


def _of_the_system(path: str) -> str | None:
    """The path down to the first name of the system in it; None if there is none."""
    parts = path.split("/")
    at = next((i for i, part in enumerate(parts) if part.startswith(".") or part.casefold() in SYSTEM), None)
    return None if at is None else "/".join(parts[: at + 1])


def _kind_of_system(path: str) -> str:
    name = posixpath.basename(path)
    return "._*" if name.startswith("._") else name


class _Folder:
    """The files of a folder on the disk; of the system's folders only the name."""

    def __init__(self, root: Path):
        self.root, self.names, self.folders = root, [], []
        self._list(str(root), len(os.path.join(root, "")), frozenset())

    def _list(self, folder: str, below: int, above: frozenset[tuple[int, int]]) -> None:
        """Everything below ``folder``, through links too (train/ is often one to another disk), but not in circles."""
        try:
            status = os.stat(folder)
            here = (status.st_dev, status.st_ino)
            if here in above:
                log.warning("%s is left out: it is a link to a folder that it lies in", shown(folder))
                return
            with os.scandir(folder) as entries:
                entries = list(entries)
        except OSError as error:
            raise UserError(f"{shown(folder)} cannot be read: {reason(error)}") from error
        if folder != str(self.root):
            self.folders.append(folder[below:])
        for entry in entries:
            if not _is_folder(entry) or _of_the_system(entry.name):  # a folder of the system may be shut
                self.names.append(entry.path[below:])
            else:
                self._list(entry.path, below, above | {here})

    def head(self, name: str) -> bytes:
        try:
            return _read_file(self.root / name, 32)
        except OSError:
            return b""

    def read(self, name: str) -> bytes:
        return _read_file(self.root / name)

    def size(self, name: str) -> int:
        try:
            return os.stat(self.root / name).st_size
        except OSError:
            return -1

    def is_lost(self, name: str) -> bool:
        return not os.path.exists(self.root / name)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _read_file(path: Path, most: int = -1) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for ever otherwise
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("a pipe, folder or device, not a file")
        if most < 0:
            _check_bytes(status.st_size)
        return file.read(most)


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise OSError(f"{size:,} bytes, one image may have {MAX_BYTES:,}")


def reason(error: Exception) -> str:
    """What went wrong, without the path that OSErrors repeat, in one line."""
    return shown(getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__)


def _open_archive(path: Path) -> "_Zip | _Tar":
    """A zip or tar file, if every entry's name is one of a file below it and none needs a password."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise zipfile.BadZipFile
        with open(path, "rb") as file:
            is_zip = file.read(2) == b"PK"
        return _Zip(path) if is_zip else _Tar(path)
    except (*_ZIP_ERRORS, *_TAR_ERRORS) as error:
        raise UserError(
            f"dataset.source={shown(path)} is neither a folder nor a zip or tar file, or the file is cut off: "
            "get it again (another kind of archive: unpack it and give the folder)"
        ) from error
    except OSError as error:
        raise UserError(f"dataset.source={shown(path)} cannot be read: {reason(error)}") from error


def _entry_name(archive: Path, name: str) -> str:
    """The path of an entry below the archive, as a folder would list it."""
    if re.match(r"([A-Za-z]:)?[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise UserError(
            f"dataset.source={shown(archive)}: the entry {shown(name)} points outside it: an archive of images has "
            "names such as CLASS/IMAGE; make it again"
        )
    return posixpath.normpath(name)


class _Zip:
    """The files of a zip file."""

    def __init__(self, path: Path):
        self.archive, self.entries, self.folders = zipfile.ZipFile(path), {}, []
        entries = self.archive.infolist()
        slashes = any("/" in entry.filename for entry in entries)
        try:
            for entry in entries:
                # CLASS\IMAGE where some program of Windows wrote it; elsewhere a backslash is a character of a name.
                of_windows = entry.create_system == 0 or not slashes
                name = entry.filename.replace("\\", "/") if of_windows else entry.filename
                folder, name = name.endswith("/"), _entry_name(path, name)
                if entry.flag_bits & 1:
                    raise UserError(
                        f"dataset.source={shown(path)}: the entry {shown(entry.filename)} is encrypted: unzip it with "
                        "its password and give the folder"
                    )
                if folder:
                    self.folders.append(name)
                else:
                    self.entries[name] = entry  # a name that is there twice is the last of them
        except UserError:
            self.archive.close()
            raise
        _warn_of_links(path, [name for name, entry in self.entries.items() if self._is_link(entry)])

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
        _check_bytes(entry.file_size)
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
    """The files of a tar file; a compressed one is unpacked into a temporary file, to be read in any order."""

    def __init__(self, path: Path):
        self.file, self.entries, self.folders, links = _uncompressed(path), {}, [], []
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
                    links.append(name)
                archive.members = []  # they would stay, a kilobyte each
            if self._bytes(archive.offset, 512) != bytes(512):
                raise tarfile.ReadError("no end")  # tarfile takes a damaged header, and a lost rest, for the end
        _warn_of_links(path, links)

    @property
    def names(self) -> Iterable[str]:
        return self.entries

    def _bytes(self, offset: int, size: int) -> bytes:
        return os.pread(self.file.fileno(), size, offset)  # moves nothing: the readers are several threads

    def head(self, name: str) -> bytes:
        offset, size = self.entries[name]
        return b"" if offset < 0 else self._bytes(offset, min(size, 32))

    def read(self, name: str) -> bytes:
        offset, size = self.entries[name]
        if offset < 0:
            raise OSError("a symbolic link or no file in a tar file; archive what it points to")
        _check_bytes(size)
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
            f"dataset.source={shown(path)}: {tempfile.gettempdir()} has no room to unpack it: make room, set TMPDIR, "
            "or unpack it yourself and give the folder"
        ) from error
    return out


def _warn_of_links(archive: Path, links: list[str]) -> None:
    """Of links that no name says to be images (those are errors when they are read): a class may be one."""
    if links := [name for name in links if not name.lower().endswith(IMAGES)]:
        log.warning(
            "%s: the symbolic link %s%s is left out: archive what it points to",
            shown(archive),
            shown(links[0]),
            and_more(links),
        )
