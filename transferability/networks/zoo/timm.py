"""Networks of timm, and the metadata of their weights."""

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from transferability.errors import UserError
from transferability.networks.zoo.config import ZooNetworkConfig
from transferability.networks.zoo.pretrained_info import (
    PretrainedInfo,
    downloading,
    fit_of,
    resized_for,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASSES = 1000  # as in ImageNet, if neither the task nor timm gives a number


@dataclass(frozen=True, kw_only=True)
class TimmConfig(ZooNetworkConfig):
    """``network=timm network.model=tf_efficientnet_lite0``."""

    def names(self) -> list[str]:
        return _timm().list_models()

    def build(self) -> "nn.Module":
        timm = _timm()
        usual = timm.get_pretrained_cfg(self.model)
        # a network without a classifier (DINOv2) gets one, or the position of the head is unknown
        classes = self.outputs or getattr(usual, "num_classes", None) or CLASSES
        settings = {"num_classes": classes}
        if getattr(usual, "fixed_input_size", False):
            settings["img_size"] = self.input_size
        return timm.create_model(self.model, pretrained=False, **settings)

    def tags(self) -> list[str]:
        timm = _timm()
        usual = timm.get_pretrained_cfg(self.model)
        tags = [name.partition(".")[2] for name in timm.list_pretrained(self.model)]
        return sorted(tags, key=lambda tag: tag != usual.tag)  # usual may be None without tags

    def download_weights(self, tag: str) -> "tuple[dict[str, Tensor], PretrainedInfo]":
        timm, name = _timm(), f"{self.model}.{tag}"
        config = timm.get_pretrained_cfg(name)
        settings = {"img_size": self.input_size} if config.fixed_input_size else {}
        where = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        with downloading(tag, where):
            model = timm.create_model(name, pretrained=True, **settings)
        return model.state_dict(), self.info_of(tag)

    def info_of(self, tag: str) -> PretrainedInfo:
        name = f"{self.model}.{tag}"
        config = _timm().get_pretrained_cfg(name)
        size = config.input_size[-1]
        return PretrainedInfo(
            f"timm, {name}",
            mean=tuple(config.mean),
            std=tuple(config.std),
            size=size,
            resized=resized_for(size, config.crop_pct),
            interpolation=config.interpolation,
            fit=fit_of(config.crop_mode),
            licence=config.license,
        )


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise UserError("network=timm needs timm: pip install '.[timm]'") from error
    return timm
