"""The kinds of network.

A new kind needs its settings in ``config.py``, its layers in a file here (MAKERS in
``sequential.py``), a line below, and a file in conf/network.
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
    """Return the class of a network's settings, by their ``kind``.

    Raises:
        UserError: the kind is unknown.
    """
    kind = settings.get("kind", "eight-layer")
    require(kind in KINDS, "network.kind", kind, f"one of {', '.join(KINDS)}")
    return KINDS[kind]
