"""Training on a GPU compared with the limits of the device: measured ceilings, networks trained
whole, kernels, single layers.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from experiments.benchmarks.gpu_setup import Bench
from experiments.benchmarks.timing import now, table
from transferability.networks.compiled import fused
from transferability.networks.sequential import profile_layers
from transferability.study.config import Config
from transferability.training.execution import execution_of
from transferability.training.gpu_step import GpuStep
from transferability.training.loop import Cohort

KINDS = {
    "optimizer": ("multi_tensor", "fused_sgd", "foreach"),
    "convolutions and matrix products": (
        *("conv", "gemm", "cutlass", "cudnn", "xmma", "grad_", "nvjet", "addmm", "mm", "implicit"),
    ),
    "pooling, ReLU, normalization, dropout": (
        "triton",
        "pool",
        "relu",
        "clamp",
        "threshold",
        "pow",
    ),
    "copies and casts": ("memcpy", "memset", "copy", "to_copy", "cat"),
}


def ceilings(b: Bench) -> tuple[float, float]:
    """Operations per second of a large bf16 matrix product, and bytes per second, read and written,
    of a large copy.
    """
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
            [
                f"bf16 matrix product, {side} x {side} x {side}, random numbers",
                f"{rate / 1e12:,.1f} TFLOP/s",
            ],
            [
                f"copy of {source.nbytes / 2**30:.2f} GiB, bytes read and written",
                f"{bandwidth / 1e9:,.0f} GB/s",
            ],
        ],
    )
    return rate, bandwidth


def least(config: Config) -> tuple[float, float]:
    """Operations of a training step of a network that is trained whole, and the fewest bytes that
    the step moves.
    """
    network, size = config.network, config.recipe.batch_size
    costs = profile_layers(replace(network, outputs=network.outputs or 1000))  # ImageNet's classes
    # Backward is twice forward, but the gradient of the image is not computed.
    operations = 2 * size * (3 * sum(c.macs for c in costs) - costs[0].macs)
    # Values are two bytes. The output of a convolution is read by the activation, its gradient by
    # two products; the output of a layer is read by two products, its gradient by the activation.
    # Weights are read as bf16 copies and updated in float32.
    values = size * (
        2 * 3 * network.input_size**2 + sum(5 * c.activations + 5 * c.passed for c in costs)
    )
    return operations, 2 * values + sum(c.parameters for c in costs) * (6 + 2 * 3 + 4 * 6)


def whole_training(b: Bench, rate: float, bandwidth: float) -> None:
    """Networks that are trained whole and share only the batch, compared with the floor; where the
    time goes.
    """
    names = ["baseB", *(f"B{n}B+" for n in range(1, min(4, b.config.network.n_layers)))]
    network, size = b.config.network, b.config.recipe.batch_size
    operations, moved = least(b.config)
    floor = max(operations / rate, moved / bandwidth)
    on_gpu, cohort, rows = b.device.type == "cuda", b.cohort(names), []
    ways = [
        ("one operation after another", False, False, False),
        ("the same, fused", True, False, False),
    ]
    if on_gpu:
        ways += [
            ("fused, in one CUDA graph", True, True, False),
            ("the same, deterministic=true", True, True, True),
        ]
    for way, fuse, graphs, deterministic in ways:
        execution = execution_of(
            replace(b.config, stacked=False, graphs=graphs, deterministic=deterministic)
        )
        with nullcontext() if fuse else fused(False):
            seconds = b.seconds(cohort, execution) / len(names)
        rows.append([way, f"{1e3 * seconds:.2f}", f"{size / seconds:,.0f}",
                     f"{operations / seconds / 1e12:,.0f}", f"{seconds / floor:.2f}"])  # fmt: skip
    execution_of(b.config)  # the usual kernels again
    table(
        f"3. Training {network.name} whole, batches of {size}, {b.config.recipe.precision}: "
        f"{len(names)} networks in lockstep.\n   A step of one needs {operations / 1e12:.2f} TFLOP "
        f"and moves at least {moved / 1e9:.2f} GB: {1e3 * operations / rate:.2f} ms of arithmetic, "
        f"{1e3 * moved / bandwidth:.2f} ms of memory;\n"
        "   floor: the larger.",
        ["", "ms a network-step", "network-images/s", "TFLOP/s", "times the floor"],
        rows,
    )
    where_time_goes(b, cohort)


def where_time_goes(b: Bench, cohort: Cohort) -> None:
    """The time of a step by kind of kernel, and the share of time in which the device is busy."""
    on_gpu = b.device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    advance = GpuStep(stacked=False, graphs=on_gpu)
    with closing(cohort.stream.batches(0, 1 + b.size.steps)) as batches:
        advance([(next(batches), cohort.states)])  # not measured: compiles and captures
        with profile(activities=activities) as profiler:
            began = now(b.device)
            for batch in batches:
                advance([(batch, cohort.states)])
            seconds = now(b.device) - began
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        annotation = getattr(event, "is_user_annotation", False)
        if on_gpu and (
            event.device_type != DeviceType.CUDA or annotation or "htod" in event.key.lower()
        ):
            # calls of the host, ranges around kernels, and copies from the host, which overlap
            continue
        time_of = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        name = event.key.lower()
        kind = next((k for k, words in KINDS.items() if any(w in name for w in words)), "other")
        spent[kind] += time_of / 1e6
    busy = sum(spent.values())
    rows = [[kind, f"{100 * t / busy:.1f}%"] for kind, t in spent.most_common()]
    table(
        "4. Where the time of a step (fused, in one CUDA graph) goes: shares of "
        f"{1e3 * busy / b.size.steps:.1f} ms of kernels in each of {b.size.steps} steps.\n   The "
        f"device was busy {100 * busy / seconds:.1f}% of the time.",
        ["", "share"],
        rows,
    )


def pieces(b: Bench) -> None:
    """Each convolutional layer by itself, forward and backward: plain operations compared with
    fused kernels.
    """
    (state,) = b.cohort(["baseB"]).states
    batch, network = b.config.recipe.batch_size, state.network.train()
    shape: Sequence[int] = (batch, 3, network.config.input_size, network.config.input_size)
    rows, convolutions = [], len(cast(Any, network.config).channels)
    for number, layer in enumerate(network.layers[:convolutions], 1):
        x = (
            torch.randn(shape, device=b.device)
            .to(memory_format=torch.channels_last)
            .requires_grad_(number > 1)
        )

        def step(layer: torch.nn.Module = layer, x: Tensor = x) -> Tensor:
            with torch.autocast(b.device.type, torch.bfloat16):
                y = layer(x if x.requires_grad else x.bfloat16())
            y.backward(torch.ones_like(y))
            return y

        shape = step().shape
        with fused(False):
            plain = _median(step, b)
        fast = _median(step, b)
        rows.append(
            [f"layer {number}", f"{1e3 * plain:.2f}", f"{1e3 * fast:.2f}", f"{plain / fast:.2f}"]
        )
    table(
        "9. Each layer's convolution, bias, pool, ReLU and normalization, forward and backward; "
        f"{batch} images, bf16.",
        ["", "ms, plain operations", "ms, fused kernels", "times as fast"],
        rows,
    )


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
