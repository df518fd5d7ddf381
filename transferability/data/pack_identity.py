"""The identity of a pack: its settings, and the files of its source."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import cv2

from transferability.data.config import DatasetConfig
from transferability.data.description import FORMAT, same_source, settings_of
from transferability.data.packed import PackedDataset
from transferability.data.readers import read_dataset
from transferability.data.readers.base import RawDataset
from transferability.errors import UserError


def pack_identity(source: RawDataset, config: DatasetConfig) -> dict[str, Any]:
    """What two packs must have in common to have the same bytes; the first part of the description
    of a dataset.
    """
    what = {
        "format": FORMAT,
        "name": config.name,
        "settings": settings_of(config),
        "source": config.source,
        "source_files": _source_files(source),
        "opencv": cv2.__version__,
    }
    return json.loads(json.dumps(what))


def read_if_same(path: Path, what: dict[str, Any]) -> dict[str, Any] | None:
    """The content of the JSON file ``path`` if it is of the pack ``what``; else None."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        same = all(found[key] == value for key, value in what.items() if key != "source")
        return found if same and same_source(found, what) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_source_unchanged(config: DatasetConfig, dataset: PackedDataset) -> None:
    """Check that the source, if it still exists, is the one that was packed. Training does not need
    the source.

    Raises:
        UserError: the source differs.
    """
    # None: packed before these were recorded, or not made of files
    recorded = dataset.meta.get("source_files")
    if (
        not isinstance(recorded, dict)
        or not config.source
        or not os.path.exists(os.path.expanduser(config.source))
    ):
        return
    try:
        found = _source_files(read_dataset(config)) or {}
        if found == recorded:
            return
        now, then = (
            f"{files.get('images')} images of {files.get('bytes')} bytes"
            for files in (found, recorded)
        )
        other = f"{then}, of other names or sizes, or in other subsets (see dataset.parts)"
        differ = f"{then} then, {now} now" if now != then else other
    except UserError as error:
        differ = str(error)
    raise UserError(
        f"dataset.source={config.source} is not what was packed into "
        f"{dataset.folder} ({differ}): delete that folder to pack again, or set "
        "dataset.name to pack this beside it; training uses what was packed"
    )


def _source_files(source: RawDataset) -> dict | None:
    """Number, bytes and digest of the files of a source, from their names and sizes, to detect
    changes without reading them. None if the source is not made of files.
    """
    digest, total, items = hashlib.sha256(), 0, source.items
    for item in items:
        if not item.size:
            return None
        size = item.size()
        total += max(size, 0)
        digest.update(repr((source.classes[item.label].name, item.name, size)).encode())
    digest.update(" ".join(str(len(items)) for items in [*source.subsets.values()][:-1]).encode())
    return {"images": len(items), "bytes": total, "digest": digest.hexdigest()[:16]}
