"""The settings of networks, read, checked and hashed without torch.

Settings of libraries' networks are in ``zoo/config.py``. Each kind of network has a file that makes
its layers (``caffenet.py``, ``blocks.py``, ``zoo/base.py``), see :func:`sequential.layers_of`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from transferability.bounds import NAMED, above, at_least, between, check_bounds, one_of
from transferability.errors import require
from transferability.fingerprint import COSMETIC, lists_to_tuples, omit_at, stored_as

MEAN, WITH_CLASS_TOKEN = "mean", "class+mean"
RESIDUAL, PLAIN, TRANSFORMER = "residual", "plain", "transformer"


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """The settings that all kinds of network share; each kind adds its own."""

    # whether a GPU may train networks of this kind as one stack: vmap supports all operations
    stackable: ClassVar[bool] = False

    name: Annotated[str, NAMED] = field(metadata=COSMETIC)
    kind: str = omit_at("eight-layer")  # selects the file of networks/ that makes the layers
    input_size: int  # pixels per side of the crop
    # units of the classifier; null: the number of classes of the task
    outputs: Annotated[int | None, above(0)] = None
    # the mean to subtract from the input, part of the network: a mean image or per channel
    mean: Annotated[str, one_of("image", "channel")] = "channel"
    input_scale: float = 1.0  # factor after the subtraction
    # mean per channel, of pixels from 0 to 1; null: the mean of the task's own images
    channel_mean: tuple[float, ...] | None = omit_at(None)
    # standard deviation per channel, of pixels from 0 to 1; null: input_scale is used
    channel_std: tuple[float, ...] | None = omit_at(None)
    # the input of a linear classifier on tokens: their mean, or the class token (if there is one)
    # concatenated with the mean of the image tokens
    token_pool: Annotated[str, one_of(MEAN, WITH_CLASS_TOKEN)] = omit_at(MEAN)
    # number of layers below the head of a truncated network (5 in A5.B); derived, not set
    depth: int | None = omit_at(None)

    def __post_init__(self) -> None:
        lists_to_tuples(self)  # hashable: settings are the keys of caches

    def check(self) -> None:
        """Raise :class:`UserError` for an impossible value."""
        check_bounds(self, "network.")
        for key, low in (("channel_mean", -math.inf), ("channel_std", 0.0)):
            values = getattr(self, key)
            fits = values is None or (len(values) == 3 and all(low < v <= 1 for v in values))
            self._needs(fits, key, "three numbers, of pixels from 0 to 1, or null")

    def _needs(self, fits: bool, key: str, wanted: str) -> None:
        require(fits, f"network.{key}", getattr(self, key), wanted)

    def resolved(self, classes: int) -> "NetworkConfig":
        """Return the settings for a task with ``classes`` classes, as in a run's identity."""
        return replace(self, outputs=self.outputs or classes)

    @property
    def n_outputs(self) -> int:
        """``outputs`` of a :meth:`resolved` network."""
        assert self.outputs is not None
        return self.outputs

    @property
    def scale(self) -> float | tuple[float, ...]:
        """The factor of pixels from 0 to 255 after the subtraction; a tuple is per channel."""
        if self.channel_std is None:
            return self.input_scale
        return tuple(1 / (255 * std) for std in self.channel_std)

    @property
    def n_layers(self) -> int:
        """The number of layers, including the classifier."""
        return self.depth + 1 if self.depth else self.whole_depth

    @property
    def whole(self) -> "NetworkConfig":
        """The network without truncation."""
        return replace(self, depth=None)

    @property
    @abstractmethod
    def whole_depth(self) -> int:
        """The number of layers without truncation, including the classifier."""

    @property
    @abstractmethod
    def has_batch_norm(self) -> bool:
        """Whether a layer has BatchNorm, which cannot be trained with a batch of one image."""

    @property
    def library_version(self) -> str | None:
        """The library that makes the network, with its version; None if the layers are our own."""
        return None

    def verify(self) -> None:  # noqa: B027
        """Compare the layers in sequence with the network that they were cut from, if any.

        Raises:
            UserError: the results differ.
        """


