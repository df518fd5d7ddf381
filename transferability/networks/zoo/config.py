"""The settings of a network of torchvision or timm; what makes its layers is imported when they
are asked for.
"""

import re
from abc import abstractmethod
from dataclasses import dataclass, replace
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from transferability.errors import UserError, did_you_mean
from transferability.networks.config import NetworkConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from transferability.networks.zoo.partition import LayerSpec
    from transferability.networks.zoo.pretrained_info import PretrainedInfo

# before a name, where a hub lists it
HUB = re.compile(r"^(hf[-_]hub:)?(timm/|torchvision/)?")


@dataclass(frozen=True, kw_only=True)
class ZooNetworkConfig(NetworkConfig):
    """A network by its name in a library.

    Attributes:
        plan: the names of the parameters of each layer, a line per layer: part of a run's identity.
            Found, not set.
    """

    model: str
    plan: tuple[str, ...] = ()

    @abstractmethod
    def build(self) -> "nn.Module":
        """The library's own network with ``outputs`` classes,
        its weights drawn from torch's generator.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """Every name that the library knows."""

    @abstractmethod
    def info_of(self, tag: str) -> "PretrainedInfo":
        """What the library says of the weights of one of :meth:`tags`."""

    @abstractmethod
    def tags(self) -> list[str]:
        """The names of the library's own weights for this network, those that it uses by default
        first.
        """

    @abstractmethod
    def download_weights(self, tag: str) -> "tuple[dict[str, Tensor], PretrainedInfo]":
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
            f"weights={weights} is neither a file nor a name of weights that {self.kind} has for "
            f"{self.model}: {known}"
        )

    def renamed(self, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Tensors of an older file under the names that the network has now."""
        return tensors

    def check(self) -> None:
        super().check()
        if self.model not in self.names():
            raise UserError(
                f"network.model={self.model} is not possible: "
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

    def resolved(self, classes: int) -> "ZooNetworkConfig":
        outputs = self.outputs or classes
        return replace(self, outputs=outputs, plan=_layers().parameter_names(self.layer_plans()))

    @property
    def whole_depth(self) -> int:
        return len(self.plan or self.layer_plans())  # a run's folder is read without the library

    @property
    def has_batch_norm(self) -> bool:
        return bool(self.depth) or _layers().has_batch_norm(self.architecture())

    @property
    def library_version(self) -> str:
        return f"{self.kind} {version(self.kind)}"

    def architecture(self) -> "ZooNetworkConfig":
        """What the layers depend on, without the task and the input."""
        rest: dict[str, Any] = {"channel_mean": None, "channel_std": None, "depth": None}
        return replace(
            self, name="", outputs=None, plan=(), mean="channel", input_scale=1.0, **rest
        )

    def layer_plans(self) -> "list[LayerSpec]":
        """Raises:
        UserError: the network cannot be chopped.
        """
        return _layers().plans(self.architecture())

    def verify(self) -> None:
        _layers().verify(replace(self.architecture(), outputs=self.outputs))


def _plain(name: str) -> str:
    """Without what people write in other ways."""
    return re.sub(r"[\W_]", "", name).lower()


def _layers() -> ModuleType:
    """What makes the layers of a library's network, which are found in the network itself."""
    from transferability.networks.zoo import base

    return base
