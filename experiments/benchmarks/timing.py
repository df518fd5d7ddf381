"""Helpers of the benchmarks: seconds per training step, ways that take turns, ratios, tables."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from transferability.data.packed import dataset_of
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.study.config import Config
from transferability.study.jobs import with_bases
from transferability.study.spec import RunSpec
from transferability.training.execution import Execution, execution_of
from transferability.training.loop import Cohort, train
from transferability.training.state import TrainState

Way = TypeVar("Way")


def now(device: torch.device) -> float:
    """The time in seconds, after all work queued on ``device`` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def untrained_cohort(config: Config, specs: list[RunSpec]) -> Cohort:
    """A cohort of ``specs`` from untrained bases: the time of a step does not depend on weights."""
    dataset, execution = dataset_of(config.dataset), execution_of(config)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        bases = [s for s in with_bases(specs) if s.cell.is_base]
        for base in (m for c in make_cohorts(bases, store, dataset, execution) for m in c.states):
            if lock := store.lock(base.spec):
                lock.release()
            store.finish(base.spec, base.network.state_dict(), [], {}, {})
        (cohort,) = make_cohorts(specs, store, dataset, execution)
    return cohort


class _EnoughError(Exception):
    """Ends training early."""


def step_seconds(cohorts: list[Cohort], execution: Execution, steps: int) -> float:
    """Seconds per step of ``loop.train`` itself, after a warm-up step."""
    ticks = []

    def on_step(step: int, active: list[TrainState]) -> None:
        if step in (0, steps):  # no synchronization with a GPU in between
            ticks.append(now(execution.device))
        if step == steps:
            raise _EnoughError

    for state in (state for cohort in cohorts for state in cohort.states):
        state.step = 0
    with suppress(_EnoughError):
        train(cohorts, execution, lambda state: None, lambda state, why: None, on_step)
    return (ticks[-1] - ticks[0]) / steps


def taking_turns(ways: dict[Way, Callable[[int], float]], rounds: int) -> dict[Way, list[float]]:
    """Measure each way once per round; a way is called with the number of the round, from 0."""
    measured: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, measure in ways.items():
            measured[way].append(measure(number))
    return measured


def spread(measured: list[float], unit: list[float]) -> str:
    """The ratio to ``unit``, round by round: median, minimum and maximum."""
    ratios = [a / b for a, b in zip(measured, unit, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table; all columns but the first are right-aligned."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}\n")
    for r in [header, *rows]:
        print(
            "  ",
            r[0].ljust(widths[0]),
            *(c.rjust(w + 2) for c, w in zip(r[1:], widths[1:], strict=True)),
        )
    sys.stdout.flush()
