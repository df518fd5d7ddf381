"""Networks of a library (``torchvision.py``, ``timm.py``), built by the library and chopped by
``partition.py``.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from transferability.errors import UserError, reason
from transferability.networks.conv2d import Conv2d
from transferability.networks.modules import BatchNorm, Dropout
from transferability.networks.zoo.config import ZooNetworkConfig
from transferability.networks.zoo.partition import LayerSpec, PartitionedLayer, partition
from transferability.rng import derive_seed

# errors of libraries for an input size that a network does not support
SIZES = (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError)
# Dropout.dims of torch's modules
DROPOUTS = {nn.Dropout: None, nn.Dropout1d: 2, nn.Dropout2d: 2, nn.Dropout3d: 2}


def make_layers(config: ZooNetworkConfig) -> list[PartitionedLayer]:
    """Make the layers; raise :class:`UserError` if the installed library has other layers than
    the plan.
    """
    if config.plan and config.plan != parameter_names(config.layer_plans()):
        raise UserError(
            f"network.model={config.model} has other layers in the installed {config.kind} than "
            "when its plan was made: install that version (provenance.json names it)"
        )
    with _Zeros():
        model = build_reproducible(config)
    return [PartitionedLayer(plan, model) for plan in config.layer_plans()]


_FILLS = {
    *(getattr(nn.init, f"{kind}_") for kind in ("uniform", "normal", "trunc_normal", "orthogonal")),
    *(getattr(nn.init, f"{m}_{k}_") for m in ("xavier", "kaiming") for k in ("uniform", "normal")),
    *(Tensor.uniform_, Tensor.normal_),
}


class _Zeros(TorchFunctionMode):
    """Fill with 0 instead of random values within the block: drawing weights, which are set
    afterwards, takes most of the time of building a network.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _FILLS:
            return func(*args, **kwargs)
        with torch.no_grad():
            return (args[0] if args else kwargs["tensor"]).zero_()


def build_reproducible(config: ZooNetworkConfig) -> nn.Module:
    """Build the network for training: with seeded dropout, without in-place modules, and with
    the convolutions of ``conv2d.py``.
    """
    model = config.build()
    for name, module in list(model.named_modules()):
        if hasattr(module, "inplace"):
            module.inplace = False
        if type(module) is nn.Conv2d:
            module.__class__ = Conv2d
        if (ours := _replace_dropout(name, module)) is not None:
            model.set_submodule(name, ours)
    return model


def init_weights(
    config: ZooNetworkConfig, layers: nn.ModuleList, numbers: range, key: tuple
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(*key, "init"))
        drawn = config.build().state_dict()
    with torch.no_grad():
        for number in numbers:
            for name, tensor in layers[number - 1].state_dict().items():
                tensor.copy_(drawn[name])


def _replace_dropout(name: str, module: Any) -> nn.Module | None:
    """The seeded replacement of a module that draws from torch's generator; None for others.

    Raises:
        UserError: the module applies dropout internally.
    """
    if isinstance(module, nn.MultiheadAttention) and module.dropout > 0:
        raise UserError(
            f"its attention {name} applies dropout ({module.dropout}) internally, which cannot "
            "be seeded"
        )
    if type(module) in DROPOUTS:
        return Dropout(module.p, name, DROPOUTS[type(module)])
    if _is_class(module, "torchvision", "StochasticDepth"):
        return Dropout(module.p, name, 1 if module.mode == "row" else 0)
    if _is_class(module, "timm", "DropPath"):
        return Dropout(module.drop_prob, name, 1)
    return None


def _is_class(module: nn.Module, library: str, name: str) -> bool:
    return type(module).__name__ == name and type(module).__module__.startswith(f"{library}.")


def parameter_names(plans: list[LayerSpec]) -> tuple[str, ...]:
    """The names of each layer's parameters, one string per layer."""
    return tuple(" ".join(layer.parameters) for layer in plans)


@lru_cache(maxsize=8)
def _instance(config: ZooNetworkConfig) -> nn.Module:
    """A cached instance for its modules and shapes; never trained."""
    with torch.random.fork_rng(devices=[]):
        return build_reproducible(config)


def has_batch_norm(config: ZooNetworkConfig) -> bool:
    """Whether a layer has BatchNorm."""
    return any(isinstance(module, BatchNorm) for module in _instance(config).modules())


@lru_cache(maxsize=64)
def plans(config: ZooNetworkConfig) -> list[LayerSpec]:
    try:
        return partition(_instance(config), config.input_size)
    except UserError as error:
        raise UserError(f"network.model={config.model} cannot be chopped: {error}") from error
    except SIZES as error:  # of the library, or of torch
        size = config.info_of(config.tags()[0]).size if config.tags() else None
        own = f": its weights are for {size} pixels" if size else ""
        raise UserError(
            f"network.input_size={config.input_size} is not possible for network.model="
            f"{config.model} ({reason(error).partition(' While executing')[0]}){own}"
        ) from error


@lru_cache(maxsize=64)
def verify(config: ZooNetworkConfig) -> None:
    """Compare the chopped network with the library's, bit for bit, on random images in training
    and evaluation mode, with different batch sizes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_reproducible(config)
        layers = [PartitionedLayer(plan, model) for plan in config.layer_plans()]
        for mode, batch in ((True, 2), (False, 3)):
            x = torch.randn(batch, 3, config.input_size, config.input_size)
            before = _buffers(model)
            whole = _forward_backward(model.train(mode), model, x, before)
            for layer in layers:
                layer.train(mode)
            chopped = _forward_backward(_one_after_the_other(config, layers), model, x, before)
            if wrong := [name for name in whole if not torch.equal(whole[name], chopped[name])]:
                where = "training" if mode else "evaluation"
                raise UserError(
                    f"network.model={config.model} cannot be chopped: in {where} its layers run "
                    f"one after the other give a different {wrong[0]} than the network as a whole"
                )


def _one_after_the_other(
    config: ZooNetworkConfig, layers: list[PartitionedLayer]
) -> Callable[[Tensor], Tensor]:
    """The layers as one function.

    Raises:
        UserError: a layer writes into its input, which other networks may share.
    """

    def run(x: Tensor) -> Tensor:
        for number, layer in enumerate(layers, 1):
            version = x._version
            y = layer(x)
            if x._version != version:
                raise UserError(
                    f"network.model={config.model} cannot be chopped: "
                    f"layer {number} writes into its input"
                )
            x = y
        return x

    return run


def _forward_backward(
    function: Callable[[Tensor], Tensor], model: nn.Module, x: Tensor, before: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the output, gradients and buffers of a forward and backward pass that starts with the
    buffers ``before``; gradients of ``model`` are cleared.
    """
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(before[f"buffer {name}"])
    logits = function(x)
    F.cross_entropy(logits, torch.arange(len(x)) % logits.shape[1]).backward()
    gradients = {
        f"gradient of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return {"output": logits.detach(), **gradients, **_buffers(model)}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return {f"buffer {name}": b.clone() for name, b in model.named_buffers()}
