"""Networks like the paper's: convolutional layers, then fully connected ones, each with its
activation and pooling.

``caffenet`` is the paper's network (Caffe's reference ImageNet model, ``imagenet_train.prototxt``).
Smaller networks of this kind differ only in settings. Layers 1..8 are the paper's.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from transferability.networks.compiled import fuses
from transferability.networks.config import EightLayerConfig
from transferability.networks.kernels import activation, conv2d_unshuffled
from transferability.networks.modules import BatchNorm1d, BatchNorm2d, Dropout
from transferability.rng import torch_rng


def make_layers(config: EightLayerConfig) -> list[nn.Sequential]:
    return [*_convolutional(config), *_fully_connected(config)]


def _convolutional(config: EightLayerConfig) -> list[nn.Sequential]:
    layers, channels = list[nn.Sequential](), 3
    for i, out in enumerate(config.channels):
        number = i + 1
        kernel = config.kernels[i]
        stride = config.strides[i]
        padding = config.paddings[i]
        parts = OrderedDict[str, nn.Module]()
        parts["conv"] = _skip_init(
            nn.Conv2d, channels, out, kernel, stride, padding, groups=config.groups[i]
        )
        if config.normalization == "batch":
            parts["norm"] = BatchNorm2d(out)
        pool = number in config.pools
        parts["activation"] = Activation(
            pool, config.normalization == "lrn" and pool and number <= 2
        )
        layers.append(Convolution(parts))
        channels = out
    return layers


def _fully_connected(config: EightLayerConfig) -> list[nn.Sequential]:
    layers, features = [], config.channels[-1] * config.sizes[-1][1] ** 2
    for i, out in enumerate([*config.hidden, config.n_outputs]):
        number = len(config.channels) + i + 1
        parts = OrderedDict[str, nn.Module]()
        if i == 0:
            parts["flatten"] = nn.Flatten()
        else:
            # Dropout is at the input of the layer above, so that networks can share a layer's
            # output.
            parts["drop"] = Dropout(config.dropout, f"drop{number - 1}", active_when_frozen=True)
        parts["fc"] = _skip_init(nn.Linear, features, out)
        if i < len(config.hidden):
            if config.normalization == "batch":
                parts["norm"] = BatchNorm1d(out)
            parts["relu"] = nn.ReLU(inplace=True)
        layers.append(nn.Sequential(parts))
        features = out
    return layers


def _skip_init(module: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """``module(*args, **kwargs)`` without initialization, which :func:`init_weights` does.

    :func:`torch.nn.utils.skip_init` imports sympy, which takes 0.8 s.
    """
    undrawn = type(module.__name__, (module,), {"reset_parameters": lambda self: None})
    made = undrawn(*args, **kwargs)
    made.__class__ = module
    return made


def init_weights(
    config: EightLayerConfig, layers: nn.ModuleList, numbers: range, key: tuple
) -> None:
    for number in numbers:
        _draw(config, layers[number - 1], number, key)


def _draw(config: EightLayerConfig, layer: Any, number: int, key: tuple) -> None:
    main = layer.conv if number <= len(config.channels) else layer.fc
    generator = torch_rng(*key, "init", number)
    # Draw in one memory format, whatever the format of the network's weights.
    weight = torch.empty(main.weight.shape)
    if config.initialization == "caffe":
        weight.normal_(0.0, config.weight_std[number - 1], generator=generator)
        bias = config.bias[number - 1]
    else:
        last = number == config.whole_depth
        nn.init.kaiming_normal_(
            weight, nonlinearity="linear" if last else "relu", generator=generator
        )
        bias = 0.0
    with torch.no_grad():
        main.weight.copy_(weight)
        main.bias.fill_(bias)
    if config.normalization == "batch" and number < config.whole_depth:
        layer.norm.reset_parameters()


class Convolution(nn.Sequential):
    """A convolutional layer: ``conv``, optionally ``norm``, ``activation``.

    With fused kernels, ``activation`` adds the bias. With a ``norm``, ``conv`` always does.
    """

    conv: nn.Conv2d
    activation: "Activation"

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x``, (B, C, H, W)."""
        if hasattr(self, "norm") or not fuses(x):
            return super().forward(x)
        return self.activation(conv2d_unshuffled(x, self.conv), self.conv.bias)


class Activation(nn.Module):
    """:func:`activation` as a module."""

    def __init__(self, pool: bool, norm: bool):
        super().__init__()
        self.pool, self.norm = pool, norm

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return activation(x, bias, self.pool, self.norm)
