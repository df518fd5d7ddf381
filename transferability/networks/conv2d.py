"""A convolution with a faster weight gradient for small outputs on a CPU.

For outputs with few positions (the last layers of a network at 32 to 128 pixels), oneDNN's kernel
for this gradient can take several times as long as a matrix product, depending on the processor
(docs/performance/cpu.md has a measurement to repeat). Outputs and input gradients are bit-identical
to torch's. The weight gradient is the same sum in another order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 16  # output positions up to which the gradient is computed here
LARGE = 5  # smallest kernel size, for depthwise convolutions


class Conv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` with the weight gradient described above."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``, (B, C, H, W)."""
        if not (torch.is_grad_enabled() and self.weight.requires_grad and self._differs(x)):
            return super().forward(x)
        return _Convolved.apply(x, self.weight, self.bias, self.stride, self.padding, self.groups)

    def _differs(self, x: Tensor) -> bool:
        """Whether the weight gradient for this input is computed here, not by torch."""
        plain = self.padding_mode == "zeros" and self.dilation == (1, 1)
        alone = self.groups == self.in_channels == self.out_channels
        if not plain or isinstance(self.padding, str) or not (self.groups == 1 or alone):
            return False
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return False
        sides = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        height, width = ((size + 2 * p - k) // s + 1 for size, k, s, p in sides)
        return height * width <= FEW and (self.groups == 1 or min(self.kernel_size) >= LARGE)


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, groups) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings, ctx.has_bias = (stride, padding, groups), bias is not None
        return F.conv2d(x, weight, bias, stride, padding, 1, groups)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.settings
        below = None
        if ctx.needs_input_grad[0]:
            below = torch.ops.aten.convolution_backward(
                gradient,
                x,
                weight,
                None,
                stride,
                padding,
                (1, 1),
                False,
                (0, 0),
                groups,
                (True, False, False),
            )[0]
        bias = gradient.sum((0, 2, 3)) if ctx.has_bias else None
        return below, weight_gradient(x, gradient, weight, *ctx.settings), bias, None, None, None


def weight_gradient(
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
) -> Tensor:
    """Compute the gradient of a convolution's weight, (O, C / groups, kh, kw).

    Args:
        x: input of the convolution, (B, C, H, W).
        gradient: gradient of the output, (B, O, h, w).
        groups: 1 or C = O.
    """
    height, width = weight.shape[2:]
    (down, right), (top, left) = stride, padding
    places = gradient.permute(0, 2, 3, 1)
    rows, columns = (size * step for size, step in zip(places.shape[1:3], stride, strict=True))
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
    seen = [  # the inputs of each kernel tap, (B, h, w, C)
        padded[:, i : i + rows : down, j : j + columns : right]
        for i in range(height)
        for j in range(width)
    ]
    if groups > 1:
        taps = torch.stack([(part * places).sum((0, 1, 2)) for part in seen], 1)
        return taps.view(-1, 1, height, width)
    matrix = torch.cat([part.reshape(-1, part.shape[3]) for part in seen], 1)
    taps = places.reshape(-1, places.shape[3]).t() @ matrix
    return taps.view(-1, height, width, x.shape[1]).permute(0, 3, 1, 2)
