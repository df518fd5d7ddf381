"""How far training is, for monitoring: a note every few seconds, read by
``experiments.status``, and lines of a log.

No result depends on a note, and none is part of one. It lies in the folder of the last of the
networks that train together, and holds while that run is locked: what a killed process left there
is removed by the next one that claims the run, or finds it finished.
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

NOTE_SECONDS = 5.0  # between notes, or a step where that takes longer
KEPT = 25  # notes that a rate is measured over: two minutes
FIRST_LINE, MOST = 5.0, 30.0  # seconds to the first line of a log; between two lines, at most


@dataclass(frozen=True)
class Progress:
    """Where the networks stand that one process trains in lockstep.

    Attributes:
        runs: their ids; the note lies in the folder of the last.
        points: of the newest notes: seconds, steps made, network-images trained.
        left: network-images that are still to be trained.
        top1: by id the newest evaluations, two at most: step, top-1.
        process: who trains them.
        written: when, in seconds since 1970.
        threads: networks that it trains at the same moment.
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
        """Steps and network-images a second; None where two notes are needed."""
        (began, *first), (now, *last) = self.points[0], self.points[-1]
        if len(self.points) < 2:
            return None
        steps, images = ((b - a) / (now - began) for a, b in zip(first, last, strict=True))
        return steps, images

    @property
    def seconds_left(self) -> float | None:
        """Of these networks; None while their rate is not known."""
        return self.left / self.rates[1] if self.rates else None


class ProgressWriter:
    """Notes of networks that train together, ``threads`` at the same moment; called after every
    step. ``clock`` gives seconds.
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
        """After training step ``step``, which ``stepped`` made."""
        now, self.step = self.clock(), step + 1
        self.images += len(stepped) * self.recipe.batch_size
        ended = self.step == self.recipe.steps
        if self.points and now - self.points[-1][0] < NOTE_SECONDS and not ended:
            return
        self.points.append((now, self.step, self.images))
        # a full disk is told by what matters, when it is written
        with suppress(UserError):
            write_atomic(self.path, json.dumps(asdict(self.progress())) + "\n")

    def progress(self) -> Progress:
        """Where the networks stand after the newest step."""
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
        """Those that have not failed."""
        return [state for cohort in self.cohorts for state in cohort.states]


class Due:
    """Whether it is time for a line of a log: soon after the start, then after pauses as long as
    all that went before, of half a minute at most (5, 10, 20, 40, 70, 100 s ...).
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
    """The note in a run's folder; None where there is none, or none that this version knows."""
    try:
        return Progress(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
