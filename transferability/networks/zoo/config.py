"""The settings of networks of torchvision and timm; the code for layers is imported on demand."""

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

# prefixes of names on a hub
HUB = re.compile(r"^(hf[-_]hub:)?(timm/|torchvision/)?")


@dataclass(frozen=True, kw_only=True)
class ZooNetworkConfig(NetworkConfig):
    """A network by its name in a library.

    Attributes:
        plan: the names of each layer's parameters, one string per layer: part of a run's identity.
            Derived, not set.
    """

    model: str
    plan: tuple[str, ...] = ()

    @abstractmethod
    def build(self) -> "nn.Module":
        """Build the library's network with ``outputs`` classes and weights drawn from torch's
        generator.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """All names of networks in the library."""

    @abstractmethod
    def info_of(self, tag: str) -> "PretrainedInfo":
        """The library's metadata of the weights ``tag``, one of :meth:`tags`."""

    @abstractmethod
    def tags(self) -> list[str]:
        """The names of the library's weights for this network, the default first."""

    @abstractmethod
    def download_weights(self, tag: str) -> "tuple[dict[str, Tensor], PretrainedInfo]":
        """The library's weights ``tag``, one of :meth:`tags`, downloaded unless cached.

        Raises:
            UserError: the weights cannot be downloaded.
        """

    def tag_of(self, weights: str) -> str:
        """Find one of :meth:`tags` by a name such as ``DEFAULT``, ``resnet18.a1_in1k``,
        ``ResNet18_Weights.IMAGENET1K_V1`` or ``hf-hub:timm/resnet18.a1_in1k``.

        Raises:
            UserError: the library has no weights of this name.
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
        """Rename the tensors of an older file to the network's current names."""
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
        """A suggestion for a name that the library does not have."""
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
        return len(self.plan or self.layer_plans())  # reading a run's folder needs no library

    @property
    def has_batch_norm(self) -> bool:
        return bool(self.depth) or _layers().has_batch_norm(self.architecture())

    @property
    def library_version(self) -> str:
        return f"{self.kind} {version(self.kind)}"

    def architecture(self) -> "ZooNetworkConfig":
        """The settings that determine the layers, without those of the task and the input."""
        rest: dict[str, Any] = {"channel_mean": None, "channel_std": None, "depth": None}
        return replace(
            self, name="", outputs=None, plan=(), mean="channel", input_scale=1.0, **rest
        )

    def layer_plans(self) -> "list[LayerSpec]":
        """Find the layers; raise :class:`UserError` if the network cannot be chopped."""
        return _layers().plans(self.architecture())

    def verify(self) -> None:
        _layers().verify(replace(self.architecture(), outputs=self.outputs))


def _plain(name: str) -> str:
    """Remove punctuation and case, in which spellings differ."""
    return re.sub(r"[\W_]", "", name).lower()


def _layers() -> ModuleType:
    """The module that makes the layers, imported on demand."""
    from transferability.networks.zoo import base

    return base
