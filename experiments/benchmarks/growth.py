"""What training costs as a study grows: the cost model, measured against multiply-adds,
and larger studies.

python -m experiments.benchmarks.growth          on the embedded images; minutes on two cores

Time and memory against the layers that are frozen, the size of images, classes, and images in the
dataset (against the cells of a cohort: ``experiments.benchmarks.lockstep``), as ratios within this
one run; then the hours of studies of CaffeNet on ImageNet for rates that a GPU might sustain. Only
temporary files are written.

Settings used most:
network=NAME recipe=NAME    what is trained
threads=N                   networks that train at the same moment
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does without
    raise SystemExit(run_module(__spec__.name))

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hydra import compose

from experiments.benchmarks.timing import (
    spread,
    step_seconds,
    table,
    taking_turns,
    untrained_cohort,
)
from experiments.cost import Cost, schedule
from experiments.plan import UnpackedImagenet
from transferability.console import pluralize
from transferability.data.config import DatasetConfig
from transferability.data.pack import pack
from transferability.data.packed import PackedDataset
from transferability.runs.store import Store
from transferability.study import cells
from transferability.study.config import Config, load
from transferability.study.expand import study_specs
from transferability.study.jobs import group_into_jobs, with_bases
from transferability.study.spec import RunSpec, make_spec
from transferability.training.execution import execution_of
from transferability.training.loader import TaskLoader
from transferability.training.loop import Execution

ROUNDS, STEPS = 3, 8
PATCHES = (2, 4, 8)  # pixels a side of a terminal: images of 16, 32 and 64 pixels
OUTPUTS = (20, 100, 1000, 10000)  # at least the classes of a task
IMAGES = (30, 120, 480)  # a class
SUSTAINED = (100, 170, 250)  # TFLOP/s
STUDIES = {"paper": [0], "paper-complete": [0, 1, 2]}
DEVICES = (1, 8, 64)


def dataset_of(
    folder: Path, config: Config, patch: int, images: int
) -> tuple[DatasetConfig, PackedDataset]:
    """Embedded images with terminals of ``patch`` pixels and ``images`` training images a class."""
    grammar = replace(config.dataset.grammar, patch=patch, train_per_class=images, val_per_class=2)
    side, where = patch * 2**grammar.levels, str(folder / f"{patch}-{images}")
    data = replace(config.dataset, folder=where, image_size=side, grammar=grammar)
    return data, pack(data)


def specs_of(config: Config, dataset: PackedDataset, names: list[str]) -> list[RunSpec]:
    recipe = replace(config.recipe, steps=10**9, eval_every=10**9)
    chosen = [cells.parse(name, config.network.n_layers) for name in names]
    return [make_spec(cell, "random-0", dataset, config.network, recipe, 0) for cell in chosen]


def measured(
    variants: dict[str, tuple[Config, list[str]]], rounds: int, steps: int
) -> dict[str, list[float]]:
    """Seconds a step of each variant's cohort, a number a round, the variants taking turns."""

    def way(config: Config, names: list[str]) -> Callable[[int], float]:
        cohort = untrained_cohort(config, specs_of(config, pack(config.dataset), names))
        return lambda _: step_seconds([cohort], execution_of(config), steps)

    return taking_turns({what: way(*variant) for what, variant in variants.items()}, rounds)


def print_growth(
    title: str, variants: dict[str, tuple[Config, list[str]]], rounds: int, steps: int
) -> None:
    """Time of each variant, predicted by multiply-adds and measured, and memory;
    the first variant = 1.
    """
    seconds, rows, first = measured(variants, rounds, steps), [], next(iter(variants))
    predicted, memory = {}, {}
    with tempfile.TemporaryDirectory() as name:
        for what, (config, names) in variants.items():
            dataset = pack(config.dataset)
            cost = Cost(Store(name), dataset, execution_of(config))
            # One step of training, no validation.
            specs = [
                replace(s, recipe=replace(s.recipe, steps=1))
                for s in specs_of(config, dataset, names)
            ]
            predicted[what], memory[what] = cost.macs(specs), cost.memory(specs)
    for what in variants:
        rows.append(
            [
                what,
                f"{predicted[what] / predicted[first]:.2f}",
                spread(seconds[what], seconds[first]),
                f"{memory[what] / 2**20:.1f}",
            ]
        )
    table(title, ["", "multiply-adds", "time (min to max)", "MiB (planned)"], rows)


