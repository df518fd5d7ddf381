"""How fast lockstep training is, compared with other ways of training the same networks.

python -m experiments.benchmarks.lockstep                  the synthetic images,
                                                           the configured network and recipe
python -m experiments.benchmarks.lockstep dataset=tiny_imagenet recipe=tiny_imagenet
    dataset.source=ZIP_OR_FOLDER

Training steps only, no validation, no checkpoints. Every comparison is a ratio measured in this one
run, the variants taking turns; absolute speeds depend on the machine and its load. Only temporary
files are written.

Settings used most:
dataset=KIND dataset.source=PATH    the images (default: the synthetic ones)
network=NAME recipe=NAME            what is trained
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

import copy
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from experiments.benchmarks.memory import in_child, print_memory
from experiments.benchmarks.plain_script import (
    WORKERS,
    export_images,
    plain_batches,
    plain_training,
)
from experiments.benchmarks.timing import (
    spread,
    step_seconds,
    table,
    taking_turns,
    untrained_cohort,
)
from transferability.data.packed import dataset_of
from transferability.study import cells
from transferability.study.config import Config
from transferability.study.spec import RunSpec, make_spec
from transferability.training.execution import execution_of
from transferability.training.loop import Cohort
from transferability.training.state import TrainState

RATES = (0.25, 0.5, 1.0, 2.0)  # factors on the recipe's learning rate
ROUNDS, STEPS, PLAIN_STEPS = 4, 4, 6  # rounds; timed steps of a network per round


def cohort_specs(config: Config) -> list[RunSpec]:
    """BnB, BnB+, AnB, AnB+ and RnB of one target task for every n; their steps are unlimited."""
    dataset, layers = dataset_of(config.dataset), list(range(1, config.network.n_layers))
    recipe = replace(config.recipe, steps=10**9, eval_every=10**9)
    return [
        make_spec(
            cell, config.split or "random-0", dataset, config.network, recipe, config.seed or 0
        )
        for treatment in ("BnB", "BnB+", "AnB", "AnB+", "RnB")
        for cell in cells.expand(treatment, config.target or "B", layers, config.network.n_layers)
    ]


def cohort_sizes(config: Config) -> list[int]:
    """The sizes of the growing cohort; the largest holds all cells but RnB."""
    n = config.network.n_layers - 1
    return sorted({1, 2, 4, n, 2 * n, 4 * n})


def measure(
    config: Config, specs: list[RunSpec], folder: Path, rounds: int, steps: int, plain_steps: int
) -> dict[str, list[float]]:
    """Seconds for one step of all networks of ``specs``: for each way, one number per round.

    ``lockstep``, ``one`` by one, ``side`` by side, ``plain`` and ``plain 1`` (on one torch thread)
    train all networks; ``four N`` trains all but RnB, in cohorts of N networks.
    """
    torch_threads, execution = torch.get_num_threads(), execution_of(config)
    cohort = untrained_cohort(config, specs)
    states, outputs = cohort.states, cohort.states[0].spec.network.n_outputs
    by_cost = sorted(states, key=lambda m: m.network.frozen)
    four = [m for m in states if m.spec.cell.treatment != "RnB"]
    four = [four[i] for i in np.random.default_rng(0).permutation(len(four))]
    random_filters = [m for m in states if m.spec.cell.treatment == "RnB"]

    def in_cohorts(some: list[TrainState], size: int) -> float:
        groups = [some[i : i + size] for i in range(0, len(some), size)]
        return sum(step_seconds([Cohort(cohort.stream, g)], execution, steps) for g in groups)

    def side_by_side() -> float:
        at_once = execution.threads
        groups = [by_cost[i : i + at_once] for i in range(0, len(by_cost), at_once)]
        own_stream = [[Cohort(copy.copy(cohort.stream), [m]) for m in g] for g in groups]
        return sum(step_seconds(cohorts, execution, steps) for cohorts in own_stream)

    def plain(threads: int) -> float:
        torch.set_num_threads(threads)
        shared = outputs, config, execution.device
        # uses up the batches that the workers prepared while they waited
        plain_training(batches, 0, *shared, 2 * WORKERS)
        # The plain script takes as long for all networks with as many frozen layers: each kind
        # is timed once.
        kinds = Counter(m.network.frozen for m in states)
        return sum(
            n * plain_training(batches, frozen, *shared, plain_steps) for frozen, n in kinds.items()
        )

    ways: dict[str, Callable[[int], float]] = {
        "lockstep": lambda _: in_cohorts(states, len(states)),
        "plain": lambda _: plain(torch_threads),
        "plain 1": lambda _: plain(1),
        "four 1": lambda _: in_cohorts(four, 1),
        "side": lambda _: side_by_side(),
        "random 1": lambda _: in_cohorts(random_filters, 1),
    }
    for size in cohort_sizes(config)[1:]:
        ways[f"four {size}"] = partial(lambda size, _: in_cohorts(four, size), size)
    with closing(
        plain_batches(folder, config, cohort.stream.mean_image.mean(axis=(0, 1)))
    ) as batches:
        next(batches)  # the workers start before any thread does
        times = taking_turns(ways, rounds)
    torch.set_num_threads(torch_threads)
    times["one"] = [a + b for a, b in zip(times["four 1"], times["random 1"], strict=True)]
    return times


def print_speed(config: Config, n: int, files: str, times: dict[str, list[float]]) -> None:
    """Print tables 1 to 3: ``times`` of :func:`measure` for ``n`` networks as ratios."""
    threads, torch_threads = execution_of(config).threads, torch.get_num_threads()
    four = n * 4 // 5

    def row(what: str, way: str, unit: str = "lockstep", networks: int = n) -> list[str]:
        rate = networks * config.recipe.batch_size / statistics.median(times[way])
        return [what, spread(times[way], times[unit]), f"{rate:,.0f}"]

    header = ["", "time (min to max)", "network-images/s"]
    lockstep = row(f"lockstep: one cohort, {threads} networks at a time", "lockstep")
    table(
        f"1. Lockstep against the same code without it: bringing the {n} networks of one target "
        "task (BnB, BnB+,\n"
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
        f"   a DataLoader with {WORKERS} workers, the same layers, requires_grad_(False) on the "
        "lowest n, SGD, one\n"
        f"   network after the other. The same {n} networks, one training step further. "
        "Time, lockstep = 1.",
        header,
        [
            lockstep,
            row(f"plain script, torch's own number of threads ({torch_threads})", "plain"),
            row("plain script, told to use one torch thread", "plain 1"),
        ],
    )
    table(
        f"3. The cost of a network as its cohort grows. The same {four} networks (BnB, BnB+, AnB, "
        "AnB+), in a random\n"
        "   order cut into cohorts of each size that train one after the other: every line trains "
        "the same mix.\n"
        "   Time a network-image, cohorts of 1 = 1. "
        f"A cohort of 1 keeps one core busy, larger ones {threads}.",
        header,
        [row(f"cohorts of {k}", f"four {k}", "four 1", four) for k in cohort_sizes(config)],
    )


def print_sweep(config: Config, specs: list[RunSpec], rounds: int, steps: int) -> None:
    """Print table 5: the gain of training a sweep over learning rates as one cohort."""
    execution, top = execution_of(config), config.network.n_layers - 1
    low = max(1, top - 2)
    kinds = {
        "BnB, BnB+, AnB, AnB+, every n": (("BnB", "BnB+", "AnB", "AnB+"), 1),
        f"BnB and AnB, n = {low}..{top}": (("BnB", "AnB"), low),
    }
    rows = []
    for what, (treatments, least) in kinds.items():
        own = [s for s in specs if s.cell.treatment in treatments and s.cell.n >= least]
        swept = [
            replace(s, recipe=replace(s.recipe, lr=factor * s.recipe.lr))
            for factor in RATES
            for s in own
        ]
        cohort = untrained_cohort(config, swept)

        def apart(_: int, cohort: Cohort = cohort, size: int = len(own)) -> float:
            parts = [cohort.states[i : i + size] for i in range(0, len(cohort.states), size)]
            return sum(step_seconds([Cohort(cohort.stream, p)], execution, steps) for p in parts)

        def together(_: int, cohort: Cohort = cohort) -> float:
            return step_seconds([cohort], execution, steps)

        times = taking_turns({"together": together, "apart": apart}, rounds)
        rows.append([what, str(len(own)), spread(times["apart"], times["together"])])
    table(
        f"5. A sweep over {len(RATES)} learning rates (study.rates): a cohort for each rate, "
        "against one\n   cohort of all. Time of one training step of all networks, one cohort = 1.",
        ["", "networks a rate", "a cohort for each rate (min to max)"],
        rows,
    )


def main(
    config: Config,
    rounds: int = ROUNDS,
    steps: int = STEPS,
    plain_steps: int = PLAIN_STEPS,
    memory_sizes: tuple[int, ...] | None = None,
) -> None:
    """Print all tables."""
    specs = in_child(cohort_specs, config)  # also packs the synthetic images at first use
    if memory_sizes is None:
        memory_sizes = (1, cohort_sizes(config)[-1], len(specs))
    print(
        f"{config.dataset.name}, network {config.network.name}, batches of "
        f"{config.recipe.batch_size}, {config.recipe.precision}. Training steps only, no "
        f"validation.\nMedians of {rounds} rounds in which the variants took turns. Only the "
        "ratios carry over to another machine,\nnetwork-images/s do not."
    )
    with tempfile.TemporaryDirectory() as name:
        files = in_child(export_images, config, specs, Path(name))
        print_memory(config, specs, Path(name), memory_sizes)
        print_speed(
            config,
            len(specs),
            files,
            measure(config, specs, Path(name), rounds, steps, plain_steps),
        )
        print_sweep(config, specs, rounds, steps)
