"""Networks of torchvision, and the metadata of their weights."""

import re
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from transferability.networks.zoo.config import ZooNetworkConfig
from transferability.networks.zoo.pretrained_info import PretrainedInfo, downloading

if TYPE_CHECKING:
    from torch import Tensor, nn

# Without training-only heads, and with the initialization that torchvision has used so far.
INCEPTIONS = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig(ZooNetworkConfig):
    """``network=torchvision network.model=resnet18``."""

    def names(self) -> list[str]:
        return _torchvision().list_models(module=_torchvision())

    def build(self) -> "nn.Module":
        settings: dict[str, Any] = dict(INCEPTIONS.get(self.model, {}))
        if self.outputs is not None:
            settings["num_classes"] = self.outputs
        if self.model.startswith("vit_"):  # one position embedding per patch of the image
            settings["image_size"] = self.input_size
        return _torchvision().get_model(self.model, weights=None, **settings)

    def tags(self) -> list[str]:
        weights = _torchvision().get_model_weights(self.model)
        tags = [w.name for w in weights]
        return sorted(tags, key=lambda tag: tag != weights.DEFAULT.name)

    def download_weights(self, tag: str) -> "tuple[dict[str, Tensor], PretrainedInfo]":
        weights = _torchvision().get_model_weights(self.model)
        with downloading(tag, weights[tag].url):
            model = _torchvision().get_model(self.model, weights=weights[tag])
        return model.state_dict(), self.info_of(tag)

    def info_of(self, tag: str) -> PretrainedInfo:
        weights = _torchvision().get_model_weights(self.model)[tag]
        made = weights.transforms()
        mean, std = made.mean, made.std
        if self.model in INCEPTIONS:
            mean = std = (0.5, 0.5, 0.5)  # with weights, torchvision rescales its input to these
        return PretrainedInfo(
            f"torchvision, {weights}",
            mean=tuple(mean),
            std=tuple(std),
            size=made.crop_size[0],
            resized=made.resize_size[0],
            interpolation=made.interpolation.value,
            licence=weights.meta.get("license"),
            classes=tuple(weights.meta["categories"]),
        )

    def renamed(self, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        if not self.model.startswith("densenet"):
            return tensors
        # its files have older names, which torchvision's own loading converts
        return {
            re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", n): t
            for n, t in tensors.items()
        }


def _torchvision() -> ModuleType:
    from torchvision import models  # a slow import (seconds) that other networks do not need

    return models
