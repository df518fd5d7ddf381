"""Trackers, in which each network is a separate run with its parameters and evaluations.

Trackers are called when a network begins or resumes, after each evaluation, and when it ends. No
result depends on them. They are called on a separate thread, so that training does not wait for a
server.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from transferability.errors import UserError, reason
from transferability.runs.trackers.csv import Csv
from transferability.runs.trackers.mlflow import Mlflow
from transferability.runs.trackers.tensorboard import Tensorboard
from transferability.runs.trackers.wandb import Wandb
from transferability.study.spec import RunSpec
from transferability.study.trackers import TrackersConfig

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """The interface of a tracker. Its methods may raise any exception of its library."""

    def begin(self, spec: RunSpec, parameters: dict[str, Any], step: int) -> int:
        """Begin a network, or resume one at step ``step``.

        Returns:
            The step of the last evaluation that the tracker already has of this network, or 0.
        """

    def log(self, spec: RunSpec, evaluations: list[dict[str, Any]]) -> None:
        """Log new evaluations: step, lr, train_loss, val_loss, val_top1."""

    def end(self, spec: RunSpec, state: str) -> None:
        """End a network as finished, failed or stopped; in the last two cases it may be resumed."""


KINDS: dict[str, Callable[[Any], Tracker]] = {
    "csv": Csv,
    "tensorboard": Tensorboard,
    "mlflow": Mlflow,
    "wandb": Wandb,
}
LIBRARIES = {"mlflow": "mlflow-skinny"}  # packages to install, if not named as the tracker


class Trackers:
    """The trackers of a command."""

    def __init__(self, config: TrackersConfig):
        self._asked = config.asked
        self._trackers: dict[str, Tracker] = {}
        # tracker -> run -> the step of the last evaluation that the tracker had at the start
        self._known: dict[str, dict[str, int]] = {name: {} for name in self._asked}
        self._told: dict[str, int] = {}  # run -> the number of evaluations sent to the thread
        self._thread = ThreadPoolExecutor(1, "trackers")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open the trackers; at the end of the block, wait until all calls are done.

        Raises:
            UserError: a library is not installed, or a tracker cannot be opened.
        """
        while self._asked:  # only the first time
            name, settings = self._asked.popitem()
            self._trackers[name] = _opened(name, settings)
        try:
            yield
        finally:
            if self._trackers:  # else no thread was started, and memory for one may be lacking
                self._thread.submit(int).result()

    @contextmanager
    def following(self, specs: Sequence[RunSpec], step: Callable[[RunSpec], int]) -> Iterator[None]:
        """Begin these networks at their ``step``; after the block, stop those still running."""
        followed = specs if self._trackers else ()
        self._told = {spec.run_id: 0 for spec in followed}
        for spec in followed:
            self._each(self._begin, spec, parameters(spec), step(spec))
        try:
            yield
        finally:
            for spec in followed:
                self.end(spec, "stopped")

    def log(self, spec: RunSpec, metrics: list[dict[str, Any]]) -> None:
        """Send new evaluations of a network; ``metrics`` has all evaluations so far."""
        told = self._told.get(spec.run_id)
        if told is None:  # no tracker follows it, or it has ended
            return
        if new := metrics[told:]:
            self._told[spec.run_id] = len(metrics)
            self._each(self._log, spec, new)

    def end(self, spec: RunSpec, state: str) -> None:
        """End a network as finished, failed or stopped; only the first call has an effect."""
        if self._told.pop(spec.run_id, None) is not None:
            self._each(self._end, spec, state)

    def _begin(self, name: str, spec: RunSpec, own: dict[str, Any], step: int) -> None:
        self._known[name][spec.run_id] = self._trackers[name].begin(spec, own, step)

    def _log(self, name: str, spec: RunSpec, evaluations: list[dict[str, Any]]) -> None:
        known = self._known[name][spec.run_id]
        if new := [one for one in evaluations if one["step"] > known]:
            self._trackers[name].log(spec, new)

    def _end(self, name: str, spec: RunSpec, state: str) -> None:
        self._trackers[name].end(spec, state)

    def _each(self, call: Callable[..., None], *args: Any) -> None:
        """Submit ``call(name, *args)`` to the thread for every tracker."""
        for name in list(self._trackers):
            self._thread.submit(self._guarded, call, name, *args)

    def _guarded(self, call: Callable[..., None], name: str, *args: Any) -> None:
        if name not in self._trackers:
            return
        try:
            call(name, *args)
        except Exception as error:  # of any kind: it must not stop training
            del self._trackers[name]
            log.warning(
                "tracker=%s failed (%s): training continues without it", name, reason(error)
            )


def _opened(name: str, settings: Any) -> Tracker:
    try:
        return KINDS[name](settings)
    except ImportError as error:
        raise UserError(
            f"tracker={name} needs pip install {LIBRARIES.get(name, name)} ({reason(error)})"
        ) from error
    except Exception as error:  # libraries raise their own kinds
        raise UserError(f"tracker={name} cannot be used: {reason(error)}") from error


def parameters(spec: RunSpec) -> dict[str, str | int | float]:
    """The parameters of a network that trackers store."""
    cell, recipe = spec.cell, spec.recipe
    return {
        "identity": spec.id,
        "cell": str(cell),
        "treatment": cell.treatment,
        "n": cell.n,
        "copied": cell.copied,
        "frozen": cell.frozen,
        "source": spec.source.id if spec.source else "none",
        "split": spec.split,
        "target": cell.target,
        "seed": spec.seed,
        "images_per_class": spec.images_per_class or "all",
        "dataset": spec.dataset.name,
        "network": spec.network.name,
        "recipe": recipe.name,
        "optimizer": recipe.optimizer,
        "learning_rate": recipe.lr,
        "batch_size": recipe.batch_size,
        "steps": recipe.steps,
    }
