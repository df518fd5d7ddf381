"""How fast a cohort trains on a GPU: against the hardware's limits, a plain script, and the hours of the whole study.

make bench-gpu                                     CaffeNet, batches of 256, bf16; meant to end within 9 minutes
python -m experiments.benchmarks.gpu device=cpu    a rehearsal of every part at toy size, which measures nothing

Checks correctness first, then measures. The images are generated: JPEG files of ImageNet's size, packed as ImageNet is.
"""

import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import joblib
import numpy as np
import torch
from hydra import compose
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from experiments.benchmarks import gpu_checks
from experiments.benchmarks.lockstep import now, plain_batches, plain_training, step_seconds, table, untrained_cohort
from experiments.cli import command
from experiments.plan import UnpackedImagenet
from transferability import cells, stream
from transferability.cohort import SAVING, Cohort, Execution, evaluate
from transferability.config import Config, DatasetConfig, RecipeConfig, load
from transferability.gpu import Steps
from transferability.kernels import fused
from transferability.networks.chain import layer_costs
from transferability.pack import pack
from transferability.runner import execution_of, jobs
from transferability.spec import RunSpec, make_spec
from transferability.store import Store
from transferability.study import study_specs

WORKERS = 16  # of the plain script
ENOUGH = 420  # seconds after which no part is begun: the longest takes less than two minutes
FOUR = ("BnB", "BnB+", "AnB", "AnB+")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    photos: int  # JPEG files
    side: tuple[int, int]  # of a photo, pixels
    packed: int  # pixels a side as packed
    matrix: int  # of the product that measures the rate of arithmetic
    copied: int  # bytes of the copy that measures the bandwidth
    steps: int  # timed steps of a cohort
    plain_steps: int
    workers: int


FULL = Size(4096, (500, 375), 256, 8192, 4 << 30, 20, 6, WORKERS)
TOY = Size(96, (80, 60), 72, 256, 1 << 22, 2, 1, 1)
TOY_NETWORK = {"input_size": 67, "channels": [8, 12, 16, 16, 12], "hidden": [32, 32], "outputs": 20}


class Bench:
    """One run of the bench: the generated images, the device, and what was measured so far."""

    def __init__(self, config: Config, size: Size, folder: Path):
        self.size, self.folder, self.began = size, folder, time.perf_counter()
        files = generate(folder / "photos", size)
        data = DatasetConfig("folder", "bench", str(folder / "packed"), size.packed, str(files), "linear")
        recipe = replace(config.recipe, steps=10**9, eval_every=10**9)
        self.config = replace(config, dataset=data, recipe=recipe, data_dir=str(folder))
        self.dataset, self.execution = pack(data), execution_of(self.config)
        self.device = self.execution.device
        self.failed: list[str] = []
        # Read and copied batch by batch, as ImageNet has to be.
        stream.ON_DEVICE_BYTES = 0

    # Cohorts.

    def spec(self, cell: str, **network) -> RunSpec:
        config = replace(self.config.network, **network)
        return make_spec(cells.parse(cell), "random-0", self.dataset, config, self.config.recipe, 0)

    def cohort(self, names: list[str], recipe: RecipeConfig | None = None, **network) -> Cohort:
        config = replace(self.config, network=replace(self.config.network, **network))
        specs = [self.spec(name, **network) for name in names]
        return untrained_cohort(config, [replace(s, recipe=recipe) for s in specs] if recipe else specs)

    def seconds(self, cohort: Cohort, execution: Execution | None = None) -> float:
        """Seconds of a step."""
        return step_seconds([cohort], execution or self.execution, self.size.steps)

    def note(self, check: gpu_checks.Check) -> None:
        """Print a check, and remember it where it failed."""
        if not check.passed:
            self.failed.append(check.what)
        print(f"   {check}", flush=True)

    def elapsed(self) -> str:
        return f"{time.perf_counter() - self.began:.0f} s after the start"


def generate(folder: Path, size: Size) -> Path:
    """JPEG files in folders of classes, with the size and about the number of bytes of ImageNet's."""

    def write(i: int) -> None:
        draw = np.random.default_rng(i)
        coarse = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = cv2.resize(coarse, size.side, interpolation=cv2.INTER_CUBIC).astype(np.float32)
        image += draw.normal(0, 20, image.shape)
        part = "val" if i % 8 == 0 else "train"
        path = folder / part / f"class-{i // 8 % 8}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])

    with ThreadPoolExecutor(joblib.cpu_count()) as pool:
        list(pool.map(write, range(size.photos)))
    return folder


