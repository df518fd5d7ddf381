"""Checkpoints, from which training resumes after a crash.

The folder of an unfinished run holds ``checkpoint.safetensors`` and its predecessor, each with its
own SHA-256; training resumes from the newest intact one. ``loop.train`` decides how often
checkpoints are written.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from transferability.errors import UserError
from transferability.files import digest_of, plain, replacing, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
CHECKPOINTS = ("checkpoint.safetensors", "checkpoint-previous.safetensors")  # the newest first
PROGRESS = "progress.json"  # for monitoring, see progress.py


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run: tensors by name, next step, metrics so far and seconds spent."""

    tensors: "dict[str, Tensor]"
    step: int
    metrics: list[dict[str, Any]]
    seconds: float


def save(folder: Path, run_id: str, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; keep its predecessor in case the new file is damaged on disk."""
    newest, previous = (folder / name for name in CHECKPOINTS)
    tensors = plain(checkpoint.tensors)
    header = {
        "run": run_id,
        "step": str(checkpoint.step),
        "metrics": json.dumps(checkpoint.metrics),
        "seconds": repr(checkpoint.seconds),
    }
    header["sha256"] = digest_of(tensors, json.dumps(header, sort_keys=True))
    with replacing(newest) as temporary:
        save_tensors(tensors, temporary, header)
        if newest.exists():
            os.replace(newest, previous)


def load(folder: Path, run_id: str) -> Checkpoint | None:
    """Load the newest intact checkpoint; None if there is none.

    Raises:
        UserError: the checkpoint belongs to another run.
    """
    for name in CHECKPOINTS:
        path = folder / name
        if not path.exists():
            continue
        try:
            header, tensors = _open(path)
        except ValueError as error:
            log.warning("%s is damaged (%s): resuming from an earlier state", path, error)
            continue
        if header["run"] != run_id:
            raise UserError(
                f"{path} belongs to {header['run']}: delete it to train this run from the start"
            )
        return Checkpoint(
            tensors, int(header["step"]), json.loads(header["metrics"]), float(header["seconds"])
        )
    return None


def saved_step(folder: Path) -> int:
    """The step of the newest readable checkpoint, not checked for damage; 0 without one."""
    for name in CHECKPOINTS:
        try:
            # the framework that reads a header without importing torch
            with safetensors.safe_open(folder / name, framework="np") as file:
                return int(file.metadata()["step"])
        except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
            continue  # absent or damaged
    return 0


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint, intact or not."""
    return any((folder / name).exists() for name in CHECKPOINTS)


def delete(folder: Path) -> None:
    """Remove the files that a finished run does not need, where possible."""
    for name in (*CHECKPOINTS, PROGRESS):
        with suppress(OSError):
            (folder / name).unlink()


def corrupt(folder: Path) -> Iterator[str]:
    """Yield a line for each damaged checkpoint."""
    for name in CHECKPOINTS:
        try:
            _open(folder / name)
        except FileNotFoundError:
            continue
        except ValueError as error:
            yield f"{folder / name} is damaged ({error}): training resumes from an earlier state"


def _open(path: Path) -> "tuple[dict[str, str], dict[str, Tensor]]":
    """Read the header and tensors of a checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # ``file`` is not a dict
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    if header.pop("sha256", None) != digest_of(tensors, json.dumps(header, sort_keys=True)):
        raise ValueError("its SHA-256 differs")
    return header, tensors
