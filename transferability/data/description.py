"""The description of a packed dataset in ``dataset.json``, and how two packs are compared."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferability.data.config import DatasetConfig
from transferability.errors import UserError
from transferability.fingerprint import to_dict

FORMAT = 1
# settings that do not change the pixels of an image
LOCATION_FIELDS = {
    *("folder", "source", "parts", "class_level", "leave_out", "val_labels", "on_error"),
}
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
    """One class of a dataset; its label is its position in the list of classes."""

    name: str
    wnid: str | None = None
    group: str | None = None  # natural | man-made, where known


def settings_of(config: DatasetConfig) -> dict[str, Any]:
    """The settings that the images of a pack depend on."""
    left_out = LOCATION_FIELDS | ({"jpeg_quality"} if config.encoding == "raw" else set())
    return {k: v for k, v in to_dict(config).items() if k not in left_out}


def same_source(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two descriptions name the same folder or file, however it is spelled; one without a
    source matches any.
    """
    names = [found for what in (first, second) if (found := what.get("source"))]
    return len({os.path.realpath(os.path.expanduser(str(name))) for name in names}) <= 1


def encoding_of(settings: dict[str, Any], folder: Path) -> str | None:
    """The encoding in the settings of a pack, such as "jpeg q95 4:4:4"; None for raw pixels.

    Raises:
        UserError: the encoding is unknown, or its quality is not a whole number.
    """
    kind, quality = settings.get("encoding", "raw"), settings.get("jpeg_quality")
    if kind == "raw":
        return None
    if kind != "jpeg" or type(quality) is not int:
        raise damaged(folder, f"dataset.json is damaged (encoding {kind}, jpeg_quality {quality})")
    return f"jpeg q{quality} 4:4:4"


def read_description(folder: Path) -> tuple[dict[str, Any], list[ClassInfo]]:
    """Read and check dataset.json; also returns its classes.

    Raises:
        UserError: dataset.json is damaged, or of another format.
    """
    try:
        meta = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        if not isinstance(meta, dict):
            raise ValueError("not a description of a dataset")
        if (found := meta.get("format")) != FORMAT:
            raise damaged(folder, f"dataset.json has format {found!r}, this program reads {FORMAT}")
        if missing := [key for key in _KEYS if key not in meta]:
            raise damaged(folder, f"dataset.json lacks {', '.join(missing)}")
        return meta, _checked(meta)
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(folder, f"dataset.json is damaged ({error})") from error


def _checked(meta: dict[str, Any]) -> list[ClassInfo]:
    """The classes of a description with all keys, whose values are checked.

    Raises:
        ValueError: a value is invalid.
    """
    for key, kind in _KEYS.items():
        if type(meta[key]) is not kind:
            raise ValueError(f"{key} is not a {kind.__name__}")
    if min(meta["n_train"], meta["n_val"], meta["image_size"]) < 1:
        raise ValueError("n_train, n_val and image_size are numbers above 0")
    if type(meta.get("n_test", 1)) is not int or meta.get("n_test", 1) < 1:
        raise ValueError("n_test is a number above 0, or absent")
    if "/" in meta["name"] or "\0" in meta["name"]:  # the names of run folders begin with it
        raise ValueError(f"name {meta['name']} is not a valid folder name")
    try:
        classes = [ClassInfo(**values) for values in meta["classes"]]
    except TypeError as error:
        raise ValueError(f"classes: {error}") from error
    if not all(isinstance(c.name, str) for c in classes):
        raise ValueError("classes: a name is not text")
    return classes


def damaged(folder: Path, what: str) -> UserError:
    return UserError(f"{folder}: {what}; delete the folder and pack again")
