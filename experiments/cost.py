"""Estimates of the time, arithmetic, memory and disk space of training, from the multiply-adds of
each layer and a few timed steps.
"""

import heapq
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.plan import UnpackedImagenet
from transferability.console import duration, pluralize
from transferability.data.batch import Batch
from transferability.data.packed import PackedDataset
from transferability.networks.sequential import LayerProfile, SequentialNetwork, profile_layers
from transferability.runs.estimate import macs
from transferability.runs.store import Store
from transferability.study.cells import Cell
from transferability.study.jobs import group_into_jobs
from transferability.study.spec import RunSpec
from transferability.training.execution import Execution
from transferability.training.state import PrefixCache, TrainState, one_thread

BYTES_PER_EVALUATION = 150  # a line of metrics.jsonl
BYTES_PER_RUN = 6000  # specification, provenance, record, names of tensors


class Cost:
    """The cost of training, from the multiply-adds of each layer and a few timed steps of each
    network.
    """

    def __init__(
        self,
        store: Store,
        dataset: PackedDataset | UnpackedImagenet,
        execution: Execution,
        now: Callable[[], float] = time.perf_counter,
    ):
        self.store, self.execution, self.now = store, execution, now
        self.dataset: Any = dataset  # both types have the attributes of plans and costs
        self._measured: dict[tuple, tuple[float, float]] = {}

    def images(self, spec: RunSpec) -> int:
        """Training images that the run still needs."""
        return (spec.recipe.steps - self.store.step(spec)) * spec.recipe.batch_size

    def seconds(self, job: list[RunSpec]) -> float:
        """Seconds that the rest of a job takes on one thread."""
        return self.macs(job, lambda spec: 1 / self.measured(spec)[0])

    def macs(
        self, job: list[RunSpec], weight: Callable[[RunSpec], float] = lambda spec: 1.0
    ) -> float:
        """Multiply-adds left of a job; see ``transferability.runs.estimate.macs``."""
        return macs(job, self.dataset, self.store.step, weight)

    def memory(self, job: list[RunSpec]) -> float:
        """Bytes for the weights, momentum and gradients of all networks, and for the activations of
        networks that train at the same time.
        """
        trained = [8 * sum(layer.parameters for layer in _costs(s)[s.cell.frozen :]) for s in job]
        activations = sorted(self.measured(s)[1] * s.recipe.batch_size for s in job)
        at_once = activations[-self.execution.threads :]
        return sum(map(_weights, job)) + sum(trained) + sum(at_once)

    def measured(self, spec: RunSpec) -> tuple[float, float]:
        """Multiply-adds per second in training, and bytes that autograd keeps per image."""
        key = (spec.network.whole, spec.recipe.precision)
        if key not in self._measured:
            self._measured[key] = _measure(spec, self.execution, self.now)
        return self._measured[key]


def print_cost(left: list[RunSpec], cost: Cost) -> None:
    """Print the cost of training ``left``."""
    threads = cost.execution.threads
    works = group_into_jobs(left)
    images = sum(map(cost.images, left))
    read = sum(max(map(cost.images, job)) for job in works)
    seconds = [cost.seconds(job) for job in works]
    print(
        f"\nTo train: {pluralize(len(left), 'network')}, {images:,} network-images, in "
        f"{pluralize(len(works), 'job')}: about {duration(sum(seconds) / threads)} on "
        f"{cost.execution.device} with {pluralize(threads, 'thread')} (from a few timed steps; a "
        "shared machine may be slower)."
    )
    operations = 2 * sum(map(cost.macs, works))
    print(f"Arithmetic: {operations:.2e} floating-point operations, shared layers counted once.")
    print(_mirroring(left))
    if read:  # else only the results of the last evaluations remain to be written
        print(f"To read: {read:,} images, each for {images / read:.1f} networks.")
    print(f"To write: {_disk(left)}")
    print(
        f"Memory: {_size(max(map(cost.memory, works)))} for the largest job, of "
        f"{pluralize(max(map(len, works)), 'network')}."
    )
    if len(works) > 1:
        alone = [t / min(threads, len(job)) for t, job in zip(seconds, works, strict=True)]
        times = ", ".join(
            f"{pluralize(k, 'device')} {duration(schedule(works, alone, k))}"
            for k in (1, 2, 8, 64)
            if k <= len(works)
        )
        print(
            "With one job at a time per device like this one, bases first (experiments.sweep): "
            f"{times}."
        )


def _mirroring(specs: list[RunSpec]) -> str:
    """Whether training images are mirrored, and how to change it."""
    said = {
        True: "Training images are mirrored at random (recipe.mirror=false turns this off).",
        False: "Training images are not mirrored (recipe.mirror=true mirrors them at random).",
    }
    return " ".join(said[mirror] for mirror in sorted({s.recipe.mirror for s in specs}))


def schedule(works: list[list[RunSpec]], seconds: list[float], devices: int) -> float:
    """Seconds until all jobs are done: the longest job first, bases before transfers."""
    total = 0.0
    for stage in sorted({job[0].stage for job in works}):
        free = [0.0] * devices
        mine = [t for t, job in zip(seconds, works, strict=True) if job[0].stage == stage]
        for t in sorted(mine, reverse=True):
            heapq.heapreplace(free, free[0] + t)
        total += max(free)
    return total


def _disk(left: list[RunSpec]) -> str:
    """The disk space of ``left`` in words: what is kept, and the most that checkpoints take during
    training.
    """
    stays = trains = 0
    for spec in left:
        weights = _weights(spec)
        evaluations = -(-spec.recipe.steps // spec.recipe.eval_every)
        stays += weights + BYTES_PER_EVALUATION * evaluations + BYTES_PER_RUN
        trains += 2 * 2 * weights  # the two newest checkpoints, each with weights and momentum
    return f"{_size(stays)} to keep, and at most {_size(trains)} of checkpoints during training"


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _costs(spec: RunSpec) -> tuple[LayerProfile, ...]:
    return profile_layers(spec.network)


def _weights(spec: RunSpec) -> int:
    """Bytes of the weights, as saved."""
    return 4 * sum(layer.parameters for layer in _costs(spec))


def _measure(spec: RunSpec, execution: Execution, now: Callable[[], float]) -> tuple[float, float]:
    """Multiply-adds per second of one network in training, and bytes that autograd keeps per image,
    from a few steps on random images.
    """
    side, size = spec.network.input_size, min(spec.recipe.batch_size, 64)
    network = SequentialNetwork(spec.network.whole, np.zeros(3, np.float32)).to(execution.device)
    endless = replace(spec.recipe, steps=10**9)  # a recipe may have fewer steps than are timed
    state = TrainState(replace(spec, cell=Cell("B"), source=None, recipe=endless), network)
    zeros = torch.zeros(size, dtype=torch.int64)
    images = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8)
    images, zeros = images.to(execution.device), zeros.to(execution.device)
    batch = Batch(images, zeros, zeros, zeros, zeros.bool(), side)
    kept = {p.data_ptr(): 0 for p in network.parameters()}  # weights are not activations

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.data_ptr(), tensor.nbytes)
        return tensor

    times = []
    with one_thread():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            state.train_step(batch, PrefixCache(batch))  # warms up, too
        for _ in range(3):
            began = now()
            state.train_step(batch, PrefixCache(batch))
            state.loss_sum.item()  # waits for a GPU
            times.append(now() - began)
    work = 3 * sum(layer.macs for layer in profile_layers(spec.network.whole)) * size
    return work / statistics.median(times), sum(kept.values()) / size
