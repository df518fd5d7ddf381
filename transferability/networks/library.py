"""Networks of a library (``of_torchvision.py``, ``of_timm.py``): built by it, chopped where
``cut.py`` finds a place.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferability.draws import seed_of
from transferability.errors import UserError, did_you_mean, reason, shown
from transferability.networks.chain import BatchNorm, NetworkConfig
from transferability.networks.convolutions import Conv2d
from transferability.networks.cut import Layer, LayerPlan, chop
from transferability.networks.facts import Facts, as_text
from transferability.networks.modules import Dropout

# what libraries raise for a size that a network cannot have
SIZES = (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError)
# before a name, where a hub lists it
HUB = re.compile(r"^(hf[-_]hub:)?(timm/|torchvision/)?")
# what is dropped as one: Dropout.dims
DROPOUTS = {nn.Dropout: None, nn.Dropout1d: 2, nn.Dropout2d: 2, nn.Dropout3d: 2}


@dataclass(frozen=True, kw_only=True)
class LibraryConfig(NetworkConfig):
    """A network by its name in a library.

    Attributes:
        plan: the names of the parameters of each layer, a line a layer: part of a run's identity.
            Found, not set.
    """

    model: str
    plan: tuple[str, ...] = ()

    @abstractmethod
    def build(self) -> nn.Module:
        """The library's own network with ``outputs`` classes,
        its weights drawn from torch's generator.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """Every name that the library knows."""

    @abstractmethod
    def facts_of(self, tag: str) -> Facts:
        """What the library says of the weights of one of :meth:`tags`."""

    @abstractmethod
    def tags(self) -> list[str]:
        """The names of the library's own weights for this network, those that it uses by default
        first.
        """

    @abstractmethod
    def fetch(self, tag: str) -> tuple[dict[str, Tensor], Facts]:
        """The library's own weights of one of :meth:`tags`, downloaded if they are not there yet.

        Raises:
            UserError: they cannot be downloaded.
        """

    def tag_of(self, weights: str) -> str:
        """The one of :meth:`tags` that is meant: ``DEFAULT``, ``ResNet18_Weights.IMAGENET1K_V1``,
        ``resnet18.a1_in1k``, ``hf-hub:timm/resnet18.a1_in1k``.

        Raises:
            UserError: there are none of this name.
        """
        tags, name = self.tags(), HUB.sub("", weights)
        if found := re.fullmatch(r"(\w+)_Weights\.(\w+)", name):
            name = found[2] if _plain(found[1]) == _plain(self.model) else name
        name = name.removeprefix(f"{self.model}.")
        if tags and name.lower() == "default":
            return tags[0]
        for tag in tags:
            if tag.lower() == name.lower():
                return tag
        known = f"it has {', '.join(tags)}{did_you_mean(name, tags)}" if tags else "it has none"
        raise UserError(
            f"weights={shown(weights)} is no file, and no name of weights that {self.kind} has for "
            f"{self.model}: {known}"
        )

    def renamed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of an older file under the names that the network has now."""
        return tensors

    def check(self) -> None:
        super().check()
        if self.model not in self.names():
            raise UserError(
                f"network.model={shown(self.model)} is not possible: "
                f"{self.kind} has no network of this name{self._meant()}"
            )
        self.layer_plans()

    def _meant(self) -> str:
        """What may be meant by a name that the library does not have."""
        name, _, tag = HUB.sub("", self.model).partition(".")
        known = {_plain(known): known for known in self.names()}.get(_plain(name))
        if known is None:
            return did_you_mean(name.lower(), self.names(), "network.model=")
        tags = replace(self, model=known).tags()
        own = f" weights={tag}" if tag in tags else ""
        return f": did you mean network.model={known}{own}?"

    def resolved(self, classes: int) -> "LibraryConfig":
        return replace(super().resolved(classes), plan=_lines(self.layer_plans()))

    @property
    def whole_depth(self) -> int:
        return len(self.plan or self.layer_plans())  # a run's folder is read without the library

    @property
    def normalises_batches(self) -> bool:
        own = _built(self.of_library()).modules()
        return bool(self.depth) or any(isinstance(m, BatchNorm) for m in own)

    @property
    def made_by(self) -> str:
        return f"{self.kind} {version(self.kind)}"

    @property
    def stackable(self) -> bool:
        return False

    def of_library(self) -> "LibraryConfig":
        """What the layers depend on, without the task and the input."""
        rest = {"channel_mean": None, "channel_std": None, "depth": None}
        return replace(
            self, name="", outputs=None, plan=(), mean="channel", input_scale=1.0, **rest
        )

    def layer_plans(self) -> list[LayerPlan]:
        """Raises:
        UserError: the network cannot be chopped.
        """
        return _plans(self.of_library())

    def make_layers(self) -> list[Layer]:
        """Raises:
        UserError: the installed library has other layers than those of the plan.
        """
        if self.plan and self.plan != _lines(self.layer_plans()):
            raise UserError(
                f"network.model={self.model} has other layers in the installed {self.kind} than "
                "when its plan was made: install that version (provenance.json names it)"
            )
        model = self.seeded()
        return [Layer(plan, model) for plan in self.layer_plans()]

    def seeded(self) -> nn.Module:
        """The network in the form in which it is trained: what draws is drawn here,
        nothing writes into its input, and convolutions are those of ``convolutions.py``.
        """
        model = self.build()
        for name, module in list(model.named_modules()):
            if hasattr(module, "inplace"):
                module.inplace = False
            if type(module) is nn.Conv2d:
                module.__class__ = Conv2d
            if (ours := _drawn_here(name, module)) is not None:
                model.set_submodule(name, ours)
        return model

    def draw(self, layers: nn.ModuleList, numbers: range, key: tuple) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(*key, "init"))
            drawn = self.build().state_dict()
        with torch.no_grad():
            for number in numbers:
                for name, tensor in layers[number - 1].state_dict().items():
                    tensor.copy_(drawn[name])

    def verify(self) -> None:
        _verify(replace(self.of_library(), outputs=self.outputs))


def assumed(network: LibraryConfig) -> Facts:
    """What the library says of its default weights, where nothing says that a file is of these;
    its other weights that want another input are in the notes.
    """
    by_tag, others = {tag: network.facts_of(tag) for tag in network.tags()}, {}
    if not by_tag:
        return Facts(f"{network.kind} has no weights of its own for this network")
    facts = next(iter(by_tag.values()))
    for other, found in by_tag.items():
        if (found.mean, found.std) != (facts.mean, facts.std):
            others.setdefault((found.mean, found.std), []).append(other)
    differ = "; ".join(
        f"{', '.join(tags)} mean {as_text(mean)} and standard deviation {as_text(std)}"
        for (mean, std), tags in others.items()
    )
    notes = [
        f"other weights for this network have other values ({differ}): experiments.check_weights "
        "says which fit"
    ]
    origin = f"assumed, as nothing beside the file says it: {facts.origin}"
    return replace(facts, origin=origin, notes=tuple(notes) if differ else ())


def _plain(name: str) -> str:
    """Without what people write in other ways."""
    return re.sub(r"[\W_]", "", name).lower()


@contextmanager
def downloading(tag: str, where: str) -> Iterator[None]:
    """Raises:
    UserError: no network, or nothing there.
    """
    try:
        yield
    except Exception as error:  # of whichever library downloads
        raise UserError(
            f"weights={tag} cannot be downloaded ({reason(error)}): fetch the file on a machine "
            f"that can, from {where}, and give its path: weights=PATH"
        ) from error


def _drawn_here(name: str, module: nn.Module) -> nn.Module | None:
    """Our module in place of one that draws from torch's generator; None for any other.

    Raises:
        UserError: it draws inside itself.
    """
    if isinstance(module, nn.MultiheadAttention) and module.dropout > 0:
        raise UserError(
            f"its attention {name} drops with {module.dropout} inside itself, "
            "which cannot be seeded"
        )
    if type(module) in DROPOUTS:
        return Dropout(module.p, name, DROPOUTS[type(module)])
    if _is(module, "torchvision", "StochasticDepth"):
        return Dropout(module.p, name, 1 if module.mode == "row" else 0)
    if _is(module, "timm", "DropPath"):
        return Dropout(module.drop_prob, name, 1)
    return None


def _is(module: nn.Module, library: str, name: str) -> bool:
    return type(module).__name__ == name and type(module).__module__.startswith(f"{library}.")


def _lines(plans: list[LayerPlan]) -> tuple[str, ...]:
    """The names of the parameters of each layer, a line a layer."""
    return tuple(" ".join(layer.parameters) for layer in plans)


@lru_cache(maxsize=8)
def _built(config: LibraryConfig) -> nn.Module:
    """An instance that nobody trains: what its kind and shapes are."""
    with torch.random.fork_rng(devices=[]):
        return config.seeded()


@lru_cache(maxsize=64)
def _plans(config: LibraryConfig) -> list[LayerPlan]:
    try:
        return chop(_built(config), config.input_size)
    except UserError as error:
        raise UserError(f"network.model={config.model} cannot be chopped: {error}") from error
    except SIZES as error:  # of the library, or of torch
        size = config.facts_of(config.tags()[0]).size if config.tags() else None
        own = f": its weights are of {size} pixels" if size else ""
        raise UserError(
            f"network.input_size={config.input_size} is not possible for network.model="
            f"{config.model} ({reason(error).partition(' While executing')[0]}){own}"
        ) from error


@lru_cache(maxsize=64)
def _verify(config: LibraryConfig) -> None:
    """Compare the chopped network with the library's, bit for bit, on random images: both modes,
    two sizes of batch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = config.seeded()
        layers = [Layer(plan, model) for plan in config.layer_plans()]
        for mode, batch in ((True, 2), (False, 3)):
            x = torch.randn(batch, 3, config.input_size, config.input_size)
            state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            whole = _passed(model.train(mode), model, x)
            model.load_state_dict(state)
            model.zero_grad(set_to_none=True)
            for layer in layers:
                layer.train(mode)
            chopped = _passed(_one_after_the_other(config, layers), model, x)
            model.load_state_dict(state)
            model.zero_grad(set_to_none=True)
            if wrong := [name for name in whole if not torch.equal(whole[name], chopped[name])]:
                where = "training" if mode else "evaluation"
                raise UserError(
                    f"network.model={config.model} cannot be chopped: in {where} its layers, one "
                    f"after the other, give another {wrong[0]} than the network as a whole"
                )


def _one_after_the_other(config: LibraryConfig, layers: list[Layer]) -> Callable[[Tensor], Tensor]:
    """The layers as one function.

    Raises:
        UserError: one writes into its input, which others may share.
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


def _passed(function: Callable[[Tensor], Tensor], model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The output, and every gradient and buffer after a forward and backward pass."""
    logits = function(x)
    F.cross_entropy(logits, torch.arange(len(x)) % logits.shape[1]).backward()
    gradients = {
        f"gradient of {n}": p.grad.clone()
        for n, p in model.named_parameters()
        if p.grad is not None
    }
    buffers = {f"buffer {name}": b.clone() for name, b in model.named_buffers()}
    return {"output": logits.detach(), **gradients, **buffers}
