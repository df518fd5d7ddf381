"""Find images by their names in a table: a path or the end of one, with or without extension."""

import posixpath
import unicodedata
from collections.abc import Callable
from functools import cached_property

from transferability.data.readers.file_tree import IMAGES
from transferability.errors import UserError, and_more


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)  # macOS decomposes accented characters


class NamedFiles:
    """Images by name; case is ignored only if no image has the exact name."""

    def __init__(self, images: list[str]):
        self.images, self.spelled = images, _Index(images, _composed)

    @cached_property
    def any_case(self) -> "_Index":
        return _Index(self.images, lambda text: _composed(text).casefold())

    def find(self, cell: str, folder: str = "") -> str | None:
        """The image that ``cell`` names in a table in ``folder``; None if there is none.

        Raises:
            UserError: there are several.
        """
        return self.spelled.find(cell, folder) or self.any_case.find(cell, folder)


class _Index:
    def __init__(self, images: list[str], key: Callable[[str], str]):
        self.key = key
        self.by_name: dict[str, list[str]] = {}
        self.paths = {image: f"/{key(image)}" for image in images}
        self.folders: set[str] = set()
        for image, path in self.paths.items():
            *above, base = path.split("/")
            self.folders.update(above)
            for name in {base, posixpath.splitext(base)[0]}:
                self.by_name.setdefault(name, []).append(image)

    def find(self, cell: str, folder: str) -> str | None:
        path = posixpath.normpath(self.key(cell).replace("\\", "/")).lstrip("/")
        parts = path.split("/")
        if parts[-1] not in self.by_name and parts[-1].lower().endswith(IMAGES):
            parts[-1] = posixpath.splitext(parts[-1])[0]  # images may have been converted
        found = self.by_name.get(parts[-1], [])
        if len(parts) > 1 and parts[-2] in self.folders:  # otherwise the folder was renamed
            found = [n for n in found if f"/{parts[-2]}/" in self.paths[n]]
        for start in range(len(parts)):  # the longest end of the path that fits
            end = "/" + "/".join(parts[start:])
            ending = [n for n in found if end in (e[-len(end) :] for e in self._ways(n))]
            here = [n for n in ending if folder and n.startswith(f"{folder}/")]
            if ending:
                found = here or ending
                break
        if len(found) > 1:
            near = posixpath.join("/", self.key(folder), path)
            found = [n for n in found if near in self._ways(n)] or found
        if len(found) > 1:
            raise UserError(
                f"{cell} is the name of {found[0]}{and_more(found)}: leave the "
                "others out, dataset.leave_out=[FOLDER], or write their paths into the table"
            )
        return found[0] if found else None

    def _ways(self, image: str) -> tuple[str, str]:
        """The path of an image with and without extension."""
        return self.paths[image], posixpath.splitext(self.paths[image])[0]
