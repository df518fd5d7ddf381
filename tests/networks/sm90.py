"""The kernels of an H100 (sm_90), generated and compiled without one.

python -m tests.networks.sm90       CaffeNet, batches of 256, bf16: kernels, and the bytes they move

Inductor is given fake tensors on a GPU that is not there; triton compiles what it writes down to
machine code. What it says of the machine (below) is what a driver would say. Must run in a process
of its own.
"""

import argparse
import importlib.util
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from transferability.networks import kernels

H100 = SimpleNamespace(
    name="NVIDIA H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    regs_per_multiprocessor=65536,
    total_memory=80 << 30,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 << 20,
    uuid="0",
    gcnArchName="",
    clock_rate=1980000,
    memory_clock_rate=2619000,
    memory_bus_width=5120,
)
BLOCKS = {"XBLOCK": 512, "YBLOCK": 32, "R0_BLOCK": 32}
CHANNELS_LAST = torch.channels_last


@dataclass(frozen=True)
class Kernel:
    """One generated kernel: what it is part of, how it looks, and bytes of machine code."""

    name: str
    loads: int
    stores: int
    atomics: bool
    compiled: int


@dataclass(frozen=True)
class Part:
    """One function of ``kernels.py`` at one size."""

    what: str
    batch: int
    bytes: int  # of its tensors, each once
    kernels: list[Kernel]


def pretend() -> None:
    """Make torch and triton believe that there is an H100."""
    import triton
    from torch._dynamo import device_interface
    from torch._inductor import config
    from torch._inductor.fx_passes import fuse_attention, misc_patterns, pad_mm
    from torch._inductor.runtime import triton_helpers
    from torch._subclasses import fake_tensor
    from torch.utils import _triton
    from triton.backends.compiler import GPUTarget

    class Driver:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", 90, 32)

        def get_active_torch_device(self) -> torch.device:
            return torch.device("cuda", 0)

        def get_current_device(self) -> int:
            return 0

    cuda, interface = torch.cuda, device_interface.CudaInterface
    for where, name, value in (
        *(
            (cuda, "get_device_properties", H100),
            (cuda, "get_device_capability", (9, 0)),
            (cuda, "device_count", 1),
        ),
        *((cuda, "is_available", True), (cuda, "current_device", 0), (cuda, "_exchange_device", 0)),
        *(
            (cuda, "_maybe_exchange_device", 0),
            (cuda, "set_device", None),
            (fake_tensor, "init_gpu_context", None),
        ),
        *((interface, "get_compute_capability", 90), (interface, "current_device", 0)),
        *((interface, "is_available", True), (interface, "raise_if_triton_unavailable", None)),
        (interface, "get_device_properties", H100),
        *(
            (interface.Worker, "get_device_properties", H100),
            (interface.Worker, "current_device", 0),
        ),
        *((_triton, "has_triton", True), (triton_helpers, "set_driver_to_gpu", None)),
        *((fuse_attention, "_sfdp_init", None), (pad_mm, "_pad_mm_init", None)),
        (misc_patterns, "_misc_patterns_init", None),
    ):
        setattr(where, name, staticmethod(lambda *a, _value=value, **k: _value))
    triton.runtime.driver.set_active(Driver())
    config.compile_threads = 1


def generated(function: Callable, *inputs: Tensor) -> str:
    """The code that inductor writes for ``function`` of ``inputs``, were they on the GPU."""
    from torch._inductor.debug import DebugContext
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V
    from torch._subclasses import FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    graph: GraphModule = make_fx(function, select_decomp_table(), tracing_mode="fake")(*inputs)
    for node in graph.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda", 0)}
    graph.recompile()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        there = [
            torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda:0") for t in inputs
        ]
        FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*there)
        tracing = torch._guards.tracing(torch._guards.TracingContext(mode))
        with V.set_fake_mode(mode), tracing:
            lowering = GraphLowering(graph, example_inputs=there)
            with V.set_graph_handler(lowering), V.set_extern_kernel_nodes([]), DebugContext():
                lowering.run(*there)
                code = lowering.codegen()[0]
    return getattr(code, "value", code)


