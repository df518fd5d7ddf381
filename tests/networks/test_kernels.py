"""Kernels for a GPU: the numbers of the plain operations they stand for, also compiled;
what an H100 would run.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._inductor import config
from torch.fx.experimental.proxy_tensor import make_fx

from tests import crash
from transferability.networks import kernels
from transferability.networks.compiled import SHAPES, compiled, compiles
from transferability.networks.kernels import (
    FusedActivation,
    activation_reference,
    dropout_reference,
)

CXX = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
KINDS = {
    "pool and norm": (True, True),
    "pool": (True, False),
    "norm": (False, True),
    "neither": (False, False),
}


@pytest.fixture(autouse=True)
def vectors():
    """Of 256 bits, which every compiler has: torch tries all that the CPU has, which takes longer
    than the kernels.
    """
    with config.patch({"cpp.vec_isa_ok": True, "cpp.simdlen": 256}):
        yield


@pytest.fixture
def stance(request):
    """The kernels as plain operations one after the other, or compiled for this CPU."""
    with torch.compiler.set_stance("force_eager" if request.param == "eager" else "default"):
        yield


def both(x, bias, pool, norm):
    """Output, gradient of x and of the bias, of the kernels and of the plain operations,
    for one random weighting.
    """
    out = []
    for fast in (True, False):
        inputs = [x.clone().requires_grad_(), bias.clone().requires_grad_()]
        if fast:
            y = FusedActivation.apply(*inputs, pool, norm)
        else:
            y = activation_reference(inputs[0] + inputs[1].to(x.dtype)[:, None, None], pool, norm)
        weights = torch.linspace(-1, 2, y.numel()).reshape(y.shape).to(y)
        out.append([y.detach(), *torch.autograd.grad(y, inputs, weights)])
    return out


@pytest.mark.parametrize(
    ("stance", "kind"),
    [
        *(("eager", kind) for kind in KINDS),
        pytest.param("compiled", "pool and norm", marks=[CXX, pytest.mark.slow]),
    ],
    indirect=["stance"],
)
def test_kernels_are_the_plain_operations(request, stance, kind):
    for side in (13,) if "compiled" in request.node.name else (55, 27, 13, 10, 4, 3):
        x = torch.randn(3, 16, side, side, generator=torch.Generator().manual_seed(side)).mul_(40)
        x = x.to(memory_format=torch.channels_last)
        fast, plain = both(x, torch.linspace(-20, 20, 16), *KINDS[kind])
        for found, expected in zip(fast, plain, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
        assert torch.equal(fast[1] != 0, plain[1] != 0)  # the gradient goes to the same places
        assert all(t.is_contiguous(memory_format=torch.channels_last) for t in fast[:2])


@pytest.mark.parametrize("pool", [True, False])
def test_in_bf16_they_are_no_further_from_float32_than_the_plain_operations(pool):
    x = torch.randn(4, 32, 27, 27, generator=torch.Generator().manual_seed(0)).mul_(40).bfloat16()
    bias = torch.randn(32, generator=torch.Generator().manual_seed(1))
    with torch.compiler.set_stance("force_eager"):
        exact = both(x.float(), bias, pool, True)[1]
        fast, plain = both(x, bias, pool, True)
    for found, other, expected in zip(fast, plain, exact, strict=True):
        error, rounding = ((t.float() - expected).norm() / expected.norm() for t in (found, other))
        assert error <= 1.1 * rounding and error < 0.02
    assert fast[1].dtype == torch.bfloat16 and fast[2].dtype == torch.float32


def test_pooling_chooses_as_torch_the_first_of_equal_ones_and_no_number_before_any():
    x = torch.tensor([1.0, 2.0, 2.0, float("nan"), 0.0, 2.0, 1.0]).repeat(7, 1)[None, None]
    values, place = kernels.pool_relu_fused(x, None)
    expected, index = F.max_pool2d(x, 3, 2, ceil_mode=True, return_indices=True)
    assert torch.equal(values.nan_to_num(99), expected.nan_to_num(99)) and values.isnan().any()
    starts = 2 * 7 * torch.arange(3)[:, None] + 2 * torch.arange(3)
    numbers = ~expected.isnan()
    assert torch.equal((starts + 7 * (place // 4) + place % 4)[numbers], index[numbers])


@pytest.mark.parametrize(
    "size", [(227, 11, 4, 0, 1), (32, 5, 2, 2, 1), (33, 7, 3, 1, 1), (31, 3, 2, 1, 3)], ids=str
)
def test_few_channels_and_a_stride_are_many_channels_and_none(size):
    side, kernel, stride, padding, groups = size
    conv = (
        nn.Conv2d(3, 6, kernel, stride, padding, groups=groups)
        .double()
        .to(memory_format=torch.channels_last)
    )
    x = torch.randn(2, 3, side, side, dtype=torch.float64).to(memory_format=torch.channels_last)
    with torch.compiler.set_stance("force_eager"):
        found = kernels.conv2d_unshuffled(x, conv)
    expected = conv(x) - conv.bias[:, None, None]
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, conv.weight, weights)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_other_convolutions_stay_as_they_are():
    for conv in (nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(8, 4, 3, 2, groups=2)):
        x = torch.randn(2, conv.in_channels, 9, 9)
        bare = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, 1, conv.groups)
        assert torch.equal(kernels.conv2d_unshuffled(x, conv), bare)


def test_a_function_is_compiled_for_many_shapes_in_every_thread():
    """Backward passes on a GPU have a thread of their own,
    where torch would stop at eight shapes.
    """
    with torch.compiler.set_stance("force_eager"), ThreadPoolExecutor(1) as thread:
        gradient = thread.submit(
            compiled(kernels.relu_gradient), torch.ones(2), torch.tensor([1.0, -1.0])
        )
        assert gradient.result().tolist() == [1, 0]
        assert thread.submit(lambda: torch._dynamo.config.recompile_limit).result() == SHAPES == 64


@CXX
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_dropout_is_dropout(dtype):
    x, seed = torch.randn(8, 64, dtype=dtype), torch.tensor(1234567890123456789)
    fast, plain = (x.clone().requires_grad_() for _ in range(2))
    found, expected = (
        torch.compile(dropout_reference, dynamic=False)(fast, seed, 0.5),
        dropout_reference(plain, seed, 0.5),
    )
    assert torch.equal(found, expected) and 0.3 < (found == 0).float().mean() < 0.7
    assert torch.equal(
        *(torch.autograd.grad(y.float().sum(), z)[0] for y, z in ((found, fast), (expected, plain)))
    )


def test_no_place_is_multiplied_by_a_large_number():
    """A compiler computes with places in 32 bits; see draws.uniform."""
    nodes = make_fx(dropout_reference)(torch.ones(4, 8), torch.tensor(5), 0.5, None).graph.nodes
    products = [node for node in nodes if "mul" in str(node.target)]
    assert len(products) >= 4
    for node in products:
        places = [a for a in node.args if "arange" in str(getattr(a, "target", ""))]
        assert not places or all(abs(a) < 2**31 for a in node.args if isinstance(a, int)), node


def tried_without_a_compiler(folder: Path) -> None:
    """What is found, and said, of two trials, into the file ``said``."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    with (
        (folder / "said").open("w") as said,
        redirect_stderr(said),
        config.patch({"cpp.cxx": (None, "no-such-compiler")}),
    ):
        print(compiles(torch.device("cpu")), compiles(torch.device("cpu")), file=said)


