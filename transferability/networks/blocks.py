"""Small networks of similar blocks: residual networks, plain networks and transformers.

``residual`` and ``plain`` are the two networks that He et al. compare ("Deep residual learning for
image recognition", 2016, section 4.2): the same convolutions, widths and parameters, with and
without shortcuts. Layer 1 is the stem, followed by one layer per block and the classifier.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferability.networks.config import RESIDUAL, TRANSFORMER, BlocksConfig
from transferability.networks.modules import (
    NORMALIZATIONS,
    BatchNorm2d,
    channel_dim,
    global_avg_pool,
)
from transferability.rng import torch_rng


def make_layers(config: BlocksConfig) -> list[nn.Module]:
    if config.block == TRANSFORMER:
        return [
            PatchEmbed(config.widths[0], config.stride, config.input_size),
            *(_encoder_block(config.widths[0], config.heads) for _ in range(config.blocks)),
            nn.Sequential(nn.LayerNorm(config.widths[0]), GlobalAvgPool(), _classifier(config)),
        ]
    widths = [width for width in config.widths for _ in range(config.blocks)]
    blocks = [
        Block(below, width, 2 if i and i % config.blocks == 0 else 1, config.block == RESIDUAL)
        for i, (below, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
    ]
    return [
        Stem(widths[0], config.stride),
        *blocks,
        nn.Sequential(GlobalAvgPool(), _classifier(config)),
    ]


def _classifier(config: BlocksConfig) -> nn.Linear:
    return nn.Linear(config.widths[-1], config.n_outputs)


def init_weights(config: BlocksConfig, layers: nn.ModuleList, numbers: range, key: tuple) -> None:
    """Draw convolutions as in He et al. (2015), matrices as in Glorot's initialization (as
    torchvision's transformers do) and positions from N(0, 0.02^2); set biases to 0.
    """
    for number in numbers:
        generator = torch_rng(*key, "init", number)
        for module in layers[number - 1].modules():
            if isinstance(module, NORMALIZATIONS):
                module.reset_parameters()
                continue
            for parameter in module.parameters(recurse=False):
                with torch.no_grad():
                    parameter.copy_(_drawn(module, parameter, generator))


def _drawn(module: nn.Module, parameter: Tensor, generator: torch.Generator) -> Tensor:
    # draw in one memory format, whatever the format of the network's weights
    value = torch.zeros(parameter.shape)
    if isinstance(module, PositionEmbedding):
        return value.normal_(0, 0.02, generator=generator)
    if parameter.dim() == 1:
        return value
    if parameter.dim() == 4:
        return nn.init.kaiming_normal_(value, nonlinearity="relu", generator=generator)
    return nn.init.xavier_uniform_(value, generator=generator)


class Stem(nn.Sequential):
    """A convolution with BatchNorm and ReLU."""

    def __init__(self, width: int, stride: int):
        super().__init__(
            _convolution(3, width, 2 * stride + 1, stride), BatchNorm2d(width), nn.ReLU()
        )


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm and an optional shortcut.

    The shortcut has no parameters (He et al., option A): it skips positions by the stride and pads
    new channels with 0.
    """

    def __init__(self, below: int, width: int, stride: int, shortcut: bool):
        super().__init__()
        self.conv1, self.norm1 = _convolution(below, width, 3, stride), BatchNorm2d(width)
        self.conv2, self.norm2 = _convolution(width, width, 3, 1), BatchNorm2d(width)
        self.stride, self.new, self.shortcut = stride, width - below, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to ``x``, (B, C, H, W)."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.shortcut:
            y = y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        return F.relu(y)


def _convolution(below: int, width: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(below, width, kernel, stride, kernel // 2, bias=False)


class PatchEmbed(nn.Sequential):
    """Image patches as tokens: a convolution and learned position embeddings."""

    def __init__(self, width: int, patch: int, size: int):
        super().__init__(
            nn.Conv2d(3, width, patch, patch), PositionEmbedding((size // patch) ** 2, width)
        )


class PositionEmbedding(nn.Module):
    """Flatten (B, C, H, W) to (B, tokens, C), and add a learned vector per position."""

    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2) + self.vectors


class GlobalAvgPool(nn.Module):
    """The mean over all positions, (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return global_avg_pool(x, channel_dim(x.shape[1:]))


def _encoder_block(width: int, heads: int) -> nn.Module:
    """Pre-norm attention and an MLP four times as wide (Dosovitskiy et al., 2021)."""
    from torchvision.models.vision_transformer import EncoderBlock  # a slow import (seconds)

    return EncoderBlock(heads, width, 4 * width, 0.0, 0.0, partial(nn.LayerNorm, eps=1e-6))
