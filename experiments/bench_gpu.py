"""How fast a cohort trains on a GPU: against the hardware's limits, a plain script, and the hours of the whole study.

make bench-gpu                                          CaffeNet, batches of 256, bf16; meant to end within 9 minutes
python -m experiments.bench_gpu device=cpu              a rehearsal of every part at toy size, which measures nothing

Checks correctness first, then measures. The images are generated: JPEG files of ImageNet's size, packed as ImageNet is.
"""

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

from experiments.bench import now, plain_batches, plain_training, step_seconds, table, untrained_cohort
from experiments.cli import command
from experiments.plan import UnpackedImagenet
from transferability import cells, stream
from transferability.cohort import Cohort, Execution, evaluate
from transferability.config import Config, DatasetConfig, load
from transferability.gpu import Steps
from transferability.kernels import activation, plain_kernels
from transferability.member import Member, SharedPrefix
from transferability.network import Activation, layer_costs
from transferability.pack import pack
from transferability.runner import execution_of, jobs
from transferability.spec import RunSpec, make_spec
from transferability.study import study_specs

WORKERS = 16  # of the plain script
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
        self.size, self.folder = size, folder
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

    def cohort(self, names: list[str], **network) -> Cohort:
        config = replace(self.config, network=replace(self.config.network, **network))
        return untrained_cohort(config, [self.spec(name, **network) for name in names])

    def seconds(self, cohort: Cohort, execution: Execution | None = None, fused: bool = True) -> float:
        """Seconds of a step."""
        with nullcontext() if fused else plain_kernels():
            return step_seconds([cohort], execution or self.execution, self.size.steps)

    def check(self, what: str, error: float, limit: float) -> list[str]:
        passed = error <= limit  # NaN does not pass
        if not passed:
            self.failed.append(what)
        return [what, f"{error:.1e}", f"{limit:.0e}", "ok" if passed else "FAILED"]


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
        "1. What this device can do: measured ceilings.",
        ["", "rate"],
        [
            [f"bf16 matrix product, {side} x {side} x {side}, random numbers", f"{rate / 1e12:,.1f} TFLOP/s"],
            [f"copy of {source.nbytes / 2**30:.2f} GiB, bytes read and written", f"{bandwidth / 1e9:,.0f} GB/s"],
        ],
    )
    return rate, bandwidth


def correctness(b: Bench) -> None:
    """Every fast way against the slow one, before anything is timed."""
    rows = [*_check_activation(b), *_check_gradients(b)]
    for what, network, change, limit in (
        ("one CUDA graph, against one operation after another", {}, {"graphs": True}, 1e-2),
        ("stacked small networks, against one by one", _small(b), {"stacked": True}, 1e-2),
    ):
        if b.device.type == "cuda" or "graphs" not in change:
            rows.append(_check_execution(b, what, network, change, limit))
    table(
        "2. Correctness. Errors are |x - reference| / |reference|, gradients and losses after a few steps.",
        ["", "error", "limit", ""],
        rows,
    )


def _check_activation(b: Bench) -> list[list[str]]:
    """The fused kernel after layers 1 and 2, forward and backward, against float64."""
    rows = []
    for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        x = torch.randn(8, 96, 27, 27, device=b.device, dtype=dtype).mul_(30).to(memory_format=torch.channels_last)
        inputs = [x.requires_grad_(), x.detach().double().cpu().requires_grad_()]
        fast = Activation(pool=True, norm=True)(inputs[0] * 1)
        slow = activation(inputs[1].clone(), True, True)
        weights = torch.randn_like(slow)
        gradients = [torch.autograd.grad((y * w).sum(), i)[0] for y, w, i in (
            (fast, weights.to(fast), inputs[0]), (slow, weights.to(fast.dtype).double(), inputs[1]))]  # fmt: skip
        name = "float32" if dtype == torch.float32 else "bf16"
        rows.append(b.check(f"pool, ReLU, response normalisation in {name}: forward", _error(fast, slow), limit))
        rows.append(b.check(f"pool, ReLU, response normalisation in {name}: backward", _error(*gradients), limit))
    return rows


def _check_gradients(b: Bench) -> list[list[str]]:
    """Gradients of a base network in the precision of the recipe, against float32."""
    gradients, batch = {}, None
    for precision in (b.config.recipe.precision, "float32"):
        spec = b.spec("baseB")
        spec = replace(spec, recipe=replace(spec.recipe, precision=precision))
        cohort = untrained_cohort(b.config, [spec])
        (member,) = cohort.members
        batch = batch or cohort.stream.batch(0)
        member.network.train()
        member.train_step(batch, SharedPrefix(batch))
        gradients[precision] = torch.cat([p.grad.flatten().double().cpu() for p in member.network.parameters()])
    precision = b.config.recipe.precision
    error = _error(gradients[precision], gradients["float32"])
    return [b.check(f"gradients of a whole network in {precision}, against float32", error, 3e-2)]


