"""How fast lockstep training is, against the other ways to train the same networks.

python -m experiments.benchmarks.lockstep                  the embedded images, the configured network and recipe
python -m experiments.benchmarks.lockstep dataset=tiny_imagenet recipe=tiny_imagenet dataset.source=ZIP_OR_FOLDER

Training steps only, no validation, no checkpoints. Every comparison is a ratio measured in this one run, the ways to
train taking turns; absolute speeds belong to the machine and its load. Only temporary files are written.
"""

import copy
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from experiments.cli import command, dataset_of
from transferability import cells
from transferability.cohort import Cohort, Execution, train
from transferability.config import Config
from transferability.member import Member
from transferability.networks.eight_layer import EightLayerConfig
from transferability.runner import execution_of, make_cohorts, with_sources
from transferability.sources.trees import FileTree
from transferability.spec import RunSpec, make_spec
from transferability.store import Store

ROUNDS, STEPS, PLAIN_STEPS = 4, 4, 6  # rounds of taking turns; timed steps of a network in each
SIZES = (2, 4, 7, 14, 28)  # of the growing cohort
FILES_PER_CLASS = 100  # image files that the plain script reads, at most
WORKERS = 2  # of the plain script's DataLoader


def cohort_specs(config: Config) -> list[RunSpec]:
    """All cells of one target task, BnB, BnB+, AnB, AnB+ and RnB for every n; their recipe has no end."""
    dataset, layers = dataset_of(config), list(range(1, config.network.n_layers))
    recipe = replace(config.recipe, steps=10**9, eval_every=10**9)
    return [
        make_spec(cell, config.split or "random-0", dataset, config.network, recipe, config.seed or 0)
        for treatment in ("BnB", "BnB+", "AnB", "AnB+", "RnB")
        for cell in cells.expand(treatment, config.target or "B", layers, config.network.n_layers)
    ]


def untrained_cohort(config: Config, specs: list[RunSpec]) -> Cohort:
    """The networks of ``specs``, their bases untrained: the time of a step does not depend on the weights."""
    dataset, execution = dataset_of(config), execution_of(config)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        bases = [s for s in with_sources(specs) if s.cell.is_base]
        for base in (m for c in make_cohorts(bases, store, dataset, execution) for m in c.members):
            store.claim(base.spec).release()
            store.finish(base.spec, base.network.state_dict(), [], {})
        (cohort,) = make_cohorts(specs, store, dataset, execution)
    return cohort


class _EnoughError(Exception):
    """Ends a training that would go on."""


def step_seconds(cohorts: list[Cohort], execution: Execution, steps: int) -> float:
    """Seconds of one step of ``cohort.train`` itself, after a step to warm up."""
    ticks = []

    def on_step(step: int, active: list[Member]) -> None:
        if step in (0, steps):  # no waiting for a GPU in between
            ticks.append(now(execution.device))
        if step == steps:
            raise _EnoughError

    for member in (m for c in cohorts for m in c.members):
        member.step = 0
    with suppress(_EnoughError):
        train(cohorts, execution, lambda member: None, lambda member, why: None, on_step)
    return (ticks[-1] - ticks[0]) / steps


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# The plain script: what one would write to train one network with torch and torchvision alone.


def plain_network(config: EightLayerConfig, outputs: int) -> nn.Sequential:
    """The same 8 layers as ``network.Network``, in the order of the paper: convolution, ReLU, pool."""
    layers, channels, size = [], 3, config.input_size
    for i, out in enumerate(config.channels):
        kernel, stride, padding = config.kernels[i], config.strides[i], config.paddings[i]
        parts = [nn.Conv2d(channels, out, kernel, stride, padding, groups=config.groups[i])]
        size = (size + 2 * padding - kernel) // stride + 1
        parts += [nn.BatchNorm2d(out)] * (config.normalisation == "batch")
        parts += [nn.ReLU(inplace=True)]
        if i + 1 in config.pools:
            parts += [nn.MaxPool2d(3, 2, ceil_mode=True)]
            size = size // 2
            parts += [nn.LocalResponseNorm(5)] * (config.normalisation == "lrn" and i < 2)
        layers.append(nn.Sequential(*parts))
        channels = out
    features = channels * size * size
    for i, out in enumerate([*config.hidden, outputs]):
        parts = [nn.Dropout(config.dropout) if i else nn.Flatten(), nn.Linear(features, out)]
        if i < len(config.hidden):
            parts += [nn.BatchNorm1d(out)] * (config.normalisation == "batch")
            parts += [nn.ReLU(inplace=True)]
        layers.append(nn.Sequential(*parts))
        features = out
    return nn.Sequential(*layers)


def plain_batches(folder: Path, config: Config, mean: np.ndarray, workers: int = WORKERS) -> Iterator[list[Tensor]]:
    """Epoch after epoch of an ImageFolder; ``mean`` is the channels' mean, 0..255."""
    network, size = config.network, config.dataset.image_size
    files = ImageFolder(folder)
    files.transform = transforms.Compose(
        [transforms.Resize((size, size))] * (files[0][0].size != (size, size))
        + [transforms.RandomCrop(network.input_size)]
        + [transforms.RandomHorizontalFlip()] * config.recipe.mirror
        + [
            transforms.ToTensor(),
            transforms.Normalize((mean / 255).tolist(), [1 / (255 * network.input_scale)] * 3),
        ]
    )
    loader = DataLoader(
        files,
        config.recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )
    while True:
        yield from loader


