"""How fast lockstep training is, against the other ways to train the same networks.

python -m experiments.bench                            the embedded images, the configured network and recipe
python -m experiments.bench dataset=tiny_imagenet recipe=tiny_imagenet dataset.source=PATH_TO_ZIP_OR_FOLDER

Training steps only, no validation, no checkpoints. Every comparison is a ratio measured in this one run, the
contestants taking turns; absolute speeds belong to the machine and its load. Nothing is written but temporary files.
"""

import copy
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

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
from transferability.cohort import Cohort, Execution, Member, train
from transferability.config import Config, NetworkConfig
from transferability.datasets import PackedDataset
from transferability.runner import execution_of, make_cohorts, with_sources
from transferability.sources import FileTree
from transferability.spec import make_spec
from transferability.store import Store

ROUNDS, STEPS, PLAIN_STEPS = 4, 4, 10  # rounds of taking turns; timed steps of a network in each
SIZES = (2, 4, 7, 14, 28)  # of the growing cohort
FILES_PER_CLASS = 100  # image files that the plain script reads, at most
WORKERS = 2  # of the plain script's DataLoader


def untrained_cohort(config: Config) -> tuple[Cohort, Execution]:
    """All cells of one target task (BnB, BnB+, AnB, AnB+ and RnB for every n), their bases untrained.

    The speed of a step does not depend on the values of the weights. The recipe never ends and never validates.
    """
    dataset, execution = dataset_of(config), execution_of(config)
    layers, target = list(range(1, config.network.n_layers)), config.target or "B"
    recipe = replace(config.recipe, steps=10**9, eval_every=10**9)
    specs = [
        make_spec(cell, config.split or "random-0", dataset, config.network, recipe, config.seed or 0)
        for treatment in ("BnB", "BnB+", "AnB", "AnB+", "RnB")
        for cell in cells.expand(treatment, target, layers, config.network.n_layers)
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for base in make_cohorts([s for s in with_sources(specs) if s.cell.is_base], store, dataset, execution):
            for member in base.members:
                store.claim(member.spec).release()
                store.finish(member.spec, member.network.state_dict(), [], {})
        (cohort,) = make_cohorts(specs, store, dataset, execution)
    return cohort, execution


class _EnoughError(Exception):
    """Ends a training that would go on."""


def step_seconds(cohorts: list[Cohort], execution: Execution, steps: int) -> float:
    """Seconds of one lockstep training step of ``cohorts`` (the real ``cohort.train``), after a step to warm up."""
    ticks = []

    def on_step(step: int, active: list[Member]) -> None:
        ticks.append(_now(execution.device))
        if len(ticks) > steps:
            raise _EnoughError

    for member in (m for c in cohorts for m in c.members):
        member.step = 0
    with suppress(_EnoughError):
        train(cohorts, execution, lambda member: None, on_step)
    return (ticks[-1] - ticks[0]) / steps


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# The plain script: what one would write to train one network with torch and torchvision, without this project.


def plain_network(config: NetworkConfig, outputs: int) -> nn.Sequential:
    """The same 8 layers as ``network.Network``, in the order of the paper: convolution, ReLU, pool."""
    layers, channels = [], 3
    for i, out in enumerate(config.channels):
        kernel, stride, padding = config.kernels[i], config.strides[i], config.paddings[i]
        parts = [nn.Conv2d(channels, out, kernel, stride, padding, groups=config.groups[i])]
        parts += [nn.BatchNorm2d(out)] * (config.normalisation == "batch")
        parts += [nn.ReLU(inplace=True)]
        if i + 1 in config.pools:
            parts += [nn.MaxPool2d(3, 2, ceil_mode=True)]
            parts += [nn.LocalResponseNorm(5)] * (config.normalisation == "lrn" and i < 2)
        layers.append(nn.Sequential(*parts))
        channels = out
    features = nn.Sequential(*layers)(torch.zeros(1, 3, config.input_size, config.input_size)).numel()
    for i, out in enumerate([*config.hidden, outputs]):
        parts = [nn.Dropout(config.dropout) if i else nn.Flatten(), nn.Linear(features, out)]
        if i < len(config.hidden):
            parts += [nn.BatchNorm1d(out)] * (config.normalisation == "batch")
            parts += [nn.ReLU(inplace=True)]
        layers.append(nn.Sequential(*parts))
        features = out
    return nn.Sequential(*layers)


def plain_batches(folder: Path, config: Config, mean: np.ndarray) -> Iterator[list[Tensor]]:
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
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )
    while True:
        yield from loader


