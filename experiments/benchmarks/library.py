"""How fast networks of a library are fine-tuned here, compared with a script as in tutorials.

python -m experiments.benchmarks.library                      generated images
python -m experiments.benchmarks.library dataset=folder dataset.name=flowers dataset.source=PATH

Always on a CPU. For each of two networks, 24 cells (BnB, AnB and AnB+ at eight depths) train for
one step: in lockstep, and one after the other by a script that trains the library's own network
with ``requires_grad_(False)`` on the lowest layers, on photographs that a DataLoader decodes. Every
comparison is a ratio measured in this one run, the variants taking turns. Weights are random: the
time of a step does not depend on them. Only temporary files are written.

Settings used most:
dataset=folder dataset.name=NAME dataset.source=PATH    photographs (default: generated)
threads=N                                               networks that train at the same moment
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

import statistics
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from experiments.benchmarks.timing import (
    now,
    spread,
    step_seconds,
    table,
    taking_turns,
    untrained_cohort,
)
from transferability.data.config import DatasetConfig
from transferability.data.pack import pack
from transferability.data.readers import read_dataset
from transferability.networks import KINDS
from transferability.networks.sequential import profile_layers
from transferability.networks.zoo.config import ZooNetworkConfig
from transferability.study.cells import parse
from transferability.study.config import Config
from transferability.study.spec import RunSpec, make_spec
from transferability.training.execution import execution_of
from transferability.training.loop import Cohort

NETWORKS = (("torchvision", "resnet18", 64), ("timm", "tf_efficientnet_lite0", 128))
DEPTHS = 8
ROUNDS, STEPS, BATCH = 3, 1, 32
CPU = torch.device("cpu")
WORKERS = 2  # of the DataLoader
PER_CLASS = 40  # photographs
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the tutorials'


def write_photographs(config: Config, folder: Path) -> str:
    """Fill an ImageFolder with photographs as JPEG files; return their description.

    They are training images of the dataset if its kind is folder, else blurred noise, 500x375.
    """
    if config.dataset.kind == "folder":
        source = read_dataset(config.dataset)
        for label, c in enumerate(source.classes):
            own = [item for item in source.train if item.label == label][:PER_CLASS]
            _write(folder / c.name, [item.load() for item in own])
        return f"photographs of {config.dataset.name}"
    draw = np.random.default_rng(0)
    for name in "abcd":
        small = draw.integers(0, 256, (PER_CLASS, 47, 63, 3), dtype=np.uint8)
        _write(folder / name, [cv2.resize(image, (500, 375)) for image in small])
    return "blurred noise, 500x375"


def _write(folder: Path, images: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.jpg"), image[..., ::-1])


def specs_of(config: Config) -> list[RunSpec]:
    """BnB, AnB and AnB+ at up to DEPTHS depths, evenly spaced from the lowest to the highest."""
    network, recipe = config.network, replace(config.recipe, steps=10**9, eval_every=10**9)
    top = network.n_layers - 1
    depths = sorted({round(n) for n in np.linspace(1, top, min(DEPTHS, top))})
    return [
        make_spec(parse(text.format(n)), "random-0", pack(config.dataset), network, recipe, 0)
        for text in ("B{}B", "A{}B", "A{}B+")
        for n in depths
    ]


def batches_of(folder: Path, size: int) -> Generator[tuple[Tensor, Tensor]]:
    """Endless batches of an ImageFolder, augmented as in tutorials of fine-tuning."""
    steps = [
        transforms.RandomResizedCrop(size),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    loader = DataLoader(
        ImageFolder(folder, transforms.Compose(steps)),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    while True:
        yield from loader


def plain_seconds(batches: Iterator, network: ZooNetworkConfig, frozen: int, steps: int) -> float:
    """Seconds per step of one network with its lowest ``frozen`` layers frozen."""
    model = network.build().train()
    fixed = {name for line in network.plan[:frozen] for name in line.split()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in fixed)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.001, momentum=0.9)
    for step in range(1 + steps):
        if step == 1:
            began = now(CPU)
        images, labels = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return (now(CPU) - began) / steps


def measure(config: Config, files: Path, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds for one step of all networks, one number per round: in ``lockstep``, by a ``plain``
    script with torch's default number of threads, and with one thread (``plain 1``).
    """
    execution, specs, threads = execution_of(config), specs_of(config), torch.get_num_threads()
    cohort = untrained_cohort(config, specs)
    own = cast(ZooNetworkConfig, specs[0].network)
    network = replace(own, outputs=len(list(files.iterdir())))
    frozen = [spec.cell.frozen for spec in specs]

    def plain(number: int) -> float:
        torch.set_num_threads(number)
        # A step takes as long for all networks with as many frozen layers: each kind is timed once.
        return sum(
            frozen.count(n) * plain_seconds(batches, network, n, steps) for n in sorted(set(frozen))
        )

    ways = {
        "lockstep": lambda _: step_seconds(
            [Cohort(cohort.stream, cohort.states)], execution, steps
        ),
        "plain": lambda _: plain(threads),
        "plain 1": lambda _: plain(1),
    }
    with closing(batches_of(files, network.input_size)) as batches:
        next(batches)  # the workers start before any thread does
        times = taking_turns(ways, rounds)
    torch.set_num_threads(threads)
    return times


