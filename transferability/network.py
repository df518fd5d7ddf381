"""The 8-layer family: an ordered list of parts that can be chopped between any two.

``caffenet`` is the paper's network (Caffe's reference ImageNet model, ``imagenet_train.prototxt``); smaller members
differ in their numbers only. A network is ``input`` (subtract the mean, which belongs to the network) followed by
``layers[0..7]``, the paper's layers 1..8.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from transferability.config import NetworkConfig
from transferability.draws import seed_of, torch_generator
from transferability.kernels import activated, convolved, dropped, fuses
from transferability.stream import Batch


class Input(nn.Module):
    """Crop, mirror and subtract the mean; the mean is cropped and mirrored as the image is (Caffe's order)."""

    def __init__(self, mean: np.ndarray, scale: float):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))  # a copy; (H, W, 3) or (3,)
        self.scale = scale

    def forward(self, batch: Batch) -> Tensor:
        """(B, 3, crop, crop) float32, or autocast's type; channels last in memory."""
        mean = self.mean if self.mean.dim() == 1 else batch.view(self.mean)
        x = batch.pixels.float().sub_(mean).mul_(self.scale)
        x = x.permute(0, 3, 1, 2)
        if torch.is_autocast_enabled(x.device.type):  # once for all networks that share it
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return x


