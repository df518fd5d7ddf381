"""The run store: a folder a run, safe against crashes and against two processes asking for the same run.

A run folder holds ``spec.json``, while it trains ``checkpoint.safetensors``, and when it is finished
``weights.safetensors``, ``metrics.jsonl``, ``provenance.json`` and, written last, ``DONE``. Every file is written
whole: to a temporary file, fsync, rename. ``.lock`` is held by the process that trains the run.
"""

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from filelock import FileLock, Timeout
from torch import Tensor

from transferability.errors import UserError
from transferability.spec import RunSpec


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands: tensors by name, the next step, the metrics so far and the seconds spent."""

    tensors: dict[str, Tensor]
    step: int
    metrics: list[dict[str, Any]]
    seconds: float


class Store:
    """The runs below one folder."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"store={root}: cannot be created: {error.strerror}") from error

    def folder(self, spec: RunSpec) -> Path:
        return self.root / spec.run_id

    def is_done(self, spec: RunSpec) -> bool:
        """Whether the run is finished; checks that its folder belongs to this very specification."""
        if not (self.folder(spec) / "DONE").exists():
            return False
        self._check(spec)
        return True

    def claim(self, spec: RunSpec) -> FileLock | None:
        """Lock the run for this process, creating its folder; None if another process holds it."""
        folder = self.folder(spec)
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        try:
            if (folder / "spec.json").exists():
                self._check(spec)
            else:
                write_atomic(folder / "spec.json", _json(spec.to_dict()))
        except BaseException:
            lock.release()
            raise
        return lock

    def state(self, spec: RunSpec) -> str:
        """done | training (by some process now) | half (can be resumed) | missing."""
        if self.is_done(spec):
            return "done"
        folder = self.folder(spec)
        if (folder / ".lock").exists():
            lock = FileLock(folder / ".lock")
            try:
                with lock.acquire(timeout=0):
                    pass
            except Timeout:
                return "training"
        return "half" if (folder / "checkpoint.safetensors").exists() else "missing"

    def specs(self) -> list[RunSpec]:
        """The specification of every run in the store, by folder name."""
        return [RunSpec.from_dict(json.loads(path.read_text())) for path in sorted(self.root.glob("*/spec.json"))]

    def save_checkpoint(self, spec: RunSpec, checkpoint: Checkpoint) -> None:
        header = {
            "run": spec.run_id,
            "step": str(checkpoint.step),
            "metrics": json.dumps(checkpoint.metrics),
            "seconds": repr(checkpoint.seconds),
        }
        with _replacing(self.folder(spec) / "checkpoint.safetensors") as temporary:
            safetensors.torch.save_file(_plain(checkpoint.tensors), temporary, metadata=header)

    def load_checkpoint(self, spec: RunSpec) -> Checkpoint | None:
        path = self.folder(spec) / "checkpoint.safetensors"
        if not path.exists():
            return None
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if header["run"] != spec.run_id:
            raise UserError(f"{path} belongs to {header['run']}: delete it to train this run from the start")
        return Checkpoint(tensors, int(header["step"]), json.loads(header["metrics"]), float(header["seconds"]))

    def step(self, spec: RunSpec) -> int:
        """Training steps that are safe: all of a finished run, those of the checkpoint, or 0."""
        if self.is_done(spec):
            return spec.recipe.steps
        path = self.folder(spec) / "checkpoint.safetensors"
        if not path.exists():
            return 0
        with safetensors.safe_open(path, framework="pt") as file:
            return int(file.metadata()["step"])

    def finish(
        self, spec: RunSpec, weights: dict[str, Tensor], metrics: list[dict], provenance: dict[str, Any]
    ) -> None:
        """Write the results of a finished run; the marker last, then drop the checkpoint."""
        folder = self.folder(spec)
        with _replacing(folder / "weights.safetensors") as temporary:
            safetensors.torch.save_file(_plain(weights), temporary, metadata={"run": spec.run_id})
        write_atomic(folder / "metrics.jsonl", "".join(json.dumps(m) + "\n" for m in metrics))
        write_atomic(folder / "provenance.json", _json(provenance))
        write_atomic(folder / "DONE", "")
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)

    def weights(self, spec: RunSpec) -> dict[str, Tensor]:
        """The final weights of a finished run."""
        return safetensors.torch.load_file(self.folder(spec) / "weights.safetensors")

    def metrics(self, spec: RunSpec) -> list[dict[str, Any]]:
        """The evaluations of a finished run: step, lr, train_loss, val_loss, val_top1."""
        return [json.loads(line) for line in (self.folder(spec) / "metrics.jsonl").read_text().splitlines()]

    def provenance(self, spec: RunSpec) -> dict[str, Any]:
        return json.loads((self.folder(spec) / "provenance.json").read_text())

    def _check(self, spec: RunSpec) -> None:
        """Compare the folder's spec.json with ``spec``, field by field."""
        path = self.folder(spec) / "spec.json"
        try:
            found = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{path} cannot be read ({error}): move the folder away to train the run again") from None
        if differing := _differences(json.loads(_json(spec.to_dict())), found):
            raise UserError(
                f"{path.parent} belongs to another run, it differs in {', '.join(differing[:4])}: move the folder away"
            )


_LABELS = ("dataset.name", "network.name", "recipe.name", "split")


def _differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """Paths of the fields in which two specifications differ, labels left out."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        out = []
        for key in sorted(wanted.keys() | found.keys()):
            path = f"{where}.{key}" if where else key
            out += _differences(wanted.get(key, "(absent)"), found.get(key, "(absent)"), path)
        return out
    is_label = where.removeprefix("source.") in _LABELS
    return [] if wanted == found or is_label else [f"{where} (wanted {wanted}, found {found})"]


def write_atomic(path: Path, text: str) -> None:
    """Write a whole text file or nothing."""
    with _replacing(path) as temporary:
        temporary.write_text(text)


@contextmanager
def _replacing(path: Path):
    """A temporary path that replaces ``path``, on disk, when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU in standard memory order, as safetensors stores them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, sort_keys=True) + "\n"