# What is asked, in the order in which it is printed.


def ceilings(b: Bench) -> tuple[float, float]:
    """Operations a second of a large bf16 matrix product, and bytes a second of a large copy, read and written."""
    side = b.size.matrix
    left, right = (torch.randn(side, side, device=b.device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(b.size.copied // 4, device=b.device)
    target = torch.empty_like(source)
    rate = 2 * side**3 / _median(lambda: left @ right, b)
    bandwidth = 2 * source.nbytes / _median(lambda: target.copy_(source), b)
    table(
        "2. What this device can do: measured ceilings.",
        ["", "rate"],
        [
            [f"bf16 matrix product, {side} x {side} x {side}, random numbers", f"{rate / 1e12:,.1f} TFLOP/s"],
            [f"copy of {source.nbytes / 2**30:.2f} GiB, bytes read and written", f"{bandwidth / 1e9:,.0f} GB/s"],
        ],
    )
    return rate, bandwidth


def correctness(b: Bench) -> None:
    """Every fast way against the plain one, before anything is timed; a line each as it is done."""
    print(
        "\n1. Correctness: losses, gradients and momentum of every layer and step "
        "(experiments/benchmarks/gpu_checks.py).\n",
        flush=True,
    )
    on_gpu, slow = b.device.type == "cuda", 0.01  # of the rate: the original's explodes on untrained networks

    def make(network: dict) -> Callable[[str], Cohort]:
        def cohort(precision: str) -> Cohort:
            recipe = replace(b.config.recipe, precision=precision, lr=slow * b.config.recipe.lr)
            return b.cohort(list(gpu_checks.NETWORKS), recipe, **network)

        return cohort

    ways = {
        "kernels, in one CUDA graph" if on_gpu else "kernels": ({}, {"stacked": False, "graphs": on_gpu}),
        "small networks, stacked": (_small(b), {"stacked": True, "graphs": on_gpu}),
    }
    for what, (network, change) in ways.items():
        for check in gpu_checks.check_way(what, make(network), replace(b.execution, **change)):
            b.note(check)
    if on_gpu:
        b.note(_check_same_bits(b))
    if b.failed:
        print(f"\n   WRONG: {len(b.failed)} checks failed, {b.elapsed()}: no number below means anything.", flush=True)
    else:
        print(f"\n   Correct: every check holds, {b.elapsed()}.", flush=True)


def _check_same_bits(b: Bench) -> gpu_checks.Check:
    """Two trainings with deterministic=true: in how many of their weights they differ."""
    config, states = replace(b.config, deterministic=True), []
    for _ in range(2):
        cohort = untrained_cohort(config, [b.spec(name) for name in gpu_checks.NETWORKS])
        step_seconds([cohort], replace(b.execution, stacked=False), gpu_checks.STEPS)
        states.append([t.cpu() for m in cohort.members for t in m.network.state_dict().values()])
    execution_of(b.config)  # the usual kernels again
    different = sum(not torch.equal(x, y) for x, y in zip(*states, strict=True))
    return gpu_checks.Check("deterministic=true twice: tensors that differ", different, "two trainings", 0)


def _small(b: Bench) -> dict:
    """The network for small images."""
    if b.size == TOY:
        return TOY_NETWORK
    return asdict(load(compose("config", ["network=medium"])).network)


def least(config: Config) -> tuple[float, float]:
    """Operations of a training step of a network that is trained whole, and the bytes that it moves at least."""
    network, size = config.network, config.recipe.batch_size
    costs = layer_costs(replace(network, outputs=network.outputs or 1000))  # ImageNet's classes
    # Backward is twice forward, but nobody asks for the gradient of the image.
    operations = 2 * size * (3 * sum(c.multiply_adds for c in costs) - costs[0].multiply_adds)
    # Values are two bytes. What a convolution puts out is read by the activation, its gradient by two products; what a
    # layer hands on is read by two products, its gradient by the activation. Weights: read as bf16 copies, updated in
    # float32.
    values = size * (2 * 3 * network.input_size**2 + sum(5 * c.computed + 5 * c.passed for c in costs))
    return operations, 2 * values + sum(c.parameters for c in costs) * (6 + 2 * 3 + 4 * 6)


def whole_training(b: Bench, rate: float, bandwidth: float) -> None:
    """Networks that are trained whole: nothing is shared but the batch; against the floor, and where the time goes."""
    names = ["baseB", "B1B+", "B2B+", "B3B+"]
    network, size = b.config.network, b.config.recipe.batch_size
    operations, moved = least(b.config)
    floor = max(operations / rate, moved / bandwidth)
    on_gpu, cohort, rows = b.device.type == "cuda", b.cohort(names), []
    ways = [("one operation after another", False, False, False), ("the same, fused", True, False, False)]
    if on_gpu:
        ways += [("fused, in one CUDA graph", True, True, False), ("the same, deterministic=true", True, True, True)]
    for way, fuse, graphs, deterministic in ways:
        execution = execution_of(replace(b.config, stacked=False, graphs=graphs, deterministic=deterministic))
        with nullcontext() if fuse else fused(False):
            seconds = b.seconds(cohort, execution) / len(names)
        rows.append([way, f"{1e3 * seconds:.2f}", f"{size / seconds:,.0f}",
                     f"{operations / seconds / 1e12:,.0f}", f"{seconds / floor:.2f}"])  # fmt: skip
    execution_of(b.config)  # the usual kernels again
    table(
        f"3. Training {network.name} whole, batches of {size}, {b.config.recipe.precision}: {len(names)} networks in "
        f"lockstep.\n   A step of one needs {operations / 1e12:.2f} TFLOP and moves at least {moved / 1e9:.2f} GB: "
        f"{1e3 * operations / rate:.2f} ms of arithmetic, {1e3 * moved / bandwidth:.2f} ms of memory;\n"
        "   floor: the larger.",
        ["", "ms a network-step", "network-images/s", "TFLOP/s", "times the floor"],
        rows,
    )
    where_time_goes(b, cohort)


KINDS = {
    "optimiser": ("multi_tensor", "fused_sgd", "foreach"),
    "convolutions and matrix products": (
        *("conv", "gemm", "cutlass", "cudnn", "xmma", "grad_", "nvjet", "addmm", "mm", "implicit"),
    ),
    "pooling, ReLU, normalisation, dropout": ("triton", "pool", "relu", "clamp", "threshold", "pow"),
    "copies and casts": ("memcpy", "memset", "copy", "to_copy", "cat"),
}


def where_time_goes(b: Bench, cohort: Cohort) -> None:
    """Time of a step by kind of kernel, and the share of it in which the device was busy."""
    on_gpu = b.device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    advance = Steps(stacked=False, graphs=on_gpu)
    with closing(cohort.stream.batches(0, 1 + b.size.steps)) as batches:
        advance([(next(batches), cohort.members)])  # which compiles and captures: no part of a step
        with profile(activities=activities) as profiler:
            began = now(b.device)
            for batch in batches:
                advance([(batch, cohort.members)])
            seconds = now(b.device) - began
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        annotation = getattr(event, "is_user_annotation", False)
        if on_gpu and (event.device_type != DeviceType.CUDA or annotation or "htod" in event.key.lower()):
            continue  # the host's calls; ranges around kernels; copies from the host, which run beside
        time_of = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        name = event.key.lower()
        kind = next((k for k, words in KINDS.items() if any(w in name for w in words)), "other")
        spent[kind] += time_of / 1e6
    busy = sum(spent.values())
    rows = [[kind, f"{100 * t / busy:.1f}%"] for kind, t in spent.most_common()]
    table(
        f"4. Where the time of a step (fused, in one CUDA graph) goes: shares of {1e3 * busy / b.size.steps:.1f} ms "
        f"of kernels in each of {b.size.steps} steps.\n   The device was busy {100 * busy / seconds:.1f}% of the time.",
        ["", "share"],
        rows,
    )


def pieces(b: Bench) -> None:
    """Each convolutional layer by itself, forward and backward: plain operations against fused kernels."""
    (member,) = b.cohort(["baseB"]).members
    batch, network = b.config.recipe.batch_size, member.network.train()
    shape, rows = (batch, 3, network.config.input_size, network.config.input_size), []
    for number, layer in enumerate(network.layers[: len(network.config.channels)], 1):
        x = torch.randn(shape, device=b.device).to(memory_format=torch.channels_last).requires_grad_(number > 1)

        def step(layer: torch.nn.Module = layer, x: Tensor = x) -> Tensor:
            with torch.autocast(b.device.type, torch.bfloat16):
                y = layer(x if x.requires_grad else x.bfloat16())
            y.backward(torch.ones_like(y))
            return y

        shape = step().shape
        with fused(False):
            plain = _median(step, b)
        fast = _median(step, b)
        rows.append([f"layer {number}", f"{1e3 * plain:.2f}", f"{1e3 * fast:.2f}", f"{plain / fast:.2f}"])
    table(
        f"5. Each layer's convolution, bias, pool, ReLU and normalisation, forward and backward; {batch} images, bf16.",
        ["", "ms, plain operations", "ms, fused kernels", "times as fast"],
        rows,
    )


def against_plain_script(b: Bench) -> None:
    """A cohort of 28 cells against one network after another from the files, as one would write it."""
    layers = range(1, 8)
    names = [str(c) for t in FOUR for c in cells.expand(t, "B", list(layers))]
    if b.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(b.device)
    cohort = b.cohort(names)
    lockstep = b.seconds(cohort)
    memory = torch.cuda.max_memory_allocated(b.device) / 2**30 if b.device.type == "cuda" else 0.0
    saved, saving = _saving(b, cohort)
    source = Path(b.config.dataset.source) / "train"
    frozen = Counter(m.network.frozen for m in cohort.members)
    del cohort
    outputs = b.config.network.outputs
    with closing(plain_batches(source, b.config, np.full(3, 120.0), b.size.workers)) as batches:
        plain_training(batches, 0, outputs, b.config, b.device, 2 * b.size.workers)  # what the workers had prepared
        plain = sum(
            count * plain_training(batches, n, outputs, b.config, b.device, b.size.plain_steps)
            for n, count in frozen.items()
        )
    images = len(names) * b.config.recipe.batch_size
    table(
        f"6. {len(names)} networks (BnB, BnB+, AnB, AnB+, n = 1..7), one training step further. The plain script: "
        f"torchvision's\n   ImageFolder of the same JPEG files with {b.size.workers} workers, "
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
    print(f"\n   Its checkpoint: {saved / 1e9:.1f} GB in {saving:.1f} s, every {pause:.0f} s: {share:.1%} of the time.")


def _saving(b: Bench, cohort: Cohort) -> tuple[int, float]:
    """Bytes and seconds of a checkpoint of every network of ``cohort``."""
    store = Store(b.folder / "runs")
    for m in cohort.members:
        store.claim(m.spec).release()
    began = time.perf_counter()
    for m in cohort.members:
        store.save_checkpoint(m.spec, m.checkpoint())
    seconds = time.perf_counter() - began
    return sum(path.stat().st_size for path in store.root.glob("*/checkpoint.safetensors")), seconds


def small_networks(b: Bench) -> None:
    """28 networks for small images: too small, one by one, to fill a GPU."""
    network = _small(b)
    names = [str(c) for t in FOUR for c in cells.expand(t, "B", list(range(1, 8)))]
    cohort, rows = b.cohort(names, **network), []
    ways = {"one operation after another": (False, False), "stacked": (True, False)}
    if b.device.type == "cuda":
        ways |= {"one CUDA graph": (False, True), "stacked, in one CUDA graph": (True, True)}
    for way, (stacked, graphs) in ways.items():
        seconds = b.seconds(cohort, replace(b.execution, stacked=stacked, graphs=graphs))
        rows.append([way, f"{1e3 * seconds:.1f}", f"{len(names) * b.config.recipe.batch_size / seconds:,.0f}"])
    side = network["input_size"]
    table(
        f"7. {len(names)} small networks ({network.get('name', 'toy')}, {side} x {side} pixels), one training step.",
        ["", "ms a step", "network-images/s"],
        rows,
    )


def whole_study(b: Bench) -> None:
    """Hours of study=paper on one such device, from a measured step of each of its kinds of job."""
    imagenet = UnpackedImagenet("imagenet", b.size.packed)
    study = load(compose("config", ["study=paper", "dataset=imagenet", "network=caffenet", "recipe=paper"]))
    study = replace(study, network=replace(study.network, input_size=b.config.network.input_size))
    kinds: dict[tuple[str, ...], list[list[RunSpec]]] = {}
    for job in jobs(study_specs(study, imagenet)):
        kinds.setdefault(tuple(sorted(_towards_b(s) for s in job)), []).append(job)
    rows, total = [], 0.0
    for names, found in kinds.items():
        cohort = b.cohort(list(names))
        step, image = b.seconds(cohort), _validation_seconds(b, cohort)
        hours = 0.0
        for job in found:
            recipe, val_images = job[0].recipe, 50 * len(job[0].classes)
            hours += (recipe.steps * step + recipe.steps / recipe.eval_every * val_images * image) / 3600
        total += hours
        rows.append([_kind(names), str(len(found)), str(len(names)), f"{1e3 * step:.1f}",
                     f"{len(names) * b.config.recipe.batch_size / step:,.0f}", f"{hours:.1f}"])  # fmt: skip
        del cohort
    networks = sum(len(names) * len(found) for names, found in kinds.items())
    rows.append(["all", str(sum(map(len, kinds.values()))), str(networks), "", "", f"{total:.1f}"])
    table(
        f"8. study=paper on one such device: {networks} networks. A measured step of each kind of job times its steps, "
        "and its validations.",
        ["job", "jobs", "networks in each", "ms a step", "network-images/s", "hours of all"],
        rows,
    )


def _towards_b(spec: RunSpec) -> str:
    """The cell with B as its target: A to B, B to A and all classes take the same time."""
    swapped = {"A": "B", "B": "A", "all": "B"}
    cell = spec.cell
    if cell.target == "B":
        return str(cell)
    return str(replace(cell, target="B", source=swapped.get(cell.source, cell.source)))


def _kind(names: tuple[str, ...]) -> str:
    return " ".join(dict.fromkeys(cells.parse(name).treatment for name in names))


def _validation_seconds(b: Bench, cohort: Cohort) -> float:
    """Seconds to validate all networks of ``cohort`` on one image."""

    def run(function: Callable, calls: list) -> None:
        for call in calls:
            function(*call)

    evaluate(cohort.members, cohort.stream, run)  # warms up
    for m in cohort.members:
        m.metrics.clear()
    began = now(b.device)
    evaluate(cohort.members, cohort.stream, run)
    return (now(b.device) - began) / len(cohort.stream.val_rows)


def _median(function: Callable[[], object], b: Bench, times: int = 10) -> float:
    """Median seconds of a call."""
    for _ in range(3):
        function()
    seconds = []
    for _ in range(times):
        began = now(b.device)
        function()
        seconds.append(now(b.device) - began)
    return statistics.median(seconds)


def main(config: Config) -> None:
    toy = config.device == "cpu"
    if not toy and execution_of(config).device.type != "cuda":
        operations, moved = least(config)
        print(
            "No GPU here: nothing was measured. device=cpu rehearses every part at toy size.\n"
            f"Counted: a step of {config.network.name} trained whole, batches of {config.recipe.batch_size}, needs "
            f"{operations / 1e12:.2f} TFLOP and moves at least {moved / 1e9:.2f} GB."
        )
        return
    size = TOY if toy else FULL
    if toy:
        network = replace(config.network, **TOY_NETWORK)
        config = replace(config, network=network, recipe=replace(config.recipe, batch_size=8, eval_batch_size=8))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic=true asks for it, before any product
    with tempfile.TemporaryDirectory() as folder:
        b = Bench(config, size, Path(folder))
        name = "toy size on the CPU: a rehearsal" if toy else torch.cuda.get_device_name(b.device)
        print(f"{name}; torch {torch.__version__}; {config.network.name}, {config.recipe.precision}", flush=True)
        correctness(b)
        rate, bandwidth = ceilings(b)
        whole_training(b, rate, bandwidth)
        for part in (pieces, against_plain_script, small_networks, whole_study):
            if time.perf_counter() - b.began > ENOUGH:
                print(f"\nNot measured, as the time is up: {part.__doc__}", flush=True)
            else:
                part(b)
    print(f"\n{time.perf_counter() - b.began:.0f} s in all.")
    if b.failed:
        sys.exit(f"error: {len(b.failed)} checks of correctness failed: {'; '.join(b.failed)}")


if __name__ == "__main__":
    command(main)()
