"""Networks like the paper's: convolutions, then fully connected layers,
each layer with its activation and pooling.

``caffenet`` is the paper's network (Caffe's reference ImageNet model, ``imagenet_train.prototxt``);
smaller members differ in their numbers only. Their layers are the paper's layers 1..8.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from transferability.draws import torch_generator
from transferability.kernels import activated, convolved, fuses
from transferability.networks.chain import NetworkConfig
from transferability.networks.modules import BatchNorm1d, BatchNorm2d, Dropout


@dataclass(frozen=True, kw_only=True)
class EightLayerConfig(NetworkConfig):
    """The family of 8-layer networks (paper section 3; CaffeNet's ``train.prototxt``)."""

    channels: tuple[int, ...]  # a number a convolutional layer
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    paddings: tuple[int, ...]
    groups: tuple[int, ...]
    pools: tuple[int, ...]  # layers (from 1) that end with a 3x3/2 max-pool, rounded up as Caffe's
    hidden: tuple[int, ...]  # units of the fully connected layers before the classifier
    # none | lrn (after the pooled layers 1 and 2) | batch (layers 1 to 7)
    normalisation: str = "none"
    initialisation: str = "kaiming"  # kaiming | caffe (Gaussian of weight_std, constant bias)
    weight_std: tuple[float, ...] = ()  # initialisation=caffe: a number a layer
    bias: tuple[float, ...] = ()  # initialisation=caffe: a number a layer
    dropout: float = 0.0  # after each hidden fully connected layer, in training, frozen or not

    @property
    def whole_depth(self) -> int:
        return len(self.channels) + len(self.hidden) + 1

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Pixels a side that each convolution puts out, and that are left after its max-pool,
        where it has one.
        """
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
            self._needs(fits, key, "one number a convolutional layer")
        for key in ("channels", "kernels", "strides", "groups", "hidden"):
            self._needs(min(getattr(self, key), default=1) > 0, key, "numbers above 0")
        self._needs(min(self.paddings) >= 0, "paddings", "at least 0")
        inputs = [3, *self.channels]
        for i, groups in enumerate(self.groups):
            divides = inputs[i] % groups == 0 == inputs[i + 1] % groups
            self._needs(divides, "groups", f"they divide the channels of a layer, here {inputs}")
        layers = range(1, len(self.channels) + 1)
        self._needs(set(self.pools) <= set(layers), "pools", f"layers from 1 to {layers[-1]}")
        for number, (size, _) in enumerate(self.sizes, 1):
            fits = size > 0 and (number not in self.pools or size >= 2)
            wanted = f"too small for {self.name}: nothing is left of an image after layer {number}"
            self._needs(fits, "input_size", wanted)
        known = ("none", "lrn", "batch")
        self._needs(self.normalisation in known, "normalisation", "none, lrn or batch")
        known = ("kaiming", "caffe")
        self._needs(self.initialisation in known, "initialisation", "kaiming or caffe")
        if self.initialisation == "caffe":
            wanted = (
                f"initialisation=caffe needs one number for each of the {self.whole_depth} layers"
            )
            for key in ("weight_std", "bias"):
                self._needs(len(getattr(self, key)) == self.whole_depth, key, wanted)
        self._needs(0 <= self.dropout < 1, "dropout", "at least 0 and below 1")

    @property
    def normalises_batches(self) -> bool:
        return bool(self.depth) or self.normalisation == "batch"

    @property
    def stackable(self) -> bool:
        return True

    def make_layers(self) -> list[nn.Sequential]:
        return [*self._convolutional(), *self._fully_connected()]

    def _convolutional(self) -> list[nn.Sequential]:
        layers, channels = [], 3
        for i, out in enumerate(self.channels):
            number = i + 1
            kernel = self.kernels[i]
            stride = self.strides[i]
            padding = self.paddings[i]
            parts = OrderedDict()
            parts["conv"] = skip_init(
                nn.Conv2d, channels, out, kernel, stride, padding, groups=self.groups[i]
            )
            if self.normalisation == "batch":
                parts["norm"] = BatchNorm2d(out)
            pool = number in self.pools
            parts["activation"] = Activation(
                pool, self.normalisation == "lrn" and pool and number <= 2
            )
            layers.append(Convolution(parts))
            channels = out
        return layers

    def _fully_connected(self) -> list[nn.Sequential]:
        layers, features = [], self.channels[-1] * self.sizes[-1][1] ** 2
        for i, out in enumerate([*self.hidden, self.outputs]):
            number = len(self.channels) + i + 1
            parts = OrderedDict()
            if i == 0:
                parts["flatten"] = nn.Flatten()
            else:
                # At the entrance of the layer above: what a layer puts out can be shared before
                # it is dropped.
                parts["drop"] = Dropout(self.dropout, f"drop{number - 1}", when_frozen=True)
            parts["fc"] = skip_init(nn.Linear, features, out)
            if i < len(self.hidden):
                if self.normalisation == "batch":
                    parts["norm"] = BatchNorm1d(out)
                parts["relu"] = nn.ReLU(inplace=True)
            layers.append(nn.Sequential(parts))
            features = out
        return layers

    def verify(self) -> None:
        """Nothing: they are cut from nothing."""

    def draw(self, layers: nn.ModuleList, numbers: range, key: tuple) -> None:
        for number in numbers:
            self._draw(layers[number - 1], number, key)

    def _draw(self, layer: nn.Sequential, number: int, key: tuple) -> None:
        main = layer.conv if number <= len(self.channels) else layer.fc
        generator = torch_generator(*key, "init", number)
        # One memory order for the draw, whatever the order the network keeps its weights in.
        weight = torch.empty(main.weight.shape)
        if self.initialisation == "caffe":
            weight.normal_(0.0, self.weight_std[number - 1], generator=generator)
            bias = self.bias[number - 1]
        else:
            last = number == self.whole_depth
            nn.init.kaiming_normal_(
                weight, nonlinearity="linear" if last else "relu", generator=generator
            )
            bias = 0.0
        with torch.no_grad():
            main.weight.copy_(weight)
            main.bias.fill_(bias)
        if self.normalisation == "batch" and number < self.whole_depth:
            layer.norm.reset_parameters()


class Convolution(nn.Sequential):
    """A convolutional layer: ``conv``, perhaps ``norm``, ``activation``.

    On a GPU the bias is added where pooling and ReLU are computed;
    below a normalisation by the convolution, as ever.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W)."""
        if hasattr(self, "norm") or not fuses(x):
            return super().forward(x)
        return self.activation(convolved(x, self.conv), self.conv.bias)


class Activation(nn.Module):
    """:func:`activation`, on a GPU in few kernels."""

    def __init__(self, pool: bool, norm: bool):
        super().__init__()
        self.pool, self.norm = pool, norm

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return activated(x, bias, self.pool, self.norm)