def main(
    config: Config, networks: tuple = NETWORKS, rounds: int = ROUNDS, steps: int = STEPS
) -> None:
    """Print a table for each network."""
    with tempfile.TemporaryDirectory() as name:
        what = write_photographs(config, Path(name) / "train")
        for kind, model, size in networks:
            settings = {"name": model, "kind": kind, "model": model, "input_size": size}
            own = replace(
                config,
                device="cpu",
                network=KINDS[kind](**settings, input_scale=0.017),
                dataset=_packed(Path(name), size),
                recipe=replace(config.recipe, batch_size=BATCH),
            )
            print_times(own, what, measure(own, Path(name) / "train", rounds, steps))


def _packed(folder: Path, size: int) -> DatasetConfig:
    return DatasetConfig(
        kind="folder",
        name=f"photographs-{size}",
        folder=str(folder / f"packed-{size}"),
        source=str(folder / "train"),
        parts={},
        image_size=round(size * 9 / 8),
        fit="crop",
    )


def saved(specs: list[RunSpec]) -> float:
    """The multiply-adds of a step by the script over those in lockstep, which computes each prefix
    once: the gain of sharing layers alone.
    """
    costs = [layer.macs for layer in profile_layers(specs[0].network)]
    whole, shared, prefixes = 0, 0, dict[str | None, int]()
    for spec in specs:
        n = spec.cell.frozen
        whole += sum(costs) + 2 * sum(costs[n:])
        shared += 3 * sum(costs[n:])
        prefixes[spec.cell.source] = max(prefixes.get(spec.cell.source, 0), sum(costs[:n]))
    return whole / (shared + sum(prefixes.values()))


def print_times(config: Config, what: str, times: dict[str, list[float]]) -> None:
    network, networks = config.network, 3 * DEPTHS

    def row(words: str, way: str) -> list[str]:
        rate = networks * BATCH / statistics.median(times[way])
        return [words, spread(times[way], times["lockstep"]), f"{rate:,.0f}"]

    table(
        f"{network.name} at {network.input_size} pixels: {networks} networks (BnB, AnB, AnB+ at "
        f"{DEPTHS} depths) one step of {BATCH} images further.\n"
        f"   Images: {what}. The script: ImageFolder, RandomResizedCrop, a DataLoader\n"
        f"   with {WORKERS} workers, requires_grad_(False) on the lowest n layers, SGD, one\n"
        f"   network after the other: {saved(specs_of(config)):.2f} times the multiply-adds. Time, "
        "lockstep = 1.",
        ["", "time (min to max)", "network-images/s"],
        [
            row(f"lockstep, {execution_of(config).threads} networks at a time", "lockstep"),
            row(f"the script, torch's own number of threads ({torch.get_num_threads()})", "plain"),
            row("the script, told to use one torch thread", "plain 1"),
        ],
    )
