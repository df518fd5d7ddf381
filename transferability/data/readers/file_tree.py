"""A folder, zip file or tar file as a tree of files with one interface."""

import errno
import logging
import os
import posixpath
import re
import stat
from collections import Counter
from functools import cached_property
from pathlib import Path, PurePosixPath

from transferability.data.readers.archives import check_bytes, open_archive
from transferability.errors import UserError, and_more, reason, shown

log = logging.getLogger(__name__)

# Files and folders that operating systems, network disks and editors create, in lower case.
# Names that begin with a dot count, too.
SYSTEM = {
    *("__macosx", "__pycache__", "desktop.ini", "ehthumbs.db", "icon\r", "lost+found"),
    *("picasa.ini", "thumbs.db"),
    *("network trash folder", "system volume information", "temporary items"),
    *("@eadir", "@recently-snapshot", "@recycle", "@tmp", "#recycle", "#snapshot"),
    *("$recycle.bin", "recycler", "found.000"),
}
# Extensions of images. Files with other extensions are recognized by their first bytes, except
# TEXTS, of which there may be millions.
IMAGES = (
    # torchvision's IMG_EXTENSIONS
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
    *(".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpg_large"),
)
# Extensions of raw camera files: TIFF or other files of raw data that begin with a thumbnail.
RAWS = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef"),
    *(".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf"),
    *(".srw", ".x3f"),
)
TEXTS = (".csv", ".json", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml")
SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*|BM.{4}\0{4}|P[1-6]\s+[#\d]"
    rb"|.{4}ftyp(?:avi[fs]|hei[cfmsx]|hev[cx]|mif1|msf1)|\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


class FileTree:
    """The files of a folder, zip file or tar file.

    Files of the operating system and of editors (SYSTEM) are left out, and counted in one log line.

    Attributes:
        names: paths of all files relative to the source, sorted.
        folders: paths of all folders below the top, including empty ones, sorted.
    """

    def __init__(self, source: str):
        try:
            self.source = Path(source).expanduser()
        except RuntimeError as error:
            raise UserError(f"dataset.source={source}: {error}") from error
        if not os.path.exists(self.source):
            raise UserError(f"dataset.source={source} does not exist")
        self._files = _Folder(self.source) if self.source.is_dir() else open_archive(self.source)
        if links := [name for name in self._files.links if not name.lower().endswith(IMAGES)]:
            # Links named like images raise errors when they are read. Other links may be classes.
            log.warning(
                "%s: the symbolic link %s%s is left out: archive what it points to",
                shown(self.source),
                shown(links[0]),
                and_more(links),
            )
        folders = _with_those_above(
            {posixpath.dirname(n) for n in self._files.names} | set(self._files.folders)
        )
        system = {
            path: own for path in (*self._files.names, *folders) if (own := _of_the_system(path))
        }
        self.names = sorted(n for n in self._files.names if n not in system)
        self.folders = sorted(f for f in folders if f not in system)
        self._known, self._sniffed = set(self.names), dict[str, bool]()
        if owned := set(system.values()):
            kinds = Counter(_kind_of_system(name) for name in owned).most_common(5)
            listed = ", ".join(f"{count} {shown(kind)}" for kind, count in sorted(kinds))
            log.warning(
                "%s: %d files and folders made by the system or an editor are left out (%s%s)",
                shown(source),
                len(owned),
                listed,
                " ..." if sum(count for _, count in kinds) < len(owned) else "",
            )

    def is_image(self, name: str) -> bool:
        """Whether a listed file is an image by its extension or its first bytes."""
        lower = name.lower()
        if lower.endswith(IMAGES):
            return True
        if lower.endswith((*TEXTS, *RAWS)):
            return False
        if name not in self._sniffed:
            self._sniffed[name] = SIGNATURE.match(self._files.head(name)) is not None
        return self._sniffed[name]

    def images(self, under: str) -> list[str]:
        """Image files whose paths begin with ``under`` ('' for all)."""
        return [n for n in self.names if n.startswith(under) and self.is_image(n)]

    def read(self, name: str) -> bytes:
        """The bytes of a listed file; other paths are refused, so that no table leads outside the
        source.

        Raises:
            OSError: the file is not listed or cannot be read.
        """
        if name not in self._known:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self._files.read(name)

    def size(self, name: str) -> int:
        """The size of a listed file in bytes; -1 for other names and broken links."""
        return self._files.size(name) if name in self._known else -1

    def is_lost(self, name: str) -> bool:
        """Whether a listed file is a broken link, or a symbolic link in an archive, which is not
        followed.
        """
        return self._files.is_lost(name)

    def text(self, name: str) -> str:
        try:
            return self.read(name).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.source / name} cannot be read: {reason(error)}") from error

    def find(self, *names: str) -> str | None:
        """The prefix ('' or 'a/b/') nearest the top that contains a file, or a folder with images,
        of one of ``names``; None if there is none.
        """
        prefixes = ["", *(f"{folder}/" for folder in self.folders)]
        for prefix in sorted(prefixes, key=lambda p: (p.count("/"), p)):
            if any(f"{prefix}{name}" in self._entries for name in names):
                return prefix
        return None

    @cached_property
    def _entries(self) -> set[str]:
        """All files, and all folders that contain images at any depth. (ILSVRC also has a train/ of
        annotations.)
        """
        return set(self.names) | _with_those_above({posixpath.dirname(n) for n in self.images("")})


def require_images(tree: FileTree) -> None:
    """Check that the tree has images.

    Raises:
        UserError: there are none; the message describes the files found.
    """
    if any(map(tree.is_image, tree.names)):
        return
    packed = [name for name in tree.names if name.lower().endswith(ARCHIVES)]
    if packed:
        inside = "unpack them, or give one as dataset.source"
        how = inside if tree.source.is_dir() else "unpack all of it and give the folder"
        what = f"but archives: {packed[0]}{and_more(packed)}; {how}"
    else:
        what = f"but {count_by_ending(tree.names)}" if tree.names else "and no files"
    raise UserError(f"dataset.source={tree.source} has no images in it, {what}")


def count_by_ending(names: list[str]) -> str:
    """Describe the number of files and their most frequent extensions."""
    endings = Counter(f"*{posixpath.splitext(name)[1]}" for name in names).most_common(4)
    dots = ", ..." if sum(count for _, count in endings) < len(names) else ""
    return (
        f"{len(names)} other files "
        f"({', '.join(f'{count} {shown(ending)}' for ending, count in endings)}{dots})"
    )


def _with_those_above(folders: set[str]) -> set[str]:
    """The folders and all of their parents, without the top."""
    every = {str(above) for folder in folders for above in PurePosixPath(folder, "x").parents}
    return every - {"."}


def _of_the_system(path: str) -> str | None:
    """``path`` up to its first name that is in SYSTEM or begins with a dot; None without one."""
    parts = path.split("/")
    at = next(
        (i for i, part in enumerate(parts) if part.startswith(".") or part.casefold() in SYSTEM),
        None,
    )
    return None if at is None else "/".join(parts[: at + 1])


def _kind_of_system(path: str) -> str:
    name = posixpath.basename(path)
    return "._*" if name.startswith("._") else name


class _Folder:
    """The files of a folder on disk. Folders of the operating system are listed, but not read."""

    links: tuple[str, ...] = ()  # links are followed

    def __init__(self, root: Path):
        self.root, self.names, self.folders = root, list[str](), list[str]()
        self._list(str(root), len(os.path.join(root, "")), frozenset())

    def _list(self, folder: str, below: int, above: frozenset[tuple[int, int]]) -> None:
        """List everything below ``folder``, following links (train/ is often a link to another
        disk), but not in circles.
        """
        try:
            status = os.stat(folder)
            here = (status.st_dev, status.st_ino)
            if here in above:
                log.warning(
                    "%s is left out: it is a link to a folder that contains it", shown(folder)
                )
                return
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            raise UserError(f"{folder} cannot be read: {reason(error)}") from error
        if folder != str(self.root):
            self.folders.append(_portable(folder[below:]))
        for entry in entries:
            # a folder of the operating system may be unreadable
            if not _is_folder(entry) or _of_the_system(entry.name):
                self.names.append(_portable(entry.path[below:]))
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


def _portable(path: str) -> str:
    """``path`` with the separators of an archive, on Windows too."""
    return path.replace(os.sep, "/")


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _read_file(path: Path, most: int = -1) -> bytes:
    # otherwise opening a pipe would block forever, and Windows would open files as text
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, os.O_RDONLY | flags)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("a pipe, folder or device, not a file")
        if most < 0:
            check_bytes(status.st_size)
        return file.read(most)
