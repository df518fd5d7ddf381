"""What a study or a store holds: what is done, what can be resumed, what is missing, and how long it may take."""

import statistics
import time
from collections import Counter

import numpy as np
import torch

from transferability.cohort import Execution, Member, SharedPrefix
from transferability.network import Network, layer_flops
from transferability.runner import cohort_key, with_sources
from transferability.spec import RunSpec
from transferability.store import Store
from transferability.stream import Batch

STATES = ("done", "training", "failed", "half", "missing")
SECONDS_PER_DAY = 86400
BYTES_PER_EVALUATION = 150  # a line of metrics.jsonl
BYTES_PER_RUN = 6000  # specification, provenance, record, names of tensors


def print_plan(specs: list[RunSpec], store: Store, execution: Execution) -> None:
    """What ``experiments.run`` would train, skip and resume for ``specs``."""
    runs = with_sources(specs)
    left = print_states(runs, store)
    if not left:
        print("\nNothing to train: every network is finished.")
        return
    images = sum((s.recipe.steps - store.step(s)) * s.recipe.batch_size for s in left)
    seconds = _estimate(left, store, execution)
    print(
        f"\nTo train: {len(left)} networks, {images:,} network-images, about {_duration(seconds)} on "
        f"{execution.device} with {execution.threads} thread{'s' * (execution.threads > 1)} (from a few timed steps; "
        "a shared machine may be slower)."
    )
    print(f"To write: {_disk(left)}")


def print_states(runs: list[RunSpec], store: Store) -> list[RunSpec]:
    """A table of ``runs``, a line a cohort; returns the runs that are not finished."""
    states = {s.run_id: store.state(s) for s in runs}
    rows = []
    for key in dict.fromkeys(map(cohort_key, runs)):
        mine = [s for s in runs if cohort_key(s) == key]
        counts = Counter(states[s.run_id] for s in mine)
        first = mine[0]
        reduced = f", {first.images_per_class} images a class" if first.images_per_class else ""
        what = f"{first.dataset['name']} {first.split} → {first.cell.target}, seed {first.seed}{reduced}"
        recipe = f"{first.network.name}, {first.recipe.name} ({first.recipe.steps:,} x {first.recipe.batch_size})"
        rows.append([what, recipe, str(len(mine)), *(str(counts[s] or "-") for s in STATES)])
    totals = Counter(states.values())
    rows.append(["all", "", str(len(runs)), *(str(totals[s] or "-") for s in STATES)])
    header = [
        "cohort",
        "network, recipe (steps x batch)",
        "networks",
        "done",
        "training",
        "failed",
        "resume",
        "missing",
    ]
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
    return [s for s in runs if states[s.run_id] != "done"]


def _estimate(left: list[RunSpec], store: Store, execution: Execution) -> float:
    """Seconds to train ``left``: multiply-adds (backward counted twice) over a measured rate, shared prefixes once."""
    total, rates = 0.0, {}
    for key in dict.fromkeys(map(cohort_key, left)):
        prefixes = {}
        for spec in (s for s in left if cohort_key(s) == key):
            flops, frozen = layer_flops(spec.network, spec.network.outputs), spec.cell.frozen
            images = (spec.recipe.steps - store.step(spec)) * spec.recipe.batch_size
            name = (str(spec.network), spec.recipe.precision)
            if name not in rates:
                rates[name] = _measured_rate(spec, execution)
            total += 3 * sum(flops[frozen:]) * images / rates[name]
            prefix = (name, spec.cell.source)
            prefixes[prefix] = max(prefixes.get(prefix, 0.0), sum(flops[:frozen]) * images / rates[name])
        total += sum(prefixes.values())
    return total / execution.threads


def _disk(left: list[RunSpec]) -> str:
    """Bytes that ``left`` will write: what stays, and at most how much beside it while they train."""
    stays = trains = 0
    sizes = {}
    for spec in left:
        key = str(spec.network)
        if key not in sizes:
            network = Network(spec.network, spec.network.outputs, np.zeros(3, np.float32))
            sizes[key] = 4 * sum(p.numel() for p in network.parameters())
        weights = sizes[key]
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


def _measured_rate(spec: RunSpec, execution: Execution) -> float:
    """Multiply-adds a second of one network in training, from a few steps on random images."""
    side, size = spec.network.input_size, min(spec.recipe.batch_size, 64)
    network = Network(spec.network, spec.network.outputs, np.zeros(3, np.float32)).to(execution.device)
    member = Member(spec, network)
    zeros = torch.zeros(size, dtype=torch.int64)
    images = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8)
    batch = Batch(*(x.to(execution.device) for x in (images, zeros, zeros, zeros, zeros.bool())), side)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        member.train_step(batch, SharedPrefix(batch))
        member.loss_sum.item()  # waits for a GPU
        times.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return 3 * sum(layer_flops(spec.network, spec.network.outputs)) * size / statistics.median(times[1:])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * SECONDS_PER_DAY else f"{seconds / SECONDS_PER_DAY:.1f} days"
