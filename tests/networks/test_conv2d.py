"""The gradient of a convolution's weight as a product of matrices is torch's, and outputs are to
the bit.
"""

import pytest
import torch
from torch import nn

from transferability.networks.conv2d import FEW, Conv2d, weight_gradient

CASES = [  # channels, outputs, kernel, stride, padding, groups, side, whether it is computed here
    (6, 10, 3, 1, 1, 1, 1, True),
    (6, 10, 3, 1, 1, 1, 2, True),
    (6, 10, 3, 2, 1, 1, 7, True),
    (5, 8, 1, 1, 0, 1, 4, True),
    (3, 8, (3, 1), (2, 1), (1, 0), 1, 4, True),
    (12, 12, 5, 1, 2, 12, 4, True),
    (12, 12, 5, 2, 2, 12, 8, True),
    (12, 12, 3, 1, 1, 12, 4, False),
    (6, 10, 3, 1, 1, 1, 5, False),
    (6, 10, 3, 1, "same", 1, 2, False),
    (6, 10, 3, 1, 1, 2, 2, False),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_torchs_convolution(case, bias):
    channels, outputs, kernel, stride, padding, groups, side, here = case
    torch.manual_seed(0)
    theirs = nn.Conv2d(channels, outputs, kernel, stride, padding, groups=groups, bias=bias)
    theirs = theirs.to(memory_format=torch.channels_last)
    ours = Conv2d(channels, outputs, kernel, stride, padding, groups=groups, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    ours = ours.to(memory_format=torch.channels_last)
    x = torch.randn(3, channels, side, side).to(memory_format=torch.channels_last)
    gradients = []
    for conv in (theirs, ours):
        own = x.clone().requires_grad_()
        y = conv(own)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        gradients.append((y.detach(), own.grad, *[p.grad for p in conv.parameters()]))
    assert here == ("_Convolved" in type(y.grad_fn).__name__)
    assert here == (ours._differs(x)) and (not here or y.shape[2] * y.shape[3] <= FEW)
    for name, a, b in zip(("output", "input", "weight", "bias"), *gradients, strict=False):
        same = torch.equal(a, b) if name in ("output", "input") else torch.allclose(a, b, rtol=1e-4)
        assert same, name


def test_frozen_weights_and_evaluation_are_torchs_own():
    conv, x = Conv2d(4, 4, 3, padding=1), torch.randn(2, 4, 2, 2)
    with torch.no_grad():
        assert conv(x).grad_fn is None
    conv.requires_grad_(False)
    assert "_Convolved" not in type(conv(x.requires_grad_()).grad_fn).__name__
    conv.requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "_Convolved" not in type(conv(x).grad_fn).__name__


def test_the_gradient_is_the_derivative():
    """In float64, against differences."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 3, 3).double(), torch.randn(4, 3, 3, 3).double()

    def loss(w):
        return (torch.nn.functional.conv2d(x, w, None, 2, 1) ** 2).sum()

    y = torch.nn.functional.conv2d(x, weight, None, 2, 1)
    found = weight_gradient(x, 2 * y, weight, (2, 2), (1, 1), 1)
    for place in ((0, 0, 0, 0), (3, 2, 1, 2), (1, 1, 2, 0)):
        step = torch.zeros_like(weight)
        step[place] = 1e-6
        assert found[place].item() == pytest.approx(
            float(loss(weight + step) - loss(weight - step)) / 2e-6, rel=1e-6
        )
