"""Small networks of equal blocks: with shortcuts, without them, and transformers.

``residual`` and ``plain`` are the two networks that He et al. compare ("Deep residual learning for
image recognition", 2016, section 4.2): the same convolutions, widths and parameters, with and
without shortcuts. Layer 1 is the stem, then a layer a block, then the classifier.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferability.draws import torch_generator
from transferability.networks.chain import NORMALISATIONS, NetworkConfig
from transferability.networks.modules import BatchNorm2d, pooled

RESIDUAL, PLAIN, TRANSFORMER = "residual", "plain", "transformer"


@dataclass(frozen=True, kw_only=True)
class BlocksConfig(NetworkConfig):
    """``network=residual``, ``network=plain``, ``network=vit``."""

    block: str  # residual | plain | transformer
    widths: tuple[int, ...]  # channels of each stage; from one to the next images are halved
    blocks: int  # blocks of each stage
    stride: int  # of the stem; pixels a side of a transformer's patches
    heads: int = 4  # of a transformer's attention

    @property
    def whole_depth(self) -> int:
        return 2 + self.blocks * len(self.widths)

    def check(self) -> None:
        super().check()
        self._needs(
            self.block in (RESIDUAL, PLAIN, TRANSFORMER), "block", "residual, plain or transformer"
        )
        for key in ("blocks", "stride", "heads"):
            self._needs(getattr(self, key) > 0, key, "a number above 0")
        self._needs(min(self.widths, default=0) > 0, "widths", "numbers above 0")
        fits = list(self.widths) == sorted(self.widths)
        self._needs(fits, "widths", "numbers that do not fall: a shortcut has no fewer channels")
        if self.block == TRANSFORMER:
            self._needs(len(self.widths) == 1, "widths", "one number for a transformer")
            self._needs(self.widths[0] % self.heads == 0, "heads", "a divisor of the width")
            fits = self.input_size % self.stride == 0
            self._needs(fits, "stride", f"a divisor of network.input_size={self.input_size}")

    @property
    def normalises_batches(self) -> bool:
        return bool(self.depth) or self.block != TRANSFORMER

    @property
    def stackable(self) -> bool:
        return False

    def make_layers(self) -> list[nn.Module]:
        if self.block == TRANSFORMER:
            return [
                Patches(self.widths[0], self.stride, self.input_size),
                *(_encoder_block(self.widths[0], self.heads) for _ in range(self.blocks)),
                nn.Sequential(nn.LayerNorm(self.widths[0]), MeanOfPlaces(), self._classifier()),
            ]
        widths = [width for width in self.widths for _ in range(self.blocks)]
        blocks = [
            Block(below, width, 2 if i and i % self.blocks == 0 else 1, self.block == RESIDUAL)
            for i, (below, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
        ]
        return [
            Stem(widths[0], self.stride),
            *blocks,
            nn.Sequential(MeanOfPlaces(), self._classifier()),
        ]

    def _classifier(self) -> nn.Linear:
        return nn.Linear(self.widths[-1], self.outputs)

    def verify(self) -> None:
        """Nothing: they are cut from nothing."""

    def draw(self, layers: nn.ModuleList, numbers: range, key: tuple) -> None:
        """Weights: He et al. (2015) for convolutions, Glorot's for a transformer's matrices, as
        torchvision's; normal with 0.02 for positions; biases 0.
        """
        for number in numbers:
            generator = torch_generator(*key, "init", number)
            for module in layers[number - 1].modules():
                if isinstance(module, NORMALISATIONS):
                    module.reset_parameters()
                    continue
                for parameter in module.parameters(recurse=False):
                    with torch.no_grad():
                        parameter.copy_(_drawn(module, parameter, generator))


def _drawn(module: nn.Module, parameter: Tensor, generator: torch.Generator) -> Tensor:
    # one memory order for the draw, whatever the order the network keeps its weights in
    value = torch.zeros(parameter.shape)
    if isinstance(module, Positions):
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
    """Two 3x3 convolutions with BatchNorm, and a shortcut or none.

    The shortcut has no parameters (He et al., option A): a stride skips places, and channels that
    are new begin at 0.
    """

    def __init__(self, below: int, width: int, stride: int, shortcut: bool):
        super().__init__()
        self.conv1, self.norm1 = _convolution(below, width, 3, stride), BatchNorm2d(width)
        self.conv2, self.norm2 = _convolution(width, width, 3, 1), BatchNorm2d(width)
        self.stride, self.new, self.shortcut = stride, width - below, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W)."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.shortcut:
            y = y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        return F.relu(y)


def _convolution(below: int, width: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(below, width, kernel, stride, kernel // 2, bias=False)


class Patches(nn.Sequential):
    """Patches of an image as tokens: a convolution, and what is learned of each place."""

    def __init__(self, width: int, patch: int, size: int):
        super().__init__(nn.Conv2d(3, width, patch, patch), Positions((size // patch) ** 2, width))


class Positions(nn.Module):
    """(B, C, H, W) to (B, tokens, C), with a learned vector for each place."""

    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2) + self.vectors


class MeanOfPlaces(nn.Module):
    """The mean over all places, (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return pooled(x)


def _encoder_block(width: int, heads: int) -> nn.Module:
    """Pre-norm attention and a perceptron four times as wide (Dosovitskiy et al., 2021)."""
    from torchvision.models.vision_transformer import EncoderBlock  # takes seconds

    return EncoderBlock(heads, width, 4 * width, 0.0, 0.0, partial(nn.LayerNorm, eps=1e-6))