def _check_execution(b: Bench, what: str, network: dict, change: dict, limit: float) -> list[str]:
    """The losses and gradients of a few steps of four networks, executed in two ways."""
    results = []
    for changes in ({"graphs": False, "stacked": False}, {"graphs": False, "stacked": False, **change}):
        cohort = b.cohort(["B2B+", "A3B+", "A3B", "B3B"], **network)
        options = replace(b.execution, **changes)
        steps = Steps(options.stacked, options.graphs)
        for m in cohort.members:
            m.network.train()
        for step in range(3):
            steps([(cohort.stream.batch(step), cohort.members)])
        results.append([torch.cat([m.loss.reshape(1), *_gradients(m)]).double().cpu() for m in cohort.members])
    return b.check(what, max(_error(x, y) for x, y in zip(*results, strict=True)), limit)


def _gradients(member: Member) -> list[Tensor]:
    return [p.grad.flatten() for p in member.network.parameters() if p.grad is not None]


def _small(b: Bench) -> dict:
    """The network for small images."""
    if b.size == TOY:
        return TOY_NETWORK
    return asdict(load(compose("config", ["network=medium"])).network)


def whole_training(b: Bench, rate: float, bandwidth: float) -> None:
    """Networks that are trained whole: nothing is shared but the batch; against the floor, and where the time goes."""
    names = ["baseB", "B1B+", "B2B+", "B3B+"]
    network, size = b.config.network, b.config.recipe.batch_size
    costs = layer_costs(network, network.outputs)
    # Backward is twice forward, but nobody asks for the gradient of the image.
    operations = 2 * size * (3 * sum(c.multiply_adds for c in costs) - costs[0].multiply_adds)
    # Values are two bytes. What a convolution puts out is read by the activation, forward and backward, its gradient
    # by two products; what a layer hands on is read by two products. Weights: read as bf16 copies, updated in float32.
    values = size * (2 * 3 * network.input_size**2 + sum(6 * c.computed + 5 * c.passed for c in costs))
    moved = 2 * values + sum(c.parameters for c in costs) * (6 + 2 * 3 + 4 * 6)
    floor = max(operations / rate, moved / bandwidth)
    ways = {"one operation after another": (False, False), "the same, fused": (True, False)}
    if b.device.type == "cuda":
        ways["fused, in one CUDA graph"] = (True, True)
    cohort, rows = b.cohort(names), []
    for way, (fused, graphs) in ways.items():
        seconds = b.seconds(cohort, replace(b.execution, stacked=False, graphs=graphs), fused) / len(names)
        rows.append([way, f"{1e3 * seconds:.2f}", f"{size / seconds:,.0f}",
                     f"{operations / seconds / 1e12:,.0f}", f"{seconds / floor:.2f}"])  # fmt: skip
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
        f"4. Where the time of the last of these goes: shares of the {1e3 * busy / b.size.steps:.1f} ms of kernels in "
        f"each of {b.size.steps} steps.\n   The device was busy {100 * busy / seconds:.1f}% of the time.",
        ["", "share"],
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
        f"5. {len(names)} networks (BnB, BnB+, AnB, AnB+, n = 1..7), one training step further. The plain script: "
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
        f"6. {len(names)} small networks ({network.get('name', 'toy')}, {side} x {side} pixels), one training step.",
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
        f"7. study=paper on one such device: {networks} networks. A measured step of each kind of job times its steps, "
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


def _error(found: Tensor, reference: Tensor) -> float:
    found, reference = found.detach().double().cpu(), reference.detach().double().cpu()
    return ((found - reference).norm() / reference.norm()).item()


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
        print("No GPU here: nothing was measured. device=cpu rehearses every part at toy size.")
        return
    size = TOY if toy else FULL
    if toy:
        network = replace(config.network, **TOY_NETWORK)
        config = replace(config, network=network, recipe=replace(config.recipe, batch_size=8, eval_batch_size=8))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        b = Bench(config, size, Path(folder))
        name = "toy size on the CPU: a rehearsal" if toy else torch.cuda.get_device_name(b.device)
        print(f"{name}; torch {torch.__version__}; {config.network.name}, {config.recipe.precision}")
        rate, bandwidth = ceilings(b)
        correctness(b)
        whole_training(b, rate, bandwidth)
        against_plain_script(b)
        small_networks(b)
        whole_study(b)
    print(f"\n{time.perf_counter() - began:.0f} s in all.")
    if b.failed:
        sys.exit(f"error: {len(b.failed)} checks of correctness failed: {'; '.join(b.failed)}")


if __name__ == "__main__":
    command(main)()
