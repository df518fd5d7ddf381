"""What a study or a store holds: what is done, what can be resumed, what is missing,
and how long it may take.
"""

import heapq
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from transferability.cells import Cell
from transferability.cohort import Execution
from transferability.datasets import ClassInfo, PackedDataset
from transferability.jobs import jobs, with_sources
from transferability.member import Member, SharedPrefix, one_thread
from transferability.networks.chain import Chain, LayerCost, layer_costs
from transferability.sources.imagenet import imagenet_groups
from transferability.spec import RunSpec
from transferability.store import Store
from transferability.stream import Batch

STATES = ("done", "training", "failed", "half", "missing")
SECONDS_PER_DAY = 86400
BYTES_PER_EVALUATION = 150  # a line of metrics.jsonl
BYTES_PER_RUN = 6000  # specification, provenance, record, names of tensors


@dataclass(frozen=True)
class UnpackedImagenet:
    """ILSVRC 2012 as far as a plan needs it, before its 262 GB are packed."""

    name: str
    image_size: int
    checksum: str = "not packed"
    encoding: str | None = None

    @cached_property
    def classes(self) -> list[ClassInfo]:
        return [ClassInfo(wnid, wnid, group) for wnid, group in sorted(imagenet_groups().items())]

    @property
    def train_counts(self) -> np.ndarray:
        """As if all were of the size that most are: which ones are not is not known yet."""
        return np.full(len(self.classes), 1300)

    def val_rows(self, classes: list[int]) -> range:
        return range(50 * len(classes))


def print_plan(
    specs: list[RunSpec],
    study: list[RunSpec],
    store: Store,
    dataset: PackedDataset | UnpackedImagenet,
    execution: Execution,
) -> None:
    """What ``experiments.run`` would train, skip and resume for ``specs``,
    which are of ``study``.
    """
    numbers = {
        s.run_id: number for number, job in enumerate(jobs(with_sources(study))) for s in job
    }
    wanted = with_sources(specs)
    states = {s.run_id: store.state(s) for s in wanted}
    print_states(wanted, states, numbers)
    left = [s for s in wanted if states[s.run_id] != "done"]
    if not left:
        print("\nNothing to train: every network is finished.")
        return
    cost = Cost(store, dataset, execution)
    works = jobs(left)
    images = sum(map(cost.images, left))
    read = sum(max(map(cost.images, job)) for job in works)
    seconds = [cost.seconds(job) for job in works]
    print(
        f"\nTo train: {len(left)} networks, {images:,} network-images, in {len(works)} jobs: about "
        f"{duration(sum(seconds) / execution.threads)} on {execution.device} with "
        f"{counted(execution.threads, 'thread')} (from a few timed steps; "
        "a shared machine may be slower)."
    )
    operations = 2 * sum(map(cost.multiply_adds, works))
    print(f"Arithmetic: {operations:.2e} floating-point operations, shared layers once.")
    print(_mirroring(left))
    if read:  # else only the last evaluations' results are to be written
        print(f"To read: {read:,} images, each for {images / read:.1f} networks.")
    print(f"To write: {_disk(left)}")
    print(
        f"Memory: {_size(max(map(cost.memory, works)))} for the largest job, of "
        f"{max(map(len, works))} networks."
    )
    if len(works) > 1:
        alone = [
            t / min(execution.threads, len(job)) for t, job in zip(seconds, works, strict=True)
        ]
        times = ", ".join(
            f"{k} take {duration(schedule(works, alone, k))}"
            for k in (1, 2, 8, 64)
            if k <= len(works)
        )
        print(
            "Devices like this one, a job each at a time, "
            f"bases first (experiments.sweep): {times}."
        )


def _mirroring(specs: list[RunSpec]) -> str:
    """Whether training images are mirrored, and how to change it."""
    said = {
        True: "Training images are mirrored at random (recipe.mirror=false: not).",
        False: "Training images are not mirrored (recipe.mirror=true: at random).",
    }
    return " ".join(said[mirror] for mirror in sorted({s.recipe.mirror for s in specs}))


def print_states(
    runs: list[RunSpec], states: dict[str, str], numbers: dict[str, int] | None = None
) -> None:
    """A table of ``runs`` and their ``states``, a line a job,
    with the ``numbers`` of the runs' jobs.
    """
    rows = []
    for job in jobs(runs):
        counts = Counter(states[s.run_id] for s in job)
        first = job[0]
        recipe = (
            f"{first.network.name}, {first.recipe.name} ({first.recipe.steps:,} x "
            f"{first.recipe.batch_size})"
        )
        counted = (str(counts[s] or "-") for s in STATES)
        number = str(numbers[first.run_id]) if numbers else ""
        rows.append([number, data_of(first), _treatments(job), recipe, str(len(job)), *counted])
    totals = Counter(states.values())
    rows.append(["", "all", "", "", str(len(runs)), *(str(totals[s] or "-") for s in STATES)])
    header = ["job", "data", "treatments", "network, recipe (steps x batch)", "networks"]
    header += ["done", "training", "failed", "resume", "missing"]
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [
            c.ljust(w) if 1 <= i < 4 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells if numbers else cells[1:]).rstrip())


def data_of(spec: RunSpec) -> str:
    """What a network is trained on, in words."""
    reduced = f", {spec.images_per_class} images a class" if spec.images_per_class else ""
    return f"{spec.dataset.name} {spec.split} → {spec.cell.target}, seed {spec.seed}{reduced}"


def _treatments(job: list[RunSpec]) -> str:
    return " ".join(dict.fromkeys(s.cell.treatment for s in job))


