"""Modules with behavior of their own in training: input, normalization, head and dropout."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from transferability.networks.config import MEAN, WITH_CLASS_TOKEN, NetworkConfig
from transferability.networks.kernels import dropout

if TYPE_CHECKING:
    from transferability.data.batch import Batch

# base class for any number of dimensions: has running statistics
BatchNorm = nn.modules.batchnorm._BatchNorm
NORMALIZATIONS = (BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def channels_subtracted(config: NetworkConfig) -> np.ndarray | None:
    """``channel_mean`` for pixels from 0 to 255, (3,) float32; None for the mean of the task."""
    if config.channel_mean is None:
        return None
    return 255 * np.array(config.channel_mean, np.float32)


class Input(nn.Module):
    """Crop, mirror, subtract the mean and scale; the mean is cropped and mirrored like the image
    (Caffe's order).

    Args:
        mean: (H, W, 3) or (3,), from 0 to 255; part of the network's state.
        scale: a factor, or one factor per channel; not part of the state.
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
        if torch.is_autocast_enabled(x.device.type):  # once for all networks that share the input
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return x


class _InFloat32(nn.Module):
    """A normalization in float32 at any precision, like :func:`kernels.response_norm_reference`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class BatchNorm2d(_InFloat32, nn.BatchNorm2d):
    pass


class BatchNorm1d(_InFloat32, nn.BatchNorm1d):
    pass


def channel_dim(shape: tuple[int, ...]) -> int:
    """The channel dimension of a layer's output, (C, H, W), (H, W, C), (tokens, C) or (C): the
    last, unless the last two of three dimensions are equal. Three equal ones fit both.
    """
    return 0 if len(shape) == 3 and shape[1] == shape[2] else len(shape) - 1


def global_avg_pool(x: Tensor, channels: int) -> Tensor:
    """The mean over all positions of a layer's output, (B, C).

    Args:
        channels: the channel dimension of the output for one image.
    """
    places = [dim for dim in range(1, x.dim()) if dim != 1 + channels]
    return x.mean(places) if places else x


def extra_tokens(shape: tuple[int, ...]) -> int:
    """The number of tokens before the square grid of image tokens in a layer's output,
    (tokens, C): the class token first, then registers. 0 for any other shape.
    """
    return shape[0] - math.isqrt(shape[0]) ** 2 if len(shape) == 2 else 0


def pooled(x: Tensor, channels: int, token_pool: str = MEAN) -> Tensor:
    """Pool a layer's output for a linear classifier: the mean over all positions, (B, C), or the
    class token and the mean of the image tokens, (B, 2C), as in Oquab et al. ("DINOv2", 2024).

    Args:
        channels: the channel dimension of the output for one image (``LayerProfile.channel_dim``).
    """
    extra = extra_tokens(tuple(x.shape[1:])) if token_pool == WITH_CLASS_TOKEN else 0
    if not extra:
        return global_avg_pool(x, channels)
    return torch.cat([x[:, 0], x[:, extra:].mean(1)], 1)


class LinearProbeHead(nn.Module):
    """The head of a truncated network: pooling (:func:`pooled`), standardization and a linear
    classifier.

    BatchNorm without parameters standardizes features, as is usual for linear probes (He et al.,
    "Masked autoencoders are scalable vision learners", 2022, appendix A.1): one learning rate then
    suits features of any scale, at every depth.

    Args:
        shape: output shape of the layer below, for one image.
        channel_dim: its channel dimension.
    """

    def __init__(
        self, shape: tuple[int, ...], channel_dim: int, outputs: int, token_pool: str = MEAN
    ):
        super().__init__()
        self.channel_dim, self.token_pool = channel_dim, token_pool
        channels = shape[channel_dim]
        if token_pool == WITH_CLASS_TOKEN and extra_tokens(shape):
            channels *= 2
        self.norm = BatchNorm1d(channels, affine=False)
        self.linear = nn.Linear(channels, outputs)

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the weight as in He et al. (2015), and set the bias to 0."""
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="linear", generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, outputs)."""
        return self.linear(self.norm(pooled(x, self.channel_dim, self.token_pool)))


class Dropout(nn.Module):
    """Dropout whose mask is a function of (network, step) only.

    The seed is a tensor: a captured CUDA graph reads a new value every step.

    Args:
        p: the probability of dropping a value.
        name: distinguishes the dropout modules of a network.
        dims: None to drop values independently; 2: channels; 1: images (stochastic depth);
            0: the batch.
        active_when_frozen: whether dropout stays active inside frozen layers, as in Caffe.
    """

    seed: Tensor

    def __init__(
        self, p: float, name: str, dims: int | None = None, active_when_frozen: bool = False
    ):
        super().__init__()
        self.p, self.name, self.dims, self.active_when_frozen = p, name, dims, active_when_frozen
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout to ``x``, (B, ...)."""
        if not self.training or self.p == 0:
            return x
        return dropout(x, self.seed, self.p, self.dims)
