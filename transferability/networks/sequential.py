"""A network as an ordered list of layers that can be chopped between any two.

The file of a network's kind (MAKERS) makes and initializes its layers. Freezing, copying and
profiling layers is the same for all kinds.
"""

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from transferability.networks import blocks, caffenet
from transferability.networks.config import NetworkConfig
from transferability.networks.modules import (
    NORMALIZATIONS,
    BatchNorm,
    Dropout,
    Input,
    LinearProbeHead,
    channel_dim,
)
from transferability.networks.zoo import base as zoo
from transferability.networks.zoo.partition import common_path
from transferability.rng import derive_seed, torch_rng

if TYPE_CHECKING:
    from transferability.data.batch import Batch

WEIGHT, BIAS, SCALE, NORMALIZATION = "weight", "bias", "scale", "normalization"  # roles

# The file that makes the layers, by network.kind. ``make_layers(config)`` makes uninitialized
# layers for ``outputs`` classes, each everything between two chop points.
# ``init_weights(config, layers, numbers, key)`` draws the weights of the layers ``numbers`` (from
# 1) with the seed ``key``, on the CPU: the same on every device.
MAKERS: dict[str, ModuleType] = {
    "eight-layer": caffenet,
    "blocks": blocks,
    "torchvision": zoo,
    "timm": zoo,
}


def layers_of(config: NetworkConfig) -> list[nn.Module]:
    """Make the layers of a network, truncated at ``depth`` if set, with uninitialized weights."""
    layers = MAKERS[config.kind].make_layers(config)
    if not config.depth:
        return layers
    below = profile_layers(config.whole)[config.depth - 1]
    head = LinearProbeHead(below.output, below.channel_dim, config.n_outputs, config.token_pool)
    return [*layers[: config.depth], head]


class SequentialNetwork(nn.Module):
    """One network of the study: ``input`` (subtracts the mean, which is part of the state), then
    ``layers``.

    Args:
        config: kind and settings of the network, with the number of ``outputs``.
        mean: subtracted from the input, float32, (H, W, 3) at the packed size or (3,).
        key: seed of this network's random draws (initial weights, dropout masks).
    """

    def __init__(self, config: NetworkConfig, mean: np.ndarray, key: tuple = (0,)):
        super().__init__()
        self.config, self.key, self.frozen = config, key, 0
        self.still = 0  # the number of bottom layers whose BatchNorm keeps its statistics
        self.input = Input(mean, config.scale)
        self.layers = nn.ModuleList(layers_of(config))
        self.init_weights(range(1, len(self.layers) + 1), key)
        for parameter in self.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)

    @property
    def channel_dims(self) -> list[int]:
        """The channel dimension of each layer's output for one image."""
        return [profile.channel_dim for profile in profile_layers(self.config)]

    def forward(self, batch: "Batch") -> Tensor:
        """Logits, (B, outputs)."""
        x = self.input(batch)
        for layer in self.layers:
            x = layer(x)
        return x

    def init_weights(self, numbers: range, key: tuple) -> None:
        """Draw the initial weights of the layers ``numbers`` (from 1) with the seed ``key``."""
        if self.config.depth and len(self.layers) in numbers:
            cast(LinearProbeHead, self.layers[-1]).init_weights(torch_rng(*key, "head"))
            numbers = range(numbers.start, len(self.layers))
        MAKERS[self.config.kind].init_weights(self.config, self.layers, numbers, key)

    def freeze(self, n: int) -> None:
        """Keep layers 1..n bit for bit: no gradients, and no updates of BatchNorm statistics.

        The optimizer has only parameters that require a gradient, so neither momentum nor weight
        decay changes frozen layers.
        """
        self.frozen = n
        self.layers[:n].requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SequentialNetwork":
        """Set the mode. Frozen layers stay in evaluation mode, except dropout that is active when
        frozen, as in Caffe. In the ``still`` bottom layers, only BatchNorm does.
        """
        super().train(mode)
        for module in self.layers[: self.still].modules():
            if isinstance(module, BatchNorm):
                module.eval()
        self.layers[: self.frozen].eval()
        for module in self.layers[: self.frozen].modules():
            if isinstance(module, Dropout) and module.active_when_frozen:
                module.train(mode)
        return self

    def reseed_dropout(self, step: int) -> None:
        """Choose the dropout masks of this step."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.seed.fill_(derive_seed(*self.key, "dropout", module.name, step))

    def has_active_dropout(self, n: int) -> bool:
        """Whether the output of layer n depends on this network's own dropout masks now."""
        return any(
            isinstance(m, Dropout) and m.training and m.p > 0 for m in self.layers[:n].modules()
        )

    def weight(self, number: int) -> Tensor:
        """The weight of layer ``number`` (from 1): of several, the first in a module without
        submodules, as tokens and position embeddings usually have modules next to them.
        """
        layer = self.layers[number - 1]
        names = [name for name, role in parameter_kinds(layer).items() if role == WEIGHT]
        owners = {name: layer.get_submodule(name.rpartition(".")[0]) for name in names}
        first = [name for name in names if not any(True for _ in owners[name].children())]
        return layer.get_parameter((first or names)[0])