@dataclass(frozen=True, kw_only=True)
class EightLayerConfig(NetworkConfig):
    """The family of 8-layer networks (paper section 3; CaffeNet's ``train.prototxt``)."""

    stackable: ClassVar[bool] = True

    # one number per convolutional layer
    channels: Annotated[tuple[int, ...], above(0)]
    kernels: Annotated[tuple[int, ...], above(0)]
    strides: Annotated[tuple[int, ...], above(0)]
    paddings: Annotated[tuple[int, ...], at_least(0)]
    groups: Annotated[tuple[int, ...], above(0)]
    pools: tuple[int, ...]  # layers (from 1) with a final 3x3/2 max-pool, rounded up as in Caffe
    # units of the fully connected layers before the classifier
    hidden: Annotated[tuple[int, ...], above(0)]
    # lrn: after the pooled layers 1 and 2; batch: layers 1 to 7
    normalization: Annotated[str, one_of("none", "lrn", "batch")] = stored_as(
        "normalisation", "none"
    )
    # caffe: Gaussian of weight_std, constant bias
    initialization: Annotated[str, one_of("kaiming", "caffe")] = stored_as(
        "initialisation", "kaiming"
    )
    weight_std: tuple[float, ...] = ()  # initialization=caffe: one number per layer
    bias: tuple[float, ...] = ()  # initialization=caffe: one number per layer
    # after each hidden fully connected layer, in training, even if the layer is frozen
    dropout: Annotated[float, between(0, 1)] = 0.0

    @property
    def whole_depth(self) -> int:
        return len(self.channels) + len(self.hidden) + 1

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Output side of each convolution in pixels, before and after its max-pool (if any)."""
        sizes, size = [], self.input_size
        for i, kernel in enumerate(self.kernels):
            convolved = (size + 2 * self.paddings[i] - kernel) // self.strides[i] + 1
            size = -(-(convolved - 3) // 2) + 1 if i + 1 in self.pools else convolved
            sizes.append((convolved, size))
        return sizes

    def check(self) -> None:
        super().check()
        self._needs(bool(self.channels), "channels", "at least one convolutional layer")
        for key in ("kernels", "strides", "paddings", "groups"):
            fits = len(getattr(self, key)) == len(self.channels)
            self._needs(fits, key, "one number per convolutional layer")
        inputs = [3, *self.channels]
        for i, groups in enumerate(self.groups):
            divides = inputs[i] % groups == 0 == inputs[i + 1] % groups
            self._needs(divides, "groups", f"divisors of the channels of their layers, {inputs}")
        layers = range(1, len(self.channels) + 1)
        self._needs(set(self.pools) <= set(layers), "pools", f"layers from 1 to {layers[-1]}")
        for number, (size, _) in enumerate(self.sizes, 1):
            fits = size > 0 and (number not in self.pools or size >= 2)
            wanted = f"larger for {self.name}: nothing is left of an image after layer {number}"
            self._needs(fits, "input_size", wanted)
        if self.initialization == "caffe":
            wanted = (
                f"one number for each of the {self.whole_depth} layers with initialization=caffe"
            )
            for key in ("weight_std", "bias"):
                self._needs(len(getattr(self, key)) == self.whole_depth, key, wanted)

    @property
    def has_batch_norm(self) -> bool:
        return bool(self.depth) or self.normalization == "batch"


@dataclass(frozen=True, kw_only=True)
class BlocksConfig(NetworkConfig):
    """``network=residual``, ``network=plain``, ``network=vit``."""

    block: Annotated[str, one_of(RESIDUAL, PLAIN, TRANSFORMER)]
    # channels per stage; each stage halves the resolution of the previous one
    widths: Annotated[tuple[int, ...], above(0)]
    blocks: Annotated[int, above(0)]  # per stage
    stride: Annotated[int, above(0)]  # of the stem; pixels per side of a transformer's patches
    heads: Annotated[int, above(0)] = 4  # attention heads of a transformer

    @property
    def whole_depth(self) -> int:
        return 2 + self.blocks * len(self.widths)

    def check(self) -> None:
        super().check()
        self._needs(bool(self.widths), "widths", "at least one number")
        fits = list(self.widths) == sorted(self.widths)
        self._needs(
            fits, "widths", "numbers that do not decrease: a shortcut cannot have fewer channels"
        )
        if self.block == TRANSFORMER:
            self._needs(len(self.widths) == 1, "widths", "one number for a transformer")
            self._needs(self.widths[0] % self.heads == 0, "heads", "a divisor of the width")
            fits = self.input_size % self.stride == 0
            self._needs(fits, "stride", f"a divisor of network.input_size={self.input_size}")

    @property
    def has_batch_norm(self) -> bool:
        return bool(self.depth) or self.block != TRANSFORMER
