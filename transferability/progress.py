"""How far training is, for whoever watches: a note every few seconds, read by
``experiments.status``.

No result depends on a note, and none is part of one. It lies in the folder of the last of the
networks that train together, and holds while that run is locked: what a killed process left there
is removed by the next one that claims the run, or finds it finished.
"""

import json
import os
import platform
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from transferability.checkpoints import PROGRESS
from transferability.cohort import Cohort
from transferability.errors import UserError
from transferability.files import write_atomic
from transferability.member import Member

NOTE_SECONDS = 5.0  # between notes, or a step where that takes longer
KEPT = 25  # notes that a rate is measured over: two minutes


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
    """

    runs: list[str]
    points: list[tuple[float, int, int]]
    left: int
    top1: dict[str, list[tuple[int, float]]]
    process: str
    written: float

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


class Notes:
    """Notes of networks that train together; called after every step."""

    def __init__(self, store: Path, cohorts: list[Cohort]):
        self.cohorts = cohorts
        self.runs = [m.spec.run_id for m in self._members()]
        self.recipe = self._members()[0].spec.recipe
        self.path = store / self.runs[-1] / PROGRESS
        self.points: deque[tuple[float, int, int]] = deque(maxlen=KEPT)
        self.images = 0

    def __call__(self, step: int, stepped: list[Member]) -> None:
        """After training step ``step``, which ``stepped`` made."""
        now, made = time.monotonic(), step + 1
        self.images += len(stepped) * self.recipe.batch_size
        ended = made == self.recipe.steps
        if self.points and now - self.points[-1][0] < NOTE_SECONDS and not ended:
            return
        self.points.append((now, made, self.images))
        members = self._members()
        progress = Progress(
            self.runs,
            list(self.points),
            sum(self.recipe.steps - m.step for m in members) * self.recipe.batch_size,
            {m.spec.run_id: [(e["step"], e["val_top1"]) for e in m.metrics[-2:]] for m in members},
            f"{os.getpid()} on {platform.node()}",
            time.time(),
        )
        # a full disk is told by what matters, when it is written
        with suppress(UserError):
            write_atomic(self.path, json.dumps(asdict(progress)) + "\n")

    def _members(self) -> list[Member]:
        """Those that have not failed."""
        return [m for cohort in self.cohorts for m in cohort.members]


def read(folder: Path) -> Progress | None:
    """The note in a run's folder; None where there is none, or none that this version knows."""
    try:
        return Progress(**json.loads((folder / PROGRESS).read_text()))
    except (OSError, ValueError, TypeError):
        return None