class Cost:
    """What training takes, from the multiply-adds of each layer and a few timed steps
    of each network.
    """

    def __init__(
        self, store: Store, dataset: PackedDataset | UnpackedImagenet, execution: Execution
    ):
        self.store, self.dataset, self.execution = store, dataset, execution
        self._measured: dict[tuple, tuple[float, float]] = {}

    def images(self, spec: RunSpec) -> int:
        """Training images that the run still needs."""
        return (spec.recipe.steps - self.store.step(spec)) * spec.recipe.batch_size

    def seconds(self, job: list[RunSpec]) -> float:
        """Seconds on one thread."""
        return self.multiply_adds(job, lambda spec: 1 / self.measured(spec)[0])

    def multiply_adds(
        self, job: list[RunSpec], weight: Callable[[RunSpec], float] = lambda spec: 1.0
    ) -> float:
        """What is left of a job, see :func:`multiply_adds`."""
        return multiply_adds(job, self.dataset, self.store.step, weight)

    def memory(self, job: list[RunSpec]) -> float:
        """Bytes: weights, momentum and gradients of every network;
        activations of those that train at once.
        """
        trained = [8 * sum(layer.parameters for layer in _costs(s)[s.cell.frozen :]) for s in job]
        activations = sorted(self.measured(s)[1] * s.recipe.batch_size for s in job)
        at_once = activations[-self.execution.threads :]
        return sum(map(_weights, job)) + sum(trained) + sum(at_once)

    def measured(self, spec: RunSpec) -> tuple[float, float]:
        """Multiply-adds a second in training, and bytes that autograd keeps for one image."""
        key = (spec.network.whole, spec.recipe.precision)
        if key not in self._measured:
            self._measured[key] = _measure(spec, self.execution)
        return self._measured[key]


def multiply_adds(
    job: list[RunSpec],
    dataset: PackedDataset | UnpackedImagenet,
    step: Callable[[RunSpec], int],
    weight: Callable[[RunSpec], float] = lambda spec: 1.0,
) -> float:
    """Training from the ``step`` of each network on, backward counted twice, and validation; shared
    prefixes once.

    Each network times its ``weight``.
    """
    total, prefixes = 0.0, {}
    for spec in job:
        work, frozen = [weight(spec) * c.multiply_adds for c in _costs(spec)], spec.cell.frozen
        steps = spec.recipe.steps - step(spec)
        train = steps * spec.recipe.batch_size
        evaluate = steps / spec.recipe.eval_every * len(dataset.val_rows(list(spec.classes)))
        total += sum(work[frozen:]) * (3 * train + evaluate)
        prefix = (spec.network.whole, spec.cell.source)
        prefixes[prefix] = max(prefixes.get(prefix, 0.0), sum(work[:frozen]) * (train + evaluate))
    return total + sum(prefixes.values())


def schedule(works: list[list[RunSpec]], seconds: list[float], devices: int) -> float:
    """Seconds until all jobs are done: the longest job first, bases before transfers."""
    total = 0.0
    for generation in sorted({job[0].generation for job in works}):
        free = [0.0] * devices
        mine = [t for t, job in zip(seconds, works, strict=True) if job[0].generation == generation]
        for t in sorted(mine, reverse=True):
            heapq.heapreplace(free, free[0] + t)
        total += max(free)
    return total


def _disk(left: list[RunSpec]) -> str:
    """Bytes that ``left`` will write: what stays,
    and at most how much beside it while they train.
    """
    stays = trains = 0
    for spec in left:
        weights = _weights(spec)
        evaluations = -(-spec.recipe.steps // spec.recipe.eval_every)
        stays += weights + BYTES_PER_EVALUATION * evaluations + BYTES_PER_RUN
        trains += 2 * 2 * weights  # the two newest checkpoints, each with weights and momentum
    return f"{_size(stays)} that stay, and at most {_size(trains)} of checkpoints while they train"


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _costs(spec: RunSpec) -> tuple[LayerCost, ...]:
    return layer_costs(spec.network)


def _weights(spec: RunSpec) -> int:
    """Bytes of the weights, as saved."""
    return 4 * sum(layer.parameters for layer in _costs(spec))


def _measure(spec: RunSpec, execution: Execution) -> tuple[float, float]:
    """Multiply-adds a second of one network in training,
    and the bytes that autograd keeps for one image.

    From a few steps on random images.
    """
    side, size = spec.network.input_size, min(spec.recipe.batch_size, 64)
    network = Chain(spec.network.whole, np.zeros(3, np.float32)).to(execution.device)
    endless = replace(spec.recipe, steps=10**9)  # a recipe may have fewer steps than are timed
    member = Member(replace(spec, cell=Cell("B"), source=None, recipe=endless), network)
    zeros = torch.zeros(size, dtype=torch.int64)
    images = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8)
    batch = Batch(
        *(x.to(execution.device) for x in (images, zeros, zeros, zeros, zeros.bool())), side
    )
    kept = {p.data_ptr(): 0 for p in network.parameters()}  # weights are no activations

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.data_ptr(), tensor.nbytes)
        return tensor

    times = []
    with one_thread():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            member.train_step(batch, SharedPrefix(batch))  # warms up, too
        for _ in range(3):
            began = time.perf_counter()
            member.train_step(batch, SharedPrefix(batch))
            member.loss_sum.item()  # waits for a GPU
            times.append(time.perf_counter() - began)
    work = 3 * sum(layer.multiply_adds for layer in layer_costs(spec.network.whole)) * size
    return work / statistics.median(times), sum(kept.values()) / size


def counted(number: int, what: str) -> str:
    """``1 GPU``, ``2 GPUs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return (
        f"{seconds / 3600:.1f} h"
        if seconds < 2 * SECONDS_PER_DAY
        else f"{seconds / SECONDS_PER_DAY:.1f} days"
    )