@CXX
@pytest.mark.slow
def test_without_a_compiler_nothing_is_fused_and_one_line_says_so(tmp_path, monkeypatch):
    """Also where an earlier process of this user had one, and its kernels are kept."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with config.patch(cpp_cache_precompile_headers=False):  # for one kernel
        assert compiles.__wrapped__(torch.device("cpu"))
    process = crash.forked(tried_without_a_compiler, tmp_path)
    process.join()
    *warnings, found = (tmp_path / "said").read_text().splitlines()
    assert process.exitcode == 0 and found == "False False"
    said = [line for line in warnings if "no kernels are fused" in line]
    assert len(said) == 1 and said[0].startswith("nothing can be compiled for cpu (")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton (Linux)")
def test_kernels_of_an_h100_compile_and_are_as_few_as_they_should_be():
    command = [sys.executable, "-m", "tests.networks.sm90", "--json"]
    done = subprocess.run(command, cwd=crash.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parts = {part["what"]: part for part in json.loads(done.stdout)}
    assert len(parts) == 20
    for what, part in parts.items():
        # a sum needs two
        assert len(part["kernels"]) == (2 if "gradient of the bias" in what else 1), what
        assert all(k["compiled"] > 0 and not k["atomics"] for k in part["kernels"]), what
    # Layer 1, both ways: read and written once each, what pooling leaves being a quarter.
    each = 2 * 256 * 96 * 55 * 55, 2 * 256 * 96 * 27 * 27
    passes = [
        p["bytes"]
        for what, p in parts.items()
        if what.startswith("layer 1: ") and "channels" not in what
    ]
    assert sum(passes) == pytest.approx(2 * each[0] + 9 * each[1], rel=1e-3)
