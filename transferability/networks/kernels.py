"""The operations after a convolution, and dropout: plain, and as fused kernels for a GPU.

The plain operations are the definition. On a GPU they would pass over memory several times, so
``torch.compile`` makes one kernel of each function below (``tests/networks/sm90.py`` prints the
kernels). Where compilation does not work, the plain operations run.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferability.networks.compiled import compiled, fuses

ALPHA, BETA = 1e-4, 0.75  # of CaffeNet's response normalization; Caffe divides alpha by the window
WINDOW = 5
CHANNELS = 8  # bf16 values that a tensor core reads at once


# Plain operations.


def response_norm_reference(x: Tensor) -> Tensor:
    """Local response normalization across channels, (..., C, H, W), as in CaffeNet;
    computed in float32 at least.
    """
    channels, y = x.shape[-3], x.to(torch.promote_types(x.dtype, torch.float32))
    squares = F.pad(y * y, (0, 0, 0, 0, WINDOW // 2, WINDOW // 2))
    window = sum(squares.narrow(-3, i, channels) for i in range(WINDOW))
    return (y * (1 + ALPHA / WINDOW * window) ** -BETA).to(x.dtype)


def activation_reference(x: Tensor, pool: bool, norm: bool) -> Tensor:
    """Apply 3x3/2 max-pool (rounded up as in Caffe), ReLU and response normalization to ``x``,
    (B, C, H, W).

    Caffe computes ReLU before the max-pool. The two commute exactly, gradients included. With
    pooling first, ReLU processes a quarter of the values. ``x`` may be overwritten.
    """
    x = F.max_pool2d(x, 3, 2, ceil_mode=True) if pool else x
    x = F.relu_(x)
    return response_norm_reference(x) if norm else x


def dropout_reference(x: Tensor, seed: Tensor, p: float, dims: int | None = None) -> Tensor:
    """Keep each value of ``x``, (B, ...), with probability 1-p and scale it by 1/(1-p), as in
    Caffe.

    With ``dims``, values with the same index in the first ``dims`` dimensions are kept or dropped
    together.
    """
    shape = x.shape if dims is None else (*x.shape[:dims], *[1] * (x.dim() - dims))
    return x * (counter_uniform(seed, shape, x.device) >= p) / (1 - p)


def counter_uniform(seed: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1), float32, that depend only on ``seed`` (an int64 scalar) and
    position, on every device.

    SplitMix64 (Steele, Lea & Flood 2014) of a counter, in plain operations. Unlike a generator,
    whose state has to be set from the host, it can be captured, fused and vectorized over networks.
    """
    golden = 0x9E3779B97F4A7C15
    # seed + golden * place modulo 2^64, without a product of a place and a large number: a compiler
    # treats a function of places alone as an index and computes it with 32 bits.
    places = torch.arange(1, math.prod(shape) + 1, device=device)
    z = (seed * _signed(pow(golden, -1, 1 << 64)) + places) * _signed(golden)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ _shifted(z, shift)) * _signed(factor)
    z = z ^ _shifted(z, 31)
    return (_shifted(z, 40).float() * 2**-24).reshape(shape)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's shift repeats the sign)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number."""
    return value - (1 << 64) if value >> 63 else value


# Fused kernels.


def activation(x: Tensor, bias: Tensor | None, pool: bool, norm: bool) -> Tensor:
    """:func:`activation_reference` of ``x`` + ``bias``, (B, C, H, W).

    On a GPU, the bias needs no additional pass over memory.
    """
    if fuses(x) and (pool or norm or bias is not None):
        return FusedActivation.apply(x, bias, pool, norm)
    return activation_reference(
        x if bias is None else x + bias.to(x.dtype)[:, None, None], pool, norm
    )


def dropout(x: Tensor, seed: Tensor, p: float, dims: int | None = None) -> Tensor:
    """:func:`dropout_reference`."""
    return (compiled(dropout_reference) if fuses(x) else dropout_reference)(x, seed, p, dims)


class FusedActivation(torch.autograd.Function):
    """:func:`activation` with one function per kernel, deterministic (no atomic additions)."""

    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor | None, pool: bool, norm: bool) -> Tensor:
        y, place = (
            compiled(pool_relu_fused)(x, bias) if pool else (compiled(relu_fused)(x, bias), None)
        )
        ctx.save_for_backward(y, place)
        ctx.size, ctx.norm = x.shape[-2:], norm
        return compiled(response_norm_fused)(y) if norm else y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        y, place = ctx.saved_tensors
        gradient = compiled(response_norm_gradient if ctx.norm else relu_gradient)(gradient, y)
        # Before the pooling gradient spreads the values: the same sum of a quarter as many.
        of_bias = compiled(bias_gradient)(gradient) if ctx.needs_input_grad[1] else None
        return (
            gradient if place is None else compiled(pool_gradient)(gradient, place, *ctx.size),
            of_bias,
            None,
            None,
        )


def relu_fused(x: Tensor, bias: Tensor | None) -> Tensor:
    """ReLU(``x`` + ``bias``), (B, C, H, W)."""
    return F.relu(x if bias is None else x + bias[:, None, None]).to(x.dtype)


