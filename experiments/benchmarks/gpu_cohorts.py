"""How fast cohorts train on a GPU: compared with a plain script, for small networks, for networks
of a library, and for the study of the paper.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hydra import compose

from experiments.benchmarks.gpu_setup import TOY, Bench
from experiments.benchmarks.plain_script import plain_batches, plain_training
from experiments.benchmarks.timing import now, table
from experiments.plan import UnpackedImagenet
from transferability.runs.store import Store
from transferability.study import cells
from transferability.study.config import load
from transferability.study.expand import study_specs
from transferability.study.jobs import group_into_jobs
from transferability.study.spec import RunSpec
from transferability.training.loop import SAVING, Cohort, evaluate


def against_plain_script(b: Bench) -> None:
    """A cohort of all transfers, compared with a plain script that trains one network after another
    from image files.
    """
    names = b.transfers(b.config.network)
    if b.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(b.device)
    cohort = b.cohort(names)
    lockstep = b.seconds(cohort)
    memory = torch.cuda.max_memory_allocated(b.device) / 2**30 if b.device.type == "cuda" else 0.0
    saved, saving = _saving(b, cohort)
    source = b.folder / "photos" / "train"
    frozen = Counter(m.network.frozen for m in cohort.states)
    del cohort
    outputs = b.config.network.n_outputs
    with closing(plain_batches(source, b.config, np.full(3, 120.0), b.size.workers)) as batches:
        # uses up the batches that the workers had prepared
        plain_training(batches, 0, outputs, b.config, b.device, 2 * b.size.workers)
        plain = sum(
            count * plain_training(batches, n, outputs, b.config, b.device, b.size.plain_steps)
            for n, count in frozen.items()
        )
    images = len(names) * b.config.recipe.batch_size
    table(
        f"5. {len(names)} networks (BnB, BnB+, AnB, AnB+, n = 1..{b.config.network.n_layers - 1}), "
        "one training step further. The plain script: torchvision's\n"
        f"   ImageFolder of the same JPEG files with {b.size.workers} workers, "
        f"{b.config.recipe.precision} autocast, channels last, one network after another.",
        ["", "seconds", "network-images/s", "times lockstep"],
        [
            ["lockstep", f"{lockstep:.3f}", f"{images / lockstep:,.0f}", "1.00"],
            ["plain script", f"{plain:.3f}", f"{images / plain:,.0f}", f"{plain / lockstep:.1f}"],
        ],
    )
    if memory:
        print(f"\n   Peak memory of the cohort on the GPU: {memory:.1f} GiB.")
    pause = max(b.execution.checkpoint_seconds, SAVING * saving)
    share = saving / (pause + saving)
    print(
        f"\n   Its checkpoint: {saved / 1e9:.1f} GB in {saving:.1f} s, every {pause:.0f} s: "
        f"{share:.1%} of the time."
    )


def _saving(b: Bench, cohort: Cohort) -> tuple[int, float]:
    """Bytes and seconds of saving a checkpoint of every network of ``cohort``."""
    store = Store(b.folder / "runs")
    for m in cohort.states:
        if lock := store.lock(m.spec):
            lock.release()
    began = time.perf_counter()
    for m in cohort.states:
        store.save_checkpoint(m.spec, m.checkpoint())
    seconds = time.perf_counter() - began
    return sum(path.stat().st_size for path in store.root.glob("*/checkpoint.safetensors")), seconds


def small_networks(b: Bench) -> None:
    """28 networks for small images, each too small to fill a GPU by itself."""
    network = b.small_network()
    names = b.transfers(network)
    cohort, rows = b.cohort(names, network), []
    ways = {"one operation after another": (False, False), "stacked": (True, False)}
    if b.device.type == "cuda":
        ways |= {"one CUDA graph": (False, True), "stacked, in one CUDA graph": (True, True)}
    for way, (stacked, graphs) in ways.items():
        seconds = b.seconds(cohort, replace(b.execution, stacked=stacked, graphs=graphs))
        rows.append(
            [
                way,
                f"{1e3 * seconds:.1f}",
                f"{len(names) * b.config.recipe.batch_size / seconds:,.0f}",
            ]
        )
    side = network.input_size
    table(
        f"6. {len(names)} small networks ({network.name}, {side} x {side} pixels), "
        "one training step.",
        ["", "ms a step", "network-images/s"],
        rows,
    )


def library_networks(b: Bench) -> None:
    """24 networks of a library for photographs, each with hundreds of small operations."""
    toy = b.size == TOY
    side = b.config.network.input_size if toy else 96
    timm = ["network=timm", "network.model=tf_efficientnet_lite0", f"network.input_size={side}"]
    settings = load(compose("config", [*timm, "recipe=photographs"]))
    depths, rows = [19] if toy else [2, 4, 7, 9, 11, 14, 16, 19], []
    names = [str(c) for t in ("BnB", "AnB", "AnB+") for c in cells.expand(t, "B", depths, 20)]
    batch = b.config.recipe.batch_size if toy else settings.recipe.batch_size
    recipe = replace(settings.recipe, steps=10**9, eval_every=10**9, batch_size=batch)
    cohort = b.cohort(names, settings.network, recipe)
    ways = {"one operation after another": False}
    if b.device.type == "cuda":
        ways["one CUDA graph, side by side"] = True
    for way, graphs in ways.items():
        seconds = b.seconds(cohort, replace(b.execution, stacked=False, graphs=graphs))
        rate = len(names) * recipe.batch_size / seconds
        rows.append([way, f"{1e3 * seconds:.1f}", f"{rate:,.0f}"])
    table(
        f"7. {len(names)} networks (BnB, AnB, AnB+ at {len(depths)} depths) of "
        f"{settings.network.name}, {side} x {side} pixels,\n   batches of {recipe.batch_size}, "
        f"{recipe.precision}, one training step.",
        ["", "ms a step", "network-images/s"],
        rows,
    )


def whole_study(b: Bench) -> None:
    """Hours of study=paper on one such device, from a measured step of each kind of job."""
    imagenet: Any = UnpackedImagenet("imagenet", b.size.packed)
    study = load(
        compose("config", ["study=paper", "dataset=imagenet", "network=caffenet", "recipe=paper"])
    )
    n_layers = b.config.network.n_layers
    study = replace(
        study,
        network=replace(b.config.network, outputs=study.network.outputs),
        study=replace(study.study, layers=None),
    )
    kinds: dict[tuple[str, ...], list[list[RunSpec]]] = {}
    for job in group_into_jobs(study_specs(study, imagenet)):
        kinds.setdefault(tuple(sorted(_towards_b(s) for s in job)), []).append(job)
    rows, total = [], 0.0
    for names, found in kinds.items():
        cohort = b.cohort(list(names))
        step, image = b.seconds(cohort), _validation_seconds(b, cohort)
        hours = 0.0
        for job in found:
            recipe, val_images = job[0].recipe, 50 * len(job[0].classes)
            hours += (
                recipe.steps * step + recipe.steps / recipe.eval_every * val_images * image
            ) / 3600
        total += hours
        rows.append(
            [
                _kind(names, n_layers),
                str(len(found)),
                str(len(names)),
                f"{1e3 * step:.1f}",
                f"{len(names) * b.config.recipe.batch_size / step:,.0f}",
                f"{hours:.1f}",
            ]
        )
        del cohort
    networks = sum(len(names) * len(found) for names, found in kinds.items())
    rows.append(["all", str(sum(map(len, kinds.values()))), str(networks), "", "", f"{total:.1f}"])
    table(
        f"8. study=paper on one such device: {networks} networks. A measured step of each kind of "
        "job times its steps, and its validations.",
        ["job", "jobs", "networks in each", "ms a step", "network-images/s", "hours of all"],
        rows,
    )


def _towards_b(spec: RunSpec) -> str:
    """The cell with target B: A to B, B to A and all classes take the same time."""
    swapped = {None: None, "A": "B", "B": "A", "all": "B"}
    cell = spec.cell
    if cell.target == "B":
        return str(cell)
    return str(replace(cell, target="B", source=swapped.get(cell.source, cell.source)))


def _kind(names: tuple[str, ...], n_layers: int) -> str:
    return " ".join(dict.fromkeys(cells.parse(name, n_layers).treatment for name in names))


def _validation_seconds(b: Bench, cohort: Cohort) -> float:
    """Seconds per image to validate all networks of ``cohort``."""

    def run(function: Callable, calls: list) -> None:
        for call in calls:
            function(*call)

    evaluate(cohort.states, cohort.stream, run)  # warms up
    for m in cohort.states:
        m.metrics.clear()
    began = now(b.device)
    evaluate(cohort.states, cohort.stream, run)
    return (now(b.device) - began) / len(cohort.stream.val_rows)
