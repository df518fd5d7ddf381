"""The run store: one folder per run, safe against crashes and concurrent processes.

A run folder holds ``spec.json``. During training, the folder also holds
``checkpoint.safetensors``, its predecessor ``checkpoint-previous.safetensors`` and, for one of the
networks that train together, ``progress.json``. A finished run has ``weights.safetensors``,
``predictions.safetensors`` (the predicted label of each validation and test image; missing in older
runs), ``metrics.jsonl``, ``provenance.json`` and, written last, ``DONE`` with the size and SHA-256
of each file. ``FAILED`` says why the last try ended. Every file is written atomically: to a
temporary file, fsync, rename. The process that trains the run holds a system lock (``flock``, on
Windows ``LockFileEx``) on ``.lock``, which the system releases when that process dies.
"""

import json
import logging
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from transferability.errors import UserError
from transferability.files import (
    load_tensors,
    make_folder,
    remove_leftovers,
    replacing,
    save_tensors,
    write_atomic,
)
from transferability.fingerprint import cosmetic_fields, differences
from transferability.runs.record import (
    as_json,
    check_sizes,
    checked_file,
    read_record,
    write_record,
)
from transferability.study.spec import DatasetId, RunSpec
from transferability.training import checkpoint as checkpoints
from transferability.training.checkpoint import CHECKPOINTS, PROGRESS, Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
_RUN = ("spec.json", "DONE", *CHECKPOINTS)  # files that identify a run folder


