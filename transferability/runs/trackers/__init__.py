"""Trackers: each network is a run of its own in them, with its parameters and its evaluations.

They hear of a network when it begins or resumes, after each evaluation, and when it ends. No result
depends on them. What they do is done on a thread of its own, so that training does not wait for a
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
    """What a tracker does. It may raise whatever its library raises."""

    def begin(self, spec: RunSpec, parameters: dict[str, Any], step: int) -> int:
        """Begin a network, or go on with one that has made ``step`` steps; returns the step of the
        last evaluation that the tracker has of it, 0 where it has none.
        """

    def log(self, spec: RunSpec, evaluations: list[dict[str, Any]]) -> None:
        """Evaluations that are new: step, lr, train_loss, val_loss, val_top1."""

    def end(self, spec: RunSpec, state: str) -> None:
        """It is finished, failed or stopped (and may go on some day)."""


KINDS: dict[str, Callable[[Any], Tracker]] = {
    "csv": Csv,
    "tensorboard": Tensorboard,
    "mlflow": Mlflow,
    "wandb": Wandb,
}
LIBRARIES = {"mlflow": "mlflow-skinny"}  # to install, where it is not the tracker's name


class Trackers:
    """The trackers of a command."""

    def __init__(self, config: TrackersConfig):
        self._asked = config.asked
        self._trackers: dict[str, Tracker] = {}
        # of each tracker, by run: the step of the last evaluation that it has
        self._known: dict[str, dict[str, int]] = {name: {} for name in self._asked}
        self._told: dict[str, int] = {}  # by run: how many evaluations were passed on
        self._thread = ThreadPoolExecutor(1, "trackers")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Training happens within the block; when it ends, all is told.

        Raises:
            UserError: a library is not there, or a tracker cannot begin.
        """
        while self._asked:  # the first time
            name, settings = self._asked.popitem()
            self._trackers[name] = _opened(name, settings)
        try:
            yield
        finally:
            if self._trackers:  # else no thread was started, for which there may be no memory now
                self._thread.submit(int).result()

    @contextmanager
    def following(self, specs: Sequence[RunSpec], step: Callable[[RunSpec], int]) -> Iterator[None]:
        """Within the block these networks train, from their ``step`` on; those that have not ended
        when it does are stopped.
        """
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
        """All evaluations of a network so far."""
        told = self._told.get(spec.run_id)
        if told is None:  # it has failed
            return
        if new := metrics[told:]:
            self._told[spec.run_id] = len(metrics)
            self._each(self._log, spec, new)

    def end(self, spec: RunSpec, state: str) -> None:
        """A network is finished, failed or stopped; what was said before stays."""
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
        """Have the thread call ``call(name, *args)`` for every tracker."""
        for name in list(self._trackers):
            self._thread.submit(self._guarded, call, name, *args)

    def _guarded(self, call: Callable[..., None], name: str, *args: Any) -> None:
        if name not in self._trackers:
            return
        try:
            call(name, *args)
        except Exception as error:  # whatever it is: training is worth more
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
    except Exception as error:  # libraries have their own
        raise UserError(f"tracker={name} cannot be used: {reason(error)}") from error


def parameters(spec: RunSpec) -> dict[str, str | int | float]:
    """What a tracker has beside the curves of a network."""
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
