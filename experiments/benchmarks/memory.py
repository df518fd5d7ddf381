"""The peak memory of training a cohort in lockstep, and of a plain script."""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.plain_script import (
    WORKERS,
    plain_batches,
    plain_training,
)
from experiments.benchmarks.timing import (
    step_seconds,
    table,
    untrained_cohort,
)
from transferability.signals import POSIX
from transferability.study.config import Config
from transferability.study.spec import RunSpec
from transferability.training.execution import execution_of

PEAK_STEPS = 4  # steps before the peak is read


def print_memory(
    config: Config, specs: list[RunSpec], folder: Path, sizes: tuple[int, ...]
) -> None:
    """Print table 4. Each row is measured in its own child process; the first also measures imports
    before it trains.

    A child's peak starts at its parent's, so this function must run before the parent opens or
    trains anything.
    """
    if not POSIX:
        print("4. Peak memory of training: not measured on Windows")
        return
    peaks = [in_child(cohort_peak, config, specs[:: len(specs) // n][:n]) for n in sizes]
    rows = [["nothing trained: imports only", f"{peaks[0][0]:,.0f}", ""]]
    for size, (_, peak) in zip(sizes, peaks, strict=True):
        rows.append([f"lockstep, a cohort of {size}", f"{peak:,.0f}", ""])
    own, worker = in_child(plain_peak, config, folder)
    rows.append(["plain script, one network", f"{own:,.0f}", f"{worker:,.0f}"])
    table(
        "4. Peak memory of training, MiB resident. Lockstep's includes the pages of the packed "
        "images that it read,\n"
        "   which the system can take back; a worker's includes those that it shares "
        "with the script.",
        ["", "process", f"each of {WORKERS} workers"],
        rows,
    )


def cohort_peak(config: Config, specs: list[RunSpec]) -> tuple[float, float]:
    """Peak resident MiB of this process before and after a few lockstep steps of ``specs``."""
    before = _peak()
    step_seconds([untrained_cohort(config, specs)], execution_of(config), PEAK_STEPS)
    return before, _peak()


def plain_peak(config: Config, folder: Path) -> tuple[float, float]:
    """Peak resident MiB of this process and of its largest worker after a few steps of the plain
    script.
    """
    device, outputs = execution_of(config).device, len(list(folder.iterdir()))
    with closing(plain_batches(folder, config, np.zeros(3))) as batches:
        plain_training(batches, 0, outputs, config, device, PEAK_STEPS)
    return _peak(), _peak("RUSAGE_CHILDREN")


def in_child(function: Callable, *args: Any) -> Any:
    """Call ``function(*args)`` in a new process, which ends afterwards."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        return child.submit(function, *args).result()


def _peak(who: str = "RUSAGE_SELF") -> float:
    import resource  # not available on Windows

    peak = resource.getrusage(getattr(resource, who)).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