class Convolution(nn.Sequential):
    """A convolutional layer: ``conv``, perhaps ``norm``, ``activation``.

    On a GPU the bias is added where pooling and ReLU are computed; below a normalisation by the convolution, as ever.
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


class _InFloat32:
    """A normalisation that computes in float32 whatever the precision, as :func:`response_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class BatchNorm2d(_InFloat32, nn.BatchNorm2d):
    pass


class BatchNorm1d(_InFloat32, nn.BatchNorm1d):
    pass


class Dropout(nn.Module):
    """Dropout whose mask is a function of (network, step) only. It stays on above and inside frozen layers.

    It stands at the entrance of the layer above, so that what a layer puts out can be shared before it is dropped.
    The seed is a tensor: a captured CUDA graph reads a new one every step.
    """

    def __init__(self, p: float, name: str):
        super().__init__()
        self.p, self.name = p, name
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, units)."""
        if not self.training or self.p == 0:
            return x
        return dropped(x, self.seed, self.p)


class Network(nn.Module):
    """One network of the study.

    Args:
        config: sizes, normalisation, initialisation.
        outputs: units of the classifier.
        mean: what is subtracted from the input, float32, (H, W, 3) at the packed size or (3,).
        key: names this network's own random draws (initial weights, dropout masks).
    """

    def __init__(self, config: NetworkConfig, outputs: int, mean: np.ndarray, key: tuple = (0,)):
        super().__init__()
        self.config, self.key, self.frozen = config, key, 0
        self.input = Input(mean, config.input_scale)
        self.layers = nn.ModuleList(_layers(config, outputs))
        self.fresh(range(1, len(self.layers) + 1), key)
        self.to(memory_format=torch.channels_last)

    def forward(self, batch: Batch) -> Tensor:
        """Logits, (B, outputs)."""
        x = self.input(batch)
        for layer in self.layers:
            x = layer(x)
        return x

    def fresh(self, numbers: range, key: tuple) -> None:
        """Draw the initial weights of the layers ``numbers`` (from 1) under ``key``."""
        for number in numbers:
            _initialise(self.layers[number - 1], number, self.config, key)

    def freeze(self, n: int) -> None:
        """Keep layers 1..n bit for bit as they are: no gradient, and BatchNorm statistics stand still.

        The optimiser holds only what requires a gradient, so neither momentum nor weight decay reaches them.
        """
        self.frozen = n
        self.layers[:n].requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        for module in self.layers[: self.frozen].modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def begin_step(self, step: int) -> None:
        """Choose the dropout masks of this step."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.seed.fill_(seed_of(*self.key, "dropout", module.name, step))

    def drops_within(self, n: int) -> bool:
        """Whether the output of layer n depends on this network's own dropout masks, in training."""
        return any(isinstance(m, Dropout) and m.p > 0 for m in self.layers[:n].modules())


def copy_layers(source: dict[str, Tensor], network: Network, n: int) -> list[str]:
    """Copy the mean and layers 1..n of a source network's state into ``network``; returns the names copied.

    Strict both ways: every tensor of the network's bottom must be in the source with its shape, and every tensor of
    the source's bottom must be in the network.

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
                raise ValueError(f"{name}: source {tuple(given[name].shape)}, network {tuple(tensor.shape)}")
            tensor.copy_(given[name])
    return list(own)


def _layers(config: NetworkConfig, outputs: int) -> list[nn.Sequential]:
    """The layers, each everything between two chop points; their weights are still to be drawn."""
    layers, channels = [], 3
    for i, out in enumerate(config.channels):
        number, kernel, stride, padding = i + 1, config.kernels[i], config.strides[i], config.paddings[i]
        parts = OrderedDict()
        parts["conv"] = skip_init(nn.Conv2d, channels, out, kernel, stride, padding, groups=config.groups[i])
        if config.normalisation == "batch":
            parts["norm"] = BatchNorm2d(out)
        pool = number in config.pools
        parts["activation"] = Activation(pool, config.normalisation == "lrn" and pool and number <= 2)
        layers.append(Convolution(parts))
        channels = out
    features = channels * config.sizes[-1][1] ** 2
    for i, out in enumerate([*config.hidden, outputs]):
        number = len(config.channels) + i + 1
        parts = OrderedDict()
        parts["flatten" if i == 0 else "drop"] = (
            nn.Flatten() if i == 0 else Dropout(config.dropout, f"drop{number - 1}")
        )
        parts["fc"] = skip_init(nn.Linear, features, out)
        if i < len(config.hidden):
            if config.normalisation == "batch":
                parts["norm"] = BatchNorm1d(out)
            parts["relu"] = nn.ReLU(inplace=True)
        layers.append(nn.Sequential(parts))
        features = out
    return layers


def _initialise(layer: nn.Sequential, number: int, config: NetworkConfig, key: tuple) -> None:
    """Draw one layer's weights on the CPU, so that they do not depend on the device."""
    main = layer.conv if hasattr(layer, "conv") else layer.fc
    generator = torch_generator(*key, "init", number)
    # One memory order for the draw, whatever the order the network keeps its weights in.
    weight = torch.empty(main.weight.shape)
    if config.initialisation == "caffe":
        weight.normal_(0.0, config.weight_std[number - 1], generator=generator)
        bias = config.bias[number - 1]
    else:
        last = number == config.n_layers
        nn.init.kaiming_normal_(weight, nonlinearity="linear" if last else "relu", generator=generator)
        bias = 0.0
    with torch.no_grad():
        main.weight.copy_(weight)
        main.bias.fill_(bias)
    if hasattr(layer, "norm"):
        layer.norm.reset_parameters()


@dataclass(frozen=True)
class LayerCost:
    """What a layer takes, for estimates and floors."""

    multiply_adds: int  # of one image's forward pass
    parameters: int
    computed: int  # values that its convolution or matrix product puts out, for one image
    passed: int  # values that it hands on, after pooling


def layer_costs(config: NetworkConfig, outputs: int) -> list[LayerCost]:
    """The cost of each layer."""
    costs, channels = [], 3
    normed = 2 if config.normalisation == "batch" else 0  # scale and shift
    for i, (out, (size, pooled)) in enumerate(zip(config.channels, config.sizes, strict=True)):
        weights = out * channels // config.groups[i] * config.kernels[i] ** 2
        parameters = weights + (1 + normed) * out
        costs.append(LayerCost(size * size * weights, parameters, size * size * out, pooled * pooled * out))
        channels = out
    features = channels * config.sizes[-1][1] ** 2
    for i, out in enumerate([*config.hidden, outputs]):
        weights = features * out
        costs.append(LayerCost(weights, weights + (1 + normed * (i < len(config.hidden))) * out, out, out))
        features = out
    return costs