def plain_training(
    batches: Iterator, frozen: int, outputs: int, config: Config, device: torch.device, steps: int
) -> float:
    """Train one network with its first ``frozen`` layers fixed; seconds a step.

    Not counted: building it, and as many steps as the workers have batches ready when it starts.
    """
    recipe, ready = config.recipe, 2 * WORKERS
    network = plain_network(config.network, outputs).to(device, memory_format=torch.channels_last)
    network[:frozen].requires_grad_(False)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(
        trained, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )
    for step in range(ready + steps):
        if step == ready:
            began = _now(device)
        images, labels = next(batches)
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = F.cross_entropy(network(images), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return (_now(device) - began) / steps


def export_images(config: Config, dataset: PackedDataset, classes: tuple[int, ...], folder: Path) -> str:
    """Fill an ImageFolder with training images of ``classes``; returns what they are.

    Tiny-ImageNet's own JPEG files where ``dataset.source`` is given, else the packed images as PNG files.
    """
    if config.dataset.kind == "tiny_imagenet" and config.dataset.source:
        tree = FileTree(config.dataset.source)
        root = tree.find("wnids.txt")
        for c in classes:
            wnid = dataset.classes[c].wnid
            (folder / wnid).mkdir()
            for name in tree.images(f"{root}train/{wnid}/")[:FILES_PER_CLASS]:
                (folder / wnid / Path(name).name).write_bytes(tree.read(name))
        return "the original JPEG files"
    for c in classes:
        (folder / f"{c:04d}").mkdir()
        for row in dataset.train_rows([c])[:FILES_PER_CLASS]:
            Image.fromarray(dataset.images[row]).save(folder / f"{c:04d}" / f"{row}.png")
    return "the packed images as PNG files"


# The questions.


def speed(config: Config, folder: Path, files: str, rounds: int, steps: int, plain_steps: int) -> None:
    """Print questions 1 to 3: lockstep against itself one by one, a plain script, and smaller cohorts."""
    torch_threads = torch.get_num_threads()
    cohort, execution = untrained_cohort(config)
    stream, members, threads = cohort.stream, cohort.members, execution.threads
    outputs, batch = members[0].spec.network.outputs, config.recipe.batch_size
    by_cost = sorted(members, key=lambda m: m.network.frozen)
    four = [m for m in members if m.spec.cell.treatment != "RnB"]
    shuffled = [four[i] for i in np.random.default_rng(0).permutation(len(four))]
    sizes = [size for size in SIZES if size <= len(four)]
    plain_counts = Counter(m.network.frozen for m in members)

    def one_by_one(some: list[Member]) -> float:
        return sum(step_seconds([Cohort(stream, [m])], execution, steps) for m in some)

    def side_by_side(some: list[Member]) -> float:
        groups = [some[i : i + threads] for i in range(0, len(some), threads)]
        return sum(
            step_seconds([Cohort(copy.copy(stream), [m]) for m in g], execution, steps) for g in groups
        )

    def in_cohorts(some: list[Member], size: int) -> float:
        groups = [some[i : i + size] for i in range(0, len(some), size)]
        return sum(step_seconds([Cohort(stream, g)], execution, steps) for g in groups)

    def plain(batches: Iterator) -> float:
        torch.set_num_threads(torch_threads)  # lockstep's threads ask for one thread each
        args = outputs, config, execution.device, plain_steps
        return sum(n * plain_training(batches, frozen, *args) for frozen, n in plain_counts.items())

    names = ["lockstep", "one", "side", "plain", "four one", *sizes]
    times = {name: [] for name in names}
    channel_mean = stream.mean_image.mean(axis=(0, 1))
    with closing(plain_batches(folder, config, channel_mean)) as batches:
        next(batches)  # the workers start before any thread does
        for _ in range(rounds):
            times["lockstep"].append(in_cohorts(members, len(members)))
            times["plain"].append(plain(batches))
            rest = [m for m in by_cost if m not in four]
            times["four one"].append(one_by_one(four))
            times["one"].append(times["four one"][-1] + one_by_one(rest))
            times["side"].append(side_by_side(by_cost))
            for size in sizes:
                times[size].append(in_cohorts(shuffled, size))

    def row(what: str, name: str | int, unit: str | int, networks: int) -> list[str]:
        ratios = [a / b for a, b in zip(times[name], times[unit], strict=True)]
        rate = networks * batch / statistics.median(times[name])
        return [what, _spread(ratios), f"{rate:,.0f}"]

    n, cores = len(members), f"{threads} thread{'s' * (threads > 1)}"
    header = ["", "time (min-max)", "network-images/s"]
    _table(
        f"1. Lockstep against the same code without it. The {n} networks of one target task (BnB, BnB+, AnB, AnB+,\n"
        f"   RnB for n = 1..{config.network.n_layers - 1}), {batch} images a step; time to bring all of them one step "
        "further, lockstep = 1.",
        header,
        [
            row(f"lockstep: one cohort of {n}, {cores}", "lockstep", "lockstep", n),
            row("one network after the other, each a cohort of one (one thread)", "one", "lockstep", n),
            row(f"{threads} networks at a time, each with its own stream ({cores})", "side", "lockstep", n),
        ],
    )
    _table(
        f"2. Lockstep against a plain script: ImageFolder over {files}, torchvision transforms, DataLoader with\n"
        f"   {WORKERS} workers, the same layers, requires_grad_(False) below n, SGD, one network at a time on\n"
        f"   {torch_threads} torch threads. Networks that freeze equally many layers cost it the same and are timed\n"
        f"   once, counted as often as they occur among the {n}. Time to bring all one step further, lockstep = 1.",
        header,
        [
            row(f"lockstep: one cohort of {n}, {cores}", "lockstep", "lockstep", n),
            row("plain script", "plain", "lockstep", n),
        ],
    )
    _table(
        f"3. Cost of a network as its cohort grows. The same {len(four)} networks (BnB, BnB+, AnB, AnB+), in a random\n"
        "   order, cut into cohorts of each size that train one after the other; so every size trains the same\n"
        f"   mix. Time a network-image, cohorts of one = 1. A cohort of one uses one of {cores}.",
        header,
        [row("cohorts of 1", "four one", "four one", len(four))]
        + [row(f"cohorts of {size}", size, "four one", len(four)) for size in sizes],
    )


def memory(config: Config, folder: Path, sizes: tuple[int, ...], steps: int) -> None:
    """Print question 4, each row measured in a child process of its own."""
    rows = []
    for size in sizes:
        what = f"lockstep, a cohort of {size}"
        rows.append([what, f"{_in_child(cohort_peak, config, size, steps):,.0f}", ""])
    own, worker = _in_child(plain_peak, config, folder, steps)
    rows.append(["plain script, one network", f"{own:,.0f}", f"{worker:,.0f}"])
    _table(
        "4. Peak memory of training, MiB resident (Python and torch included).",
        ["", "process", f"each of {WORKERS} workers (pages shared with it included)"],
        rows,
    )


def cohort_peak(config: Config, size: int, steps: int) -> float:
    """Peak resident MiB of this process after training a cohort of ``size`` for a few steps."""
    cohort, execution = untrained_cohort(config)
    chosen = cohort.members[:: max(1, len(cohort.members) // size)][:size]
    del cohort.members
    step_seconds([Cohort(cohort.stream, chosen)], execution, steps)
    return _peak(resource.RUSAGE_SELF)


def plain_peak(config: Config, folder: Path, steps: int) -> tuple[float, float]:
    """Peak resident MiB of this process after a few steps of the plain script, and of its largest worker."""
    device = execution_of(config).device
    with closing(plain_batches(folder, config, np.zeros(3))) as batches:
        plain_training(batches, 0, len(list(folder.iterdir())), config, device, steps)
    return _peak(resource.RUSAGE_SELF), _peak(resource.RUSAGE_CHILDREN)


def _in_child(function, *args):
    """``function(*args)`` in a fresh process, which ends afterwards."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        return child.submit(function, *args).result()


def _peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _table(title: str, header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}\n")
    for r in [header, *rows]:
        print("   " + r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:], strict=True)), sep="  ")


def bench(
    config: Config, rounds: int = ROUNDS, steps: int = STEPS, plain_steps: int = PLAIN_STEPS, sizes: tuple = (1, 28, 35)
) -> None:
    """Print the four tables."""
    dataset = dataset_of(config)
    classes = make_spec(cells.Cell(config.target or "B"), config.split or "random-0", dataset, config.network, config.recipe, 0).classes
    print(f"{dataset.name}, network {config.network.name}, recipe {config.recipe.name}, batches of {config.recipe.batch_size}; training")
    with tempfile.TemporaryDirectory() as folder:
        files = export_images(config, dataset, classes, Path(folder))
        memory(config, Path(folder), sizes, steps)
        speed(config, Path(folder), files, rounds, steps, plain_steps)


if __name__ == "__main__":
    command(bench)()