def pool_relu_fused(x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """ReLU(max-pool(``x``) + ``bias``), and the position of each maximum in its window:
    4 x row + column, int8.

    As in torch, the first of equal values is chosen, and NaN before any number.
    """
    high, wide = (-(-(side - 3) // 2) + 1 for side in x.shape[-2:])
    x = F.pad(
        x, (0, 2 * wide + 1 - x.shape[-1], 0, 2 * high + 1 - x.shape[-2]), value=float("-inf")
    )
    best = x[..., : 2 * high - 1 : 2, : 2 * wide - 1 : 2]
    place = torch.zeros_like(best, dtype=torch.int8)
    for row, column in [(i, j) for i in range(3) for j in range(3)][1:]:
        seen = x[..., row : row + 2 * high - 1 : 2, column : column + 2 * wide - 1 : 2]
        larger = (seen > best) | seen.isnan()
        best, place = (
            torch.where(larger, seen, best),
            torch.where(larger, 4 * row + column, place).to(torch.int8),
        )
    return relu_fused(best, bias), place


def pool_gradient(gradient: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    """The gradient of the max-pool's input, (B, C, height, width).

    Each value sums over the four windows that may contain it.
    """

    def windows(t: Tensor, up: int, left: int) -> Tensor:
        """For each value, the window that begins ``up`` pairs of rows and ``left`` pairs of
        columns before the value's own pair.
        """
        high, wide = (height + 1) // 2, (width + 1) // 2
        t = t[:, 1 - up : 1 - up + high, None, 1 - left : 1 - left + wide, None].expand(
            -1, -1, 2, -1, 2, -1
        )
        return t.reshape(len(t), 2 * high, 2 * wide, -1)[:, :height, :width]

    around = (0, 0, 1, 1, 1, 1)  # channels last, as in memory
    gradient = F.pad(gradient.permute(0, 2, 3, 1), around)
    place = F.pad(place.permute(0, 2, 3, 1), around, value=-1)
    row = (torch.arange(height, device=place.device) % 2)[:, None, None]
    column = (torch.arange(width, device=place.device) % 2)[:, None]
    total: Any = 0
    for up, left in ((0, 0), (0, 1), (1, 0), (1, 1)):
        mine = windows(place, up, left) == 4 * (row + 2 * up) + column + 2 * left
        total = total + torch.where(mine, windows(gradient, up, left), 0).float()
    return total.to(gradient.dtype).permute(0, 3, 1, 2)


def response_norm_fused(y: Tensor) -> Tensor:
    """:func:`response_norm_reference` with the power computed from two roots."""
    channels, z = y.shape[-3], y.float()
    squares = F.pad(z * z, (0, 0, 0, 0, WINDOW // 2, WINDOW // 2))
    root = torch.rsqrt(
        1 + ALPHA / WINDOW * sum(squares.narrow(-3, i, channels) for i in range(WINDOW))
    )
    return (z * root * root.sqrt()).to(y.dtype)


def response_norm_gradient(gradient: Tensor, y: Tensor) -> Tensor:
    """The gradient of ReLU's input from the gradient of ``response_norm_fused(y)``; y = ReLU(...).

    With s = 1 + alpha/5 (sum of squares over the window):
    dy_i = g_i s_i^-beta - 2 beta alpha/5 y_i sum_j g_j y_j s_j^-(beta+1).

    Written out over the nine channels that each channel depends on, so that it compiles to one
    kernel without intermediate results.
    """
    channels, half = y.shape[-3], WINDOW // 2
    padded_y = F.pad(y, (0, 0, 0, 0, 2 * half, 2 * half)).float()
    padded_g = F.pad(gradient, (0, 0, 0, 0, half, half)).float()
    ys = [padded_y.narrow(-3, i, channels) for i in range(2 * WINDOW - 1)]
    gs = [padded_g.narrow(-3, i, channels) for i in range(WINDOW)]
    roots = [
        torch.rsqrt(1 + ALPHA / WINDOW * sum(v * v for v in ys[i : i + WINDOW]))
        for i in range(WINDOW)
    ]
    powers = [r * r.sqrt() for r in roots]
    through = sum(gs[i] * ys[i + half] * powers[i] * roots[i] * roots[i] for i in range(WINDOW))
    mine = ys[2 * half]
    out = gs[half] * powers[half] - 2 * BETA * ALPHA / WINDOW * mine * through
    return torch.where(mine > 0, out, 0).to(gradient.dtype)


def relu_gradient(gradient: Tensor, y: Tensor) -> Tensor:
    """The gradient of ReLU's input; ``y`` is ReLU's output."""
    return torch.where(y > 0, gradient, 0)


def bias_gradient(gradient: Tensor) -> Tensor:
    """Sum a gradient, (B, C, H, W), to (C,), float32."""
    return gradient.float().sum((0, 2, 3))


def conv2d_unshuffled(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply ``conv`` without its bias; few channels with a stride become many channels without.

    In layer 1 of CaffeNet, 3 channels (padded to 8 by a tensor core) under 11x11/4 kernels become
    48 channels under 3x3/1: the same sum from 432 products (69 of them with zeros), not 968.
    """
    stride, padding = conv.stride[0], int(conv.padding[0])
    if stride == 1 or conv.in_channels >= CHANNELS or x.requires_grad:
        return F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    kernel = conv.kernel_size[0]
    size = (x.shape[-1] + 2 * padding - kernel) // stride + 1
    cells = -(-kernel // stride)  # of stride x stride values, per kernel side
    side, grown = stride * (size + cells - 1), stride * cells
    weight = F.pixel_unshuffle(F.pad(conv.weight, (0, grown - kernel, 0, grown - kernel)), stride)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return F.conv2d(compiled(unshuffled)(x, stride, padding, side), weight, groups=conv.groups)


def unshuffled(x: Tensor, stride: int, padding: int, side: int) -> Tensor:
    """Pad ``x`` to ``side`` and apply ``pixel_unshuffle``: (B, C stride^2, side/stride,
    side/stride).
    """
    x = F.pad(x, (padding, side - padding - x.shape[-1], padding, side - padding - x.shape[-2]))
    return F.pixel_unshuffle(x, stride).contiguous(memory_format=torch.channels_last)