def parameter_kinds(module: nn.Module) -> dict[str, str]:
    """Return the role of each parameter of ``module``, by name: WEIGHT, BIAS, SCALE or
    NORMALIZATION (its scale and shift).

    Outside normalization modules, parameters with more than one dimension are weights, the others
    biases if named so (``in_proj_bias``, ``bias_ih_l0``), or scales (``gamma`` of timm's
    LayerScale).
    """
    found = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for name, parameter in part.named_parameters(path, recurse=False):
            if isinstance(part, NORMALIZATIONS):
                found[name] = NORMALIZATION
            else:
                vector = BIAS if "bias" in name.rpartition(".")[2] else SCALE
                found[name] = WEIGHT if parameter.dim() > 1 else vector
    return found


def copy_layers(source: dict[str, Tensor], network: SequentialNetwork, n: int) -> list[str]:
    """Copy the mean and layers 1..n of a source network's state into ``network``; return the
    names of the copied tensors.

    Strict both ways: every tensor of the network's bottom must be in the source with its shape, and
    every tensor of the source's bottom must be in the network.

    Raises:
        ValueError: the bottoms differ in names or shapes.
    """
    prefixes = ("input.", *(f"layers.{i}." for i in range(n)))
    own = {k: v for k, v in network.state_dict().items() if k.startswith(prefixes)}
    given = {k: v for k, v in source.items() if k.startswith(prefixes)}
    if own.keys() != given.keys():
        raise ValueError(f"source and network differ in {sorted(own.keys() ^ given.keys())}")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != given[name].shape:
                raise ValueError(
                    f"{name}: source {tuple(given[name].shape)}, network {tuple(tensor.shape)}"
                )
            tensor.copy_(given[name])
    return list(own)


@dataclass(frozen=True)
class LayerProfile:
    """The cost of a layer, for estimates, and the shape of its output."""

    # modules with the parameters: the innermost that contains all, or all outermost ones
    modules: str
    macs: int  # multiply-accumulates of one image's forward pass
    parameters: int
    activations: int  # output values of its convolutions and matrix products, for one image
    output: tuple[int, ...]  # output shape after pooling, for one image
    channel_dim: int  # of the output

    @property
    def passed(self) -> int:
        """The number of output values for one image."""
        return math.prod(self.output)


@lru_cache(maxsize=64)
def profile_layers(config: NetworkConfig) -> tuple[LayerProfile, ...]:
    """The profile of each layer, counted by torch on the meta device, without computing values."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    layers = nn.ModuleList(layers_of(config)).to("meta").eval()
    x = torch.empty(1, 3, config.input_size, config.input_size, device="meta")
    costs, outputs = [], []
    computed: list[int] = []
    for module in layers.modules():
        if any(p.dim() > 1 for p in module.parameters(recurse=False)):
            module.register_forward_hook(lambda module, args, out: computed.append(_values(out)))
    for layer in layers:
        computed.clear()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            x = layer(x)
        parameters = sum(p.numel() for p in layer.parameters())
        operations = counter.get_total_flops() // 2
        costs.append((_modules(layer), operations, parameters, sum(computed)))
        outputs.append(tuple(x.shape[1:]))
    return tuple(
        LayerProfile(*cost, shape, dim)
        for cost, shape, dim in zip(costs, outputs, _channel_dims(config, outputs), strict=True)
    )


def _channel_dims(config: NetworkConfig, shapes: list[tuple[int, ...]]) -> list[int]:
    """The channel dimension of each layer's output.

    Three equal dimensions, as in a Swin transformer of 384 pixels (96, 96, 96), may be (C, H, W) or
    (H, W, C): the outputs for images of twice the size tell which, as only H and W are larger.
    """
    cubes = [len(shape) == 3 and len(set(shape)) == 1 for shape in shapes]
    larger = shapes
    if any(cubes):
        with suppress(Exception):  # a library's network may not support this size
            larger = _outputs(replace(config.whole, input_size=2 * config.input_size))
    either = zip(shapes, larger, cubes, strict=False)  # larger ones are of the whole network
    return [channel_dim(big if cube else shape) for shape, big, cube in either]


def _outputs(config: NetworkConfig) -> list[tuple[int, ...]]:
    """Output shapes of all layers, for one image."""
    x = torch.empty(1, 3, config.input_size, config.input_size, device="meta")
    shapes = []
    with torch.no_grad():
        for layer in nn.ModuleList(layers_of(config)).to("meta").eval():
            x = layer(x)
            shapes.append(tuple(x.shape[1:]))
    return shapes


def _modules(layer: nn.Module) -> str:
    names = [name for name, _ in layer.named_parameters()]
    common = common_path(names)
    return (
        ".".join(common)
        if common
        else " ".join(dict.fromkeys(name.split(".")[0] for name in names))
    )


def _values(out: Tensor | tuple) -> int:
    """The number of output values of a module, without attention weights."""
    return (out if isinstance(out, Tensor) else out[0]).numel()
