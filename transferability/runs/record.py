"""The record of a finished run's files: ``DONE``, with the size and SHA-256 of each file."""

import hashlib
import json
from pathlib import Path
from typing import Any

from transferability.errors import UserError
from transferability.files import write_atomic

RESULTS = (
    *("spec.json", "weights.safetensors", "predictions.safetensors"),
    *("metrics.jsonl", "provenance.json"),
)
Record = dict[str, dict[str, Any]]  # file name -> bytes, sha256


def read_record(folder: Path) -> Record | None:
    """Read the record in ``DONE``; None if there is no such file.

    Raises:
        UserError: the record cannot be read.
    """
    path = folder / "DONE"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not _is_record(record):
            raise ValueError("it does not say the size and SHA-256 of the files")
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {_way_back(folder)}") from error


def _is_record(found: Any) -> bool:
    """Whether parsed JSON has the form of a record, and lists weights."""
    return (
        isinstance(found, dict)
        and "weights.safetensors" in found
        and all(
            isinstance(known, dict) and known.keys() == {"bytes", "sha256"}
            for known in found.values()
        )
    )


def write_record(folder: Path) -> None:
    write_atomic(folder / "DONE", as_json({name: _measure(folder / name) for name in RESULTS}))


def check_sizes(folder: Path, record: Record) -> None:
    """Compare the sizes of the files with their record.

    Raises:
        UserError: the size of a file differs.
    """
    for name, known in record.items():
        size = (folder / name).stat().st_size if (folder / name).exists() else 0
        if size != known["bytes"]:
            raise UserError(
                f"{folder / name} has {size} of {known['bytes']} bytes: {_way_back(folder)}"
            )


def checked_file(folder: Path, name: str) -> Path:
    """The path of a result, after its content is compared with the record.

    Raises:
        UserError: the file has no record, cannot be read, or differs.
    """
    known = (read_record(folder) or {}).get(name)
    if known is None:
        raise UserError(f"{folder} has no record of {name}: {_way_back(folder)}")
    try:
        found = _measure(folder / name)
    except OSError as error:
        raise UserError(
            f"{folder / name} cannot be read ({error.strerror}): {_way_back(folder)}"
        ) from error
    if found != known:
        raise UserError(
            f"{folder / name} is not as it was written (its SHA-256 differs): {_way_back(folder)}"
        )
    return folder / name


def _way_back(folder: Path) -> str:
    return (
        f"delete {folder / 'DONE'} and run the command again; the run is then trained again, to "
        "the same numbers"
    )


def _measure(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def as_json(values: Any) -> str:
    return json.dumps(values, indent=1, sort_keys=True) + "\n"
