"""Training progress for monitoring: a note every few seconds, read by ``experiments.status``, and
lines in the log.

No result depends on a note. The note is in the run folder of the last of the networks that train
together, and is valid while that run is locked. A note that a killed process left is removed by the
next process that claims the run or finds it finished.
"""

import json
import os
import platform
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transferability.errors import UserError
from transferability.files import write_atomic
from transferability.training.checkpoint import PROGRESS

if TYPE_CHECKING:
    from transferability.training.loop import Cohort
    from transferability.training.state import TrainState

NOTE_SECONDS = 5.0  # between notes; longer if a step takes longer
KEPT = 25  # notes over which a rate is measured: two minutes
FIRST_LINE, MOST = 5.0, 30.0  # seconds to the first log line; the most between two lines


@dataclass(frozen=True)
class Progress:
    """Progress of the networks that one process trains in lockstep.

    Attributes:
        runs: the run ids; the note is in the folder of the last.
        points: (seconds, steps done, network-images trained) of the newest notes.
        left: network-images still to be trained.
        top1: run id -> at most two newest evaluations, (step, top-1 accuracy).
        process: the training process and its machine.
        written: the time of the note, in seconds since 1970.
        threads: the number of networks that the process trains at a time.
    """

    runs: list[str]
    points: list[tuple[float, int, int]]
    left: int
    top1: dict[str, list[tuple[int, float]]]
    process: str
    written: float
    threads: int = 1

    @property
    def step(self) -> int:
        return self.points[-1][1]

    @property
    def rates(self) -> tuple[float, float] | None:
        """Steps and network-images per second; None with fewer than two points."""
        (began, *first), (now, *last) = self.points[0], self.points[-1]
        if len(self.points) < 2:
            return None
        steps, images = ((b - a) / (now - began) for a, b in zip(first, last, strict=True))
        return steps, images

    @property
    def seconds_left(self) -> float | None:
        """The remaining time of these networks; None while their rate is unknown."""
        return self.left / self.rates[1] if self.rates else None


class ProgressWriter:
    """Write notes on networks that train together, ``threads`` at a time; called after every step.

    ``clock`` returns seconds.
    """

    def __init__(
        self,
        store: Path,
        cohorts: "list[Cohort]",
        threads: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.cohorts, self.threads, self.clock = cohorts, threads, clock
        self.runs = [state.spec.run_id for state in self._states()]
        self.recipe = self._states()[0].spec.recipe
        self.path = store / self.runs[-1] / PROGRESS
        self.points: deque[tuple[float, int, int]] = deque(maxlen=KEPT)
        self.images = self.step = 0

    def __call__(self, step: int, stepped: "list[TrainState]") -> None:
        """Record training step ``step`` of the networks ``stepped``."""
        now, self.step = self.clock(), step + 1
        self.images += len(stepped) * self.recipe.batch_size
        ended = self.step == self.recipe.steps
        if self.points and now - self.points[-1][0] < NOTE_SECONDS and not ended:
            return
        self.points.append((now, self.step, self.images))
        # results report a full disk when they are written
        with suppress(UserError):
            write_atomic(self.path, json.dumps(asdict(self.progress())) + "\n")

    def progress(self) -> Progress:
        """The progress of the networks after the newest step."""
        points, newest = list(self.points), (self.clock(), self.step, self.images)
        states = self._states()
        return Progress(
            self.runs,
            points if points[-1][1] == self.step else [*points, newest],
            sum(self.recipe.steps - state.step for state in states) * self.recipe.batch_size,
            {
                state.spec.run_id: [(e["step"], e["val_top1"]) for e in state.metrics[-2:]]
                for state in states
            },
            f"{os.getpid()} on {platform.node()}",
            time.time(),
            self.threads,
        )

    def _states(self) -> "list[TrainState]":
        """The networks that have not failed."""
        return [state for cohort in self.cohorts for state in cohort.states]


class Due:
    """Whether a log line is due: 5 s after the start, then after pauses as long as the time so far,
    but at most 30 s (5, 10, 20, 40, 70, 100 s ...).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.began = clock, clock()
        self.at = self.began + FIRST_LINE

    def __call__(self) -> bool:
        now = self.clock()
        if now < self.at:
            return False
        self.at = now + min(now - self.began, MOST)
        return True


def read(folder: Path) -> Progress | None:
    """Read the note in a run's folder; None if it is missing or has an unknown format."""
    try:
        return Progress(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
