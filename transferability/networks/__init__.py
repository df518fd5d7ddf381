"""The kinds of network.

A new one is a file here (its settings, its layers), a line below, and one in conf/network.
"""

from collections.abc import Mapping
from typing import Any

from transferability.errors import require
from transferability.networks.blocks import BlocksConfig
from transferability.networks.chain import NetworkConfig
from transferability.networks.eight_layer import EightLayerConfig
from transferability.networks.of_timm import TimmConfig
from transferability.networks.of_torchvision import TorchvisionConfig

KINDS: dict[str, type[NetworkConfig]] = {
    "eight-layer": EightLayerConfig,
    "blocks": BlocksConfig,
    "torchvision": TorchvisionConfig,
    "timm": TimmConfig,
}


def config_class(settings: Mapping[str, Any]) -> type[NetworkConfig]:
    """The class of a network's settings, by their ``kind``.

    Raises:
        UserError: there is no such kind.
    """
    kind = settings.get("kind", "eight-layer")
    require(kind in KINDS, "network.kind", kind, f"one of {', '.join(KINDS)}")
    return KINDS[kind]
