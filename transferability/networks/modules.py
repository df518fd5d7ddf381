"""Modules that training here needs in a form of its own: the input,
and what draws or normalizes.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from transferability.networks.config import MEAN, WITH_CLASS_TOKEN, NetworkConfig
from transferability.networks.kernels import dropout

if TYPE_CHECKING:
    from transferability.data.batch import Batch

# of any number of dimensions: keeps statistics of what it saw
BatchNorm = nn.modules.batchnorm._BatchNorm
NORMALIZATIONS = (BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def channels_subtracted(config: NetworkConfig) -> np.ndarray | None:
    """``channel_mean`` of pixels from 0 to 255, (3,) float32; None where the task's mean is."""
    if config.channel_mean is None:
        return None
    return 255 * np.array(config.channel_mean, np.float32)


class Input(nn.Module):
    """Crop, mirror, subtract the mean and scale; the mean is cropped and mirrored as the image is
    (Caffe's order).

    Args:
        mean: (H, W, 3) or (3,), from 0 to 255; it is a part of the network's state.
        scale: a factor, or one a channel; a setting.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: np.ndarray, scale: float | tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))  # a copy
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32), persistent=False)

    def forward(self, batch: "Batch") -> Tensor:
        """(B, 3, crop, crop) float32, or autocast's type; channels last in memory."""
        mean = self.mean if self.mean.dim() == 1 else batch.crop_and_flip(self.mean)
        x = batch.pixels.float().sub_(mean).mul_(self.scale)
        x = x.permute(0, 3, 1, 2)
        if torch.is_autocast_enabled(x.device.type):  # once for all networks that share it
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return x


class _InFloat32(nn.Module):
    """A normalization that computes in float32 whatever the precision, as
    :func:`kernels.response_norm_reference`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class BatchNorm2d(_InFloat32, nn.BatchNorm2d):
    pass


class BatchNorm1d(_InFloat32, nn.BatchNorm1d):
    pass


def channel_dim(shape: tuple[int, ...]) -> int:
    """Which of the dimensions of a layer's output, (C, H, W), (H, W, C), (tokens, C) or (C), are
    the channels: the last, unless the last two are the sides of a square.
    """
    return 0 if len(shape) == 3 and shape[1] == shape[2] else len(shape) - 1


def global_avg_pool(x: Tensor) -> Tensor:
    """The mean over all places of a layer's output, (B, C)."""
    channels = 1 + channel_dim(x.shape[1:])
    places = [dim for dim in range(1, x.dim()) if dim != channels]
    return x.mean(places) if places else x


def extra_tokens(shape: tuple[int, ...]) -> int:
    """How many tokens of a layer's output, (tokens, C), come before those of the image, which are a
    square: the class token first, then registers; 0 of any other shape.
    """
    return shape[0] - math.isqrt(shape[0]) ** 2 if len(shape) == 2 else 0


def pooled(x: Tensor, token_pool: str = MEAN) -> Tensor:
    """What a linear classifier sees of a layer's output, (B, C): the mean over all places or, as
    Oquab et al. ("DINOv2", 2024) have it, the class token and the mean of the image's tokens,
    (B, 2C).
    """
    extra = extra_tokens(tuple(x.shape[1:])) if token_pool == WITH_CLASS_TOKEN else 0
    if not extra:
        return global_avg_pool(x)
    return torch.cat([x[:, 0], x[:, extra:].mean(1)], 1)


class LinearProbeHead(nn.Module):
    """The head of a truncated network: :func:`pooled`, standardized, and a linear
    classifier.

    Standardized by BatchNorm without parameters, as is usual for linear probes (He et al., "Masked
    autoencoders are scalable vision learners", 2022, appendix A.1): one rate then suits features of
    any size, at every depth.

    Args:
        shape: of what the layer below puts out, for one image.
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, token_pool: str = MEAN):
        super().__init__()
        self.token_pool = token_pool
        channels = shape[channel_dim(shape)]
        if token_pool == WITH_CLASS_TOKEN and extra_tokens(shape):
            channels *= 2
        self.norm = BatchNorm1d(channels, affine=False)
        self.linear = nn.Linear(channels, outputs)

    def init_weights(self, generator: torch.Generator) -> None:
        """The initial weights: He et al. (2015) for the weight, 0 for the bias."""
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="linear", generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, outputs)."""
        return self.linear(self.norm(pooled(x, self.token_pool)))


class Dropout(nn.Module):
    """Dropout whose mask is a function of (network, step) only.

    The seed is a tensor: a captured CUDA graph reads a new one every step.

    Args:
        p: the probability to be dropped.
        name: tells the dropouts of a network apart.
        dims: None to drop each value by itself; 2: whole channels;
            1: all of an image (stochastic depth); 0: all.
        active_when_frozen: whether it stays on inside frozen layers, as in Caffe.
    """

    seed: Tensor

    def __init__(
        self, p: float, name: str, dims: int | None = None, active_when_frozen: bool = False
    ):
        super().__init__()
        self.p, self.name, self.dims, self.active_when_frozen = p, name, dims, active_when_frozen
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...)."""
        if not self.training or self.p == 0:
            return x
        return dropout(x, self.seed, self.p, self.dims)