class Store:
    """The runs below one folder."""

    def __init__(self, root: str | Path):
        self.root = make_folder(Path(root), "store")

    def folder(self, spec: RunSpec) -> Path:
        return self.root / spec.run_id

    def is_done(self, spec: RunSpec) -> bool:
        """Whether the run is finished: ``DONE`` exists, and all files have the recorded sizes.

        Raises:
            UserError: the folder belongs to another run, the record cannot be read, or the size of
                a file differs.
        """
        folder = self.folder(spec)
        record = read_record(folder)
        if record is None:
            return False
        self._check(spec)
        check_sizes(folder, record)
        return True

    def lock(self, spec: RunSpec) -> FileLock | None:
        """Lock the run for this process, creating its folder; None if another process holds it.

        Removes the temporary files and progress note of a killed process, and the mark of an
        earlier failure.

        Raises:
            UserError: the folder cannot be locked, or belongs to another run.
        """
        folder = self.folder(spec)
        try:
            folder.mkdir(exist_ok=True)
            lock = FileLock(folder / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            raise UserError(f"{folder} cannot be locked for training: {error}") from error
        try:
            remove_leftovers(folder)
            if (folder / "spec.json").exists():
                self._check(spec)
            else:
                write_atomic(folder / "spec.json", as_json(spec.to_dict()))
            for name in ("FAILED", PROGRESS):
                (folder / name).unlink(missing_ok=True)
        except BaseException:
            lock.release()
            raise
        return lock

    def state(self, spec: RunSpec) -> str:
        """done | training (in a process now) | failed | partial (can be resumed) | missing."""
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
            except OSError:  # another user's run: its lock cannot be checked
                pass
        if (folder / "FAILED").exists():
            return "failed"
        return "partial" if checkpoints.exists(folder) else "missing"

    def specs(self) -> list[RunSpec]:
        """The specifications of all runs, by folder name; log and skip invalid folders."""
        found = []
        for path in sorted(self.root.glob("*/spec.json")):
            try:
                found.append(self.spec_in(path))
            except UserError as error:
                log.warning("left out: %s", error)
        return found

    def runs_of_other_packs(self, images: DatasetId) -> int:
        """The number of runs of a dataset with this name that was packed from other images or at
        another size.
        """
        others = (spec.dataset for spec in self.specs())
        return sum(other.name == images.name and other != images for other in others)

    def save_checkpoint(self, spec: RunSpec, checkpoint: Checkpoint) -> None:
        checkpoints.save(self.folder(spec), spec.run_id, checkpoint)

    def load_checkpoint(self, spec: RunSpec) -> Checkpoint | None:
        return checkpoints.load(self.folder(spec), spec.run_id)

    def step(self, spec: RunSpec) -> int:
        """Saved training steps: all for a finished run, else those of the checkpoint, or 0."""
        return (
            spec.recipe.steps if self.is_done(spec) else checkpoints.saved_step(self.folder(spec))
        )

    def finish(
        self,
        spec: RunSpec,
        weights: "dict[str, Tensor]",
        metrics: list[dict],
        provenance: dict[str, Any],
        predictions: "dict[str, Tensor]",
    ) -> None:
        """Write the results of a finished run, ``DONE`` last, then delete the checkpoints."""
        folder = self.folder(spec)
        for name, tensors in (("weights", weights), ("predictions", predictions)):
            with replacing(folder / f"{name}.safetensors") as temporary:
                save_tensors(tensors, temporary, {"run": spec.run_id})
        write_atomic(folder / "metrics.jsonl", "".join(json.dumps(m) + "\n" for m in metrics))
        write_atomic(folder / "provenance.json", as_json(provenance))
        write_record(folder)
        checkpoints.delete(folder)

    def fail(self, spec: RunSpec, why: dict[str, Any]) -> None:
        """Record why this try ended; keep checkpoints, from which a later try resumes."""
        write_atomic(self.folder(spec) / "FAILED", as_json({**why, "attempt": uuid.uuid4().hex}))

    def failure(self, spec: RunSpec) -> dict[str, Any] | None:
        """Why the last try failed; None if it did not."""
        try:
            return json.loads((self.folder(spec) / "FAILED").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def weights(self, spec: RunSpec) -> "dict[str, Tensor]":
        """The final weights of a finished run, checked against its record.

        Raises:
            UserError: the file has no record, cannot be read, or differs.
        """
        return load_tensors(checked_file(self.folder(spec), "weights.safetensors"))

    def predictions(self, spec: RunSpec) -> "dict[str, Tensor] | None":
        """The predictions of a finished run, see :func:`loop.predict`; None if an older version
        finished the run without them.
        """
        name = "predictions.safetensors"
        if name not in (read_record(self.folder(spec)) or {}):
            return None
        return load_tensors(checked_file(self.folder(spec), name))

    def metrics(self, spec: RunSpec) -> list[dict[str, Any]]:
        """The evaluations of a finished run: step, lr, train_loss, val_loss, val_top1."""
        text = checked_file(self.folder(spec), "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def provenance(self, spec: RunSpec) -> dict[str, Any]:
        path = checked_file(self.folder(spec), "provenance.json")
        return json.loads(path.read_text(encoding="utf-8"))

    def verify(self) -> tuple[int, list[str]]:
        """Read every file of every run; return the number of runs and a line per damaged file."""
        damaged = []
        folders = sorted({path.parent for name in _RUN for path in self.root.glob(f"*/{name}")})
        for folder in folders:
            try:
                if (folder / "spec.json").exists():
                    self.spec_in(folder / "spec.json")
                for name in read_record(folder) or {}:
                    checked_file(folder, name)
            except UserError as error:
                damaged.append(str(error))
            damaged += checkpoints.corrupt(folder)
        return len(folders), damaged

    def spec_in(self, path: Path) -> RunSpec:
        """The specification in a run's folder.

        Raises:
            UserError: the file cannot be read or was changed, or the folder is a copy or was
                renamed.
        """
        try:
            spec = RunSpec.from_dict(json.loads(path.read_text(encoding="utf-8")))
            name = spec.run_id  # raises if values are impossible
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): move its folder out of the store"
            ) from error
        if name == path.parent.name:
            return spec
        if self.folder(spec).exists():
            raise UserError(f"{path.parent} is a copy of {name}: move it out of the store")
        # runs are found by folder name: in a renamed folder, the run would be trained again
        raise UserError(
            f"{path} is of the run {name}: if the folder was renamed, give it that name again; if "
            "the file was changed, restore it or move the folder away"
        )

    def _check(self, spec: RunSpec) -> None:
        """Compare the folder's spec.json with ``spec``, field by field.

        Raises:
            UserError: the file cannot be read, or a field other than a label differs.
        """
        path = self.folder(spec) / "spec.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError("it is no specification")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): move the folder away to train the run again"
            ) from None
        if differing := differences(spec.to_dict(), found, cosmetic_fields(spec)):
            raise UserError(
                f"{path.parent} belongs to another run, which differs in "
                f"{', '.join(differing[:4])}: move the folder away"
            )