def print_start(config: Config, folder: Path, rounds: int, images: tuple[int, ...]) -> None:
    """What the number of images costs: opening the dataset and the mean image,
    before the first step.
    """
    rows = []
    for count in images:
        data, _ = dataset_of(folder, config, 4, count)
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            dataset = PackedDataset(Path(data.folder))
            stream = TaskLoader(dataset, list(range(len(dataset.classes))), None, 0, config.recipe,
                            config.network.input_size, execution_of(config).device)  # fmt: skip
            assert stream.mean_image.shape == dataset.images.shape[1:]
            seconds.append(time.perf_counter() - began)
        each = statistics.median(seconds) / dataset.n_train
        rows.append(
            [f"{dataset.n_train:,}", f"{1e3 * statistics.median(seconds):.1f}", f"{1e6 * each:.2f}"]
        )
    table(
        "4. Images in the dataset: the start of a job (opening, mean image), images of "
        f"{dataset.image_size} pixels.",
        ["training images", "ms", "microseconds an image"],
        rows,
    )


def print_studies() -> None:
    """Hours of large studies, if a GPU sustains so much; jobs are given to devices, bases first."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for study, seeds in STUDIES.items():
            overrides = [
                "dataset=imagenet",
                "network=caffenet",
                "recipe=paper",
                f"study.seeds={seeds}",
            ]
            config = load(compose("config", [f"study={study}", *overrides]))
            imagenet = UnpackedImagenet("imagenet", 256)
            works = group_into_jobs(with_bases(study_specs(config, imagenet)))
            cost = Cost(Store(name), imagenet, Execution(execution_of(config).device))
            operations = [2 * cost.macs(job) for job in works]
            networks = sum(map(len, works))
            for rate in SUSTAINED:
                seconds = [o / (rate * 1e12) for o in operations]
                hours = [f"{schedule(works, seconds, k) / 3600:.1f}" for k in DEVICES]
                what = f"{study}, {pluralize(len(seeds), 'seed')}"
                rows.append(
                    [
                        what,
                        str(networks),
                        str(len(works)),
                        f"{sum(operations):.2e}",
                        str(rate),
                        *hours,
                    ]
                )
    table(
        "5. CaffeNet on ImageNet, the original's steps: hours on so many GPUs if each sustains so "
        "much (assumed, not\n"
        "   measured: make bench-gpu), a job each at a time.",
        [
            "study",
            "networks",
            "jobs",
            "operations",
            "TFLOP/s",
            *(pluralize(k, "GPU") for k in DEVICES),
        ],
        rows,
    )


def main(
    config: Config,
    rounds: int = ROUNDS,
    steps: int = STEPS,
    patches: tuple[int, ...] = PATCHES,
    outputs: tuple[int, ...] = OUTPUTS,
    images: tuple[int, ...] = IMAGES,
) -> None:
    """Print all tables."""
    n_layers = config.network.n_layers
    whole = [
        "baseB",
        *(name for n, name in ((2, "B2B+"), (3, "A3B+"), (4, "A4B+")) if n < n_layers),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def variant(patch: int = 4, **network) -> Config:
            data, _ = dataset_of(folder, config, patch, images[0])
            network = {"input_size": data.image_size, **network}
            return replace(config, dataset=data, network=replace(config.network, **network))

        print(
            f"{execution_of(config).device}, network {config.network.name}, batches of "
            f"{config.recipe.batch_size}. Medians of {rounds} rounds in which the "
            "variants took turns."
        )
        frozen = {"none": ["baseB", "A1B+"]}
        frozen |= {f"{n} layers": [f"A{n}B", f"B{n}B"] for n in range(1, n_layers)}
        print_growth(
            "1. Frozen layers: two networks (AnB, BnB) with so many, "
            "each with a prefix of its own; none = 1.",
            {what: (variant(), names) for what, names in frozen.items()},
            rounds,
            steps,
        )
        print_growth(
            f"2. Pixels a side of the images: {len(whole)} networks trained whole; the first = 1.",
            {f"{p * 8} pixels": (variant(p), whole) for p in patches},
            rounds,
            steps,
        )
        print_growth(
            f"3. Classes: {len(whole)} networks trained whole; the first = 1.",
            {f"{k:,} classes": (variant(outputs=k), whole) for k in outputs},
            rounds,
            steps,
        )
        print_start(config, folder, rounds, images)
    print_studies()
