"""How fast a cohort trains on a GPU, compared with the limits of the hardware and a plain script,
and the hours of a study.

make bench-gpu                                     CaffeNet, batches of 256, bf16;
                                                   meant to end within 9 minutes
python -m experiments.benchmarks.gpu device=cpu    a rehearsal of every part at toy size,
                                                   which measures nothing

Checks correctness first, then measures. The images are generated: JPEG files of ImageNet's size,
packed as ImageNet is.

Settings used most:
network=NAME recipe=NAME         what is trained (make bench-gpu: CaffeNet)
recipe.precision=bf16            or float32
device=cuda:1                    which GPU; device=cpu rehearses
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from experiments.benchmarks import gpu_checks
from experiments.benchmarks.gpu_cohorts import (
    against_plain_script,
    library_networks,
    small_networks,
    whole_study,
)
from experiments.benchmarks.gpu_limits import ceilings, least, pieces, whole_training
from experiments.benchmarks.gpu_setup import FULL, TOY, Bench, toy_network
from experiments.benchmarks.timing import step_seconds, untrained_cohort
from transferability.networks import NetworkConfig
from transferability.study.config import Config
from transferability.training.execution import execution_of
from transferability.training.loop import Cohort

ENOUGH = 420  # seconds after which no part is started: the longest takes less than two minutes


def correctness(b: Bench) -> None:
    """Check every fast way against the plain one, before anything is timed; a line per check."""
    print(
        "\n1. Correctness: losses, gradients and momentum of every layer and step "
        "(experiments/benchmarks/gpu_checks.py).\n",
        flush=True,
    )
    # slow: a factor on the learning rate; untrained networks diverge at the recipe's
    on_gpu, slow = b.device.type == "cuda", 0.01

    def make(network: NetworkConfig) -> Callable[[str], Cohort]:
        def cohort(precision: str) -> Cohort:
            recipe = replace(b.config.recipe, precision=precision, lr=slow * b.config.recipe.lr)
            return b.cohort(gpu_checks.networks(network.n_layers), network, recipe)

        return cohort

    kernels = "kernels, in one CUDA graph" if on_gpu else "kernels"
    ways: dict[str, tuple[NetworkConfig, dict[str, Any]]] = {
        kernels: (b.config.network, {"stacked": False, "graphs": on_gpu}),
        "small networks, stacked": (b.small_network(), {"stacked": True, "graphs": on_gpu}),
    }
    for what, (network, change) in ways.items():
        for check in gpu_checks.check_way(what, make(network), replace(b.execution, **change)):
            b.note(check)
    if on_gpu:
        b.note(_check_same_bits(b))
    if b.failed:
        print(
            f"\n   WRONG: {len(b.failed)} checks failed, {b.elapsed()}: "
            "no number below means anything.",
            flush=True,
        )
    else:
        print(f"\n   Correct: every check holds, {b.elapsed()}.", flush=True)


def _check_same_bits(b: Bench) -> gpu_checks.Check:
    """The number of tensors that differ between two trainings with deterministic=true."""
    config, states = replace(b.config, deterministic=True), []
    specs = [
        b.spec(n, config.network, config.recipe)
        for n in gpu_checks.networks(config.network.n_layers)
    ]
    for _ in range(2):
        cohort = untrained_cohort(config, specs)
        step_seconds([cohort], replace(b.execution, stacked=False), gpu_checks.STEPS)
        states.append([t.cpu() for m in cohort.states for t in m.network.state_dict().values()])
    execution_of(b.config)  # the usual kernels again
    different = sum(not torch.equal(x, y) for x, y in zip(*states, strict=True))
    return gpu_checks.Check(
        "deterministic=true twice: tensors that differ", different, "two trainings", 0
    )


def main(config: Config) -> None:
    toy = config.device == "cpu"
    if not toy and execution_of(config).device.type != "cuda":
        operations, moved = least(config)
        print(
            "No GPU here: nothing was measured. device=cpu rehearses every part at toy size.\n"
            f"Counted: a step of {config.network.name} trained whole, batches of "
            f"{config.recipe.batch_size}, needs {operations / 1e12:.2f} TFLOP and moves at least "
            f"{moved / 1e9:.2f} GB."
        )
        return
    size = TOY if toy else FULL
    if toy:
        recipe = replace(config.recipe, batch_size=8, eval_batch_size=8)
        network = toy_network(cast(Any, config.network))
        config = replace(config, network=network, recipe=recipe)
    # deterministic=true requires the variable to be set before the first matrix product
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with tempfile.TemporaryDirectory() as folder:
        b = Bench(config, size, Path(folder))
        name = "toy size on the CPU: a rehearsal" if toy else torch.cuda.get_device_name(b.device)
        print(
            f"{name}; torch {torch.__version__}; {config.network.name}, {config.recipe.precision}",
            flush=True,
        )
        correctness(b)
        rate, bandwidth = ceilings(b)
        whole_training(b, rate, bandwidth)
        for part in (against_plain_script, small_networks, library_networks, whole_study, pieces):
            if time.perf_counter() - b.began > ENOUGH:
                what = " ".join(str(part.__doc__).split())
                print(f"\nNot measured, as the time is up: {what}", flush=True)
            else:
                part(b)
    print(f"\n{time.perf_counter() - b.began:.0f} s in all.")
    if b.failed:
        sys.exit(f"error: {len(b.failed)} checks of correctness failed: {'; '.join(b.failed)}")