def plain_training(
    batches: Iterator, frozen: int, outputs: int, config: Config, device: torch.device, steps: int
) -> float:
    """Train one network with its first ``frozen`` layers fixed; seconds a step, after a step to warm up."""
    recipe = config.recipe
    network = plain_network(config.network, outputs).to(device, memory_format=torch.channels_last)
    network[:frozen].requires_grad_(False)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True)
    for step in range(1 + steps):
        if step == 1:
            began = now(device)
        images, labels = next(batches)
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = F.cross_entropy(network(images), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return (now(device) - began) / steps


def export_images(config: Config, specs: list[RunSpec], folder: Path) -> str:
    """Fill an ImageFolder with training images of the task of ``specs``; returns what they are.

    Tiny-ImageNet's own JPEG files where ``dataset.source`` is given, else the packed images as PNG files.
    """
    dataset, real = dataset_of(config), config.dataset.kind == "tiny_imagenet" and config.dataset.source
    tree = FileTree(config.dataset.source) if real else None
    for c in specs[0].classes:
        (folder / f"{c:04d}").mkdir()
        if tree:
            train = f"{tree.find('wnids.txt')}train/{dataset.classes[c].wnid}/"
            for i, name in enumerate(tree.images(train)[:FILES_PER_CLASS]):
                (folder / f"{c:04d}" / f"{i}.jpeg").write_bytes(tree.read(name))
        else:
            for row in dataset.train_rows([c])[:FILES_PER_CLASS]:
                Image.fromarray(dataset.images[row]).save(folder / f"{c:04d}" / f"{row}.png")
    return "the original JPEG files" if real else "the packed images as PNG files"


# The questions.


def measure(
    config: Config, specs: list[RunSpec], folder: Path, rounds: int, steps: int, plain_steps: int
) -> dict[str, list[float]]:
    """Seconds to bring the networks of ``specs`` one step further: for each way to do it, a number a round.

    ``lockstep``, ``one`` by one, ``side`` by side, ``plain`` and ``plain 1`` (on one torch thread) train all of them;
    ``four N`` trains all but RnB, in cohorts of N networks.
    """
    torch_threads, execution = torch.get_num_threads(), execution_of(config)
    cohort = untrained_cohort(config, specs)
    members, outputs = cohort.members, cohort.members[0].spec.network.outputs
    by_cost = sorted(members, key=lambda m: m.network.frozen)
    four = [m for m in members if m.spec.cell.treatment != "RnB"]
    four = [four[i] for i in np.random.default_rng(0).permutation(len(four))]
    random_filters = [m for m in members if m.spec.cell.treatment == "RnB"]

    def in_cohorts(some: list[Member], size: int) -> float:
        groups = [some[i : i + size] for i in range(0, len(some), size)]
        return sum(step_seconds([Cohort(cohort.stream, g)], execution, steps) for g in groups)

    def side_by_side() -> float:
        at_once = execution.threads
        groups = [by_cost[i : i + at_once] for i in range(0, len(by_cost), at_once)]
        own_stream = [[Cohort(copy.copy(cohort.stream), [m]) for m in g] for g in groups]
        return sum(step_seconds(cohorts, execution, steps) for cohorts in own_stream)

    def plain(batches: Iterator, threads: int) -> float:
        torch.set_num_threads(threads)
        shared = outputs, config, execution.device
        plain_training(batches, 0, *shared, 2 * WORKERS)  # uses up what the workers prepared while they waited
        # Networks with equally many frozen layers cost the plain script the same: each kind is timed once.
        kinds = Counter(m.network.frozen for m in members)
        return sum(n * plain_training(batches, frozen, *shared, plain_steps) for frozen, n in kinds.items())

    times: dict[str, list[float]] = {}
    with closing(plain_batches(folder, config, cohort.stream.mean_image.mean(axis=(0, 1)))) as batches:
        next(batches)  # the workers start before any thread does
        for _ in range(rounds):
            now = {"lockstep": in_cohorts(members, len(members)), "plain": plain(batches, torch_threads)}
            now |= {"plain 1": plain(batches, 1), "four 1": in_cohorts(four, 1), "side": side_by_side()}
            now["one"] = now["four 1"] + in_cohorts(random_filters, 1)
            now |= {f"four {size}": in_cohorts(four, size) for size in SIZES}
            for way, seconds in now.items():
                times.setdefault(way, []).append(seconds)
    torch.set_num_threads(torch_threads)
    return times


def print_speed(config: Config, n: int, files: str, times: dict[str, list[float]]) -> None:
    """Questions 1 to 3: ``times`` of :func:`measure` for ``n`` networks as ratios."""
    threads, torch_threads = execution_of(config).threads, torch.get_num_threads()
    four = n * 4 // 5

    def row(what: str, way: str, unit: str = "lockstep", networks: int = n) -> list[str]:
        ratios = [a / b for a, b in zip(times[way], times[unit], strict=True)]
        rate = networks * config.recipe.batch_size / statistics.median(times[way])
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        return [what, spread, f"{rate:,.0f}"]

    header = ["", "time (min to max)", "network-images/s"]
    lockstep = row(f"lockstep: one cohort, {threads} networks at a time", "lockstep")
    table(
        f"1. Lockstep against the same code without it: bringing the {n} networks of one target task (BnB, BnB+,\n"
        "   AnB, AnB+ and RnB, every n) one training step further. Time, lockstep = 1.",
        header,
        [
            lockstep,
            row("one network after the other, each a cohort of one (one thread)", "one"),
            row(f"{threads} networks at a time, each with a stream of its own", "side"),
        ],
    )
    table(
        f"2. Lockstep against a plain script: ImageFolder of {files}, torchvision transforms,\n"
        f"   a DataLoader with {WORKERS} workers, the same layers, requires_grad_(False) on the lowest n, SGD, one\n"
        f"   network after the other. The same {n} networks, one training step further. Time, lockstep = 1.",
        header,
        [
            lockstep,
            row(f"plain script, torch's own number of threads ({torch_threads})", "plain"),
            row("plain script, told to use one torch thread", "plain 1"),
        ],
    )
    table(
        f"3. The cost of a network as its cohort grows. The same {four} networks (BnB, BnB+, AnB, AnB+), in a random\n"
        "   order cut into cohorts of each size that train one after the other: every line trains the same mix.\n"
        f"   Time a network-image, cohorts of 1 = 1. A cohort of 1 keeps one core busy, larger ones {threads}.",
        header,
        [row(f"cohorts of {k}", f"four {k}", "four 1", four) for k in (1, *SIZES) if k <= four],
    )


def print_memory(config: Config, specs: list[RunSpec], folder: Path, sizes: tuple[int, ...]) -> None:
    """Question 4, each row measured in a child process of its own.

    A child's peak starts at its parent's, so this comes before the parent opens or trains anything.
    """
    rows = [["nothing trained: imports only", f"{_in_child(_peak, resource.RUSAGE_SELF):,.0f}", ""]]
    for size in sizes:
        chosen = specs[:: len(specs) // size][:size]
        rows.append([f"lockstep, a cohort of {size}", f"{_in_child(cohort_peak, config, chosen):,.0f}", ""])
    own, worker = _in_child(plain_peak, config, folder)
    rows.append(["plain script, one network", f"{own:,.0f}", f"{worker:,.0f}"])
    table(
        "4. Peak memory of training, MiB resident. Lockstep's includes the pages of the packed images that it read,\n"
        "   which the system can take back; a worker's includes those that it shares with the script.",
        ["", "process", f"each of {WORKERS} workers"],
        rows,
    )


def cohort_peak(config: Config, specs: list[RunSpec]) -> float:
    """Peak resident MiB of this process after a few lockstep steps of ``specs``."""
    step_seconds([untrained_cohort(config, specs)], execution_of(config), STEPS)
    return _peak(resource.RUSAGE_SELF)


def plain_peak(config: Config, folder: Path) -> tuple[float, float]:
    """Peak resident MiB of this process after a few steps of the plain script, and of its largest worker."""
    device, outputs = execution_of(config).device, len(list(folder.iterdir()))
    with closing(plain_batches(folder, config, np.zeros(3))) as batches:
        plain_training(batches, 0, outputs, config, device, STEPS)
    return _peak(resource.RUSAGE_SELF), _peak(resource.RUSAGE_CHILDREN)


def _in_child(function: Callable, *args: Any) -> Any:
    """``function(*args)`` in a fresh process, which ends afterwards."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        return child.submit(function, *args).result()


def _peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}\n")
    for r in [header, *rows]:
        print("  ", r[0].ljust(widths[0]), *(c.rjust(w + 2) for c, w in zip(r[1:], widths[1:], strict=True)))
    sys.stdout.flush()


def lockstep(
    config: Config,
    rounds: int = ROUNDS,
    steps: int = STEPS,
    plain_steps: int = PLAIN_STEPS,
    memory_sizes: tuple[int, ...] = (1, 28, 35),
) -> None:
    """Print all tables."""
    specs = _in_child(cohort_specs, config)  # which packs the embedded images at first use
    print(
        f"{config.dataset.name}, network {config.network.name}, batches of {config.recipe.batch_size}, "
        f"{config.recipe.precision}. Training steps only, no validation.\nMedians of {rounds} rounds in which the ways "
        "to train took turns. Only the ratios carry over to another machine,\nnetwork-images/s do not."
    )
    with tempfile.TemporaryDirectory() as name:
        files = _in_child(export_images, config, specs, Path(name))
        print_memory(config, specs, Path(name), memory_sizes)
        print_speed(config, len(specs), files, measure(config, specs, Path(name), rounds, steps, plain_steps))


if __name__ == "__main__":
    command(lockstep)()