def compiled(code: str, folder: Path) -> list[Kernel]:
    """The kernels in generated ``code``, compiled for sm_90."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    found = []
    for name, source in re.findall(r"async_compile\.triton\('(\w+)', '''(.*?)'''", code, re.S):
        # one of the same name and size, written in the same second, would be taken for this one
        path = Path(tempfile.mkdtemp(dir=folder)) / f"{name}.py"
        path.write_text(
            "import triton\nimport triton.language as tl\nfrom torch._inductor.runtime import "
            "triton_helpers\n"
            "from torch._inductor.runtime.triton_helpers import libdevice, math as tl_math\n"
            + source[source.index("@triton.jit") :]
        )
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        signature = eval(re.search(r"'signature': (\{.*?\})", source)[1])
        constants = {
            (i,): BLOCKS[n] for i, n in enumerate(signature) if signature[n] == "constexpr"
        }
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, n in enumerate(signature)
            if signature[n] != "constexpr"
        }
        asked = ASTSource(getattr(module, name), signature, constants, aligned)
        machine = triton.compile(
            asked, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}
        ).asm["cubin"]
        counts = {
            k: re.search(rf"'{k}': (\w+)", source)[1]
            for k in ("num_load", "num_store", "atomic_add_found")
        }
        loads, stores, atomics = counts.values()
        found.append(Kernel(name, int(loads), int(stores), atomics == "True", len(machine)))
    return found


def parts() -> list[tuple[str, Callable, list[Tensor]]]:
    """Every function that is compiled for CaffeNet, with inputs of its sizes."""
    size, half = 256, torch.bfloat16

    def images(channels: int, side: int, dtype: torch.dtype = half) -> Tensor:
        return torch.empty(size, channels, side, side, dtype=dtype, device="meta").to(
            memory_format=CHANNELS_LAST
        )

    def values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    def pool_gradient(side: int) -> Callable:
        return lambda g, place: kernels.pool_gradient(g, place, side, side)

    def drop_gradient(x: Tensor, seed: Tensor, g: Tensor) -> Tensor:
        with torch.enable_grad():
            return torch.autograd.grad(
                kernels.dropout_reference(x.requires_grad_(), seed, 0.5), x, g
            )[0]

    out = []
    for layer, channels, side, norm in ((1, 96, 55, True), (2, 256, 27, True), (5, 256, 13, False)):
        x, y, g, bias = (
            images(channels, side),
            images(channels, side // 2),
            images(channels, side // 2),
            values(channels),
        )
        place = images(channels, side // 2, torch.int8)
        out.append((f"layer {layer}: bias, pool, ReLU", kernels.pool_relu_fused, [x, bias]))
        if norm:
            out.append((f"layer {layer}: response normalization", kernels.response_norm_fused, [y]))
            out.append(
                (f"layer {layer}: its gradient, ReLU's", kernels.response_norm_gradient, [g, y])
            )
        else:
            out.append((f"layer {layer}: gradient of ReLU", kernels.relu_gradient, [g, y]))
        out.append((f"layer {layer}: gradient of the bias", kernels.bias_gradient, [g]))
        out.append((f"layer {layer}: gradient of the pool", pool_gradient(side), [g, place]))
    x, g = images(384, 13), images(384, 13)
    out.append(("layer 3, 4: bias, ReLU", kernels.relu_fused, [x, values(384)]))
    out.append(("layer 3, 4: gradient of ReLU", kernels.relu_gradient, [g, x]))
    out.append(("layer 3, 4: gradient of the bias", kernels.bias_gradient, [g]))
    out.append(
        ("layer 1: 3 channels as 48", lambda x: kernels.unshuffled(x, 4, 0, 228), [images(3, 227)])
    )
    units = values(size, 4096, dtype=half)
    g = values(size, 4096, dtype=half)
    seed = values(dtype=torch.int64)
    out.append(
        (
            "layer 7, 8: dropout",
            lambda x, seed: kernels.dropout_reference(x, seed, 0.5),
            [units, seed],
        )
    )
    out.append(("layer 7, 8: its gradient", drop_gradient, [units, seed, g]))
    return out


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--json", action="store_true", help="for a program")
    as_json, found = arguments.parse_args().json, []
    pretend()
    with tempfile.TemporaryDirectory() as folder:
        for what, function, inputs in parts():
            outputs = function(*inputs)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            moved = sum(t.nbytes for t in (*inputs, *outputs))
            found.append(
                Part(
                    what,
                    len(inputs[0]),
                    moved,
                    compiled(generated(function, *inputs), Path(folder)),
                )
            )
    if as_json:
        print(json.dumps([asdict(part) for part in found]))
        return
    import triton

    print(
        f"torch {torch.__version__}, triton {triton.__version__}; CaffeNet, bf16, batches of "
        f"{found[0].batch}\n"
    )
    print(f"{'':42} kernels  loads  stores  atomics  MB an image")
    for part in found:
        sums = [
            sum(getattr(k, name) for k in part.kernels) for name in ("loads", "stores", "atomics")
        ]
        loads, stores, atomics = sums
        share = part.bytes / part.batch / 1e6
        print(
            f"{part.what:42} {len(part.kernels):7} {loads:6} {stores:7} {atomics:8} {share:12.3f}"
        )
    # layers 3, 4 and layers 7, 8
    twice = [part for part in found if ", " in part.what.partition(":")[0]]
    number = sum(len(part.kernels) for part in [*found, *twice])
    share = sum(part.bytes / part.batch for part in [*found, *twice]) / 1e6
    print(f"{'a network that is trained whole':42} {number:7} {'':23} {share:12.3f}")


if __name__ == "__main__":
    main()
