"""The kinds of network.

A new one is its settings in ``config.py``, its layers in a file here (MAKERS in
``sequential.py``), a line below, and one in conf/network.
"""

from collections.abc import Mapping
from typing import Any

from transferability.errors import require
from transferability.networks.config import BlocksConfig, EightLayerConfig, NetworkConfig
from transferability.networks.zoo.timm import TimmConfig
from transferability.networks.zoo.torchvision import TorchvisionConfig

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
