"""CIFAR-10 and CIFAR-100 from torchvision, downloaded to ``dataset.source`` if missing."""

from functools import partial
from importlib.resources import files

import yaml

from transferability.data.config import DatasetConfig
from transferability.data.description import ClassInfo
from transferability.data.readers.base import RawDataset, Sample
from transferability.errors import UserError


def cifar_groups(kind: str) -> dict[str, str]:
    """Class name -> natural | man-made, for cifar10 or cifar100."""
    groups = yaml.safe_load(
        (files("transferability.reference") / "cifar_natural_manmade.yaml").read_text(
            encoding="utf-8"
        )
    )[kind]
    return {
        name: group for group, parts in groups.items() for names in parts.values() for name in names
    }


def read_dataset(config: DatasetConfig) -> RawDataset:
    """Read the dataset of ``config``, see :func:`readers.read_dataset`."""
    # imported only for CIFAR: it takes half of a command's startup time
    from torchvision import datasets

    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[config.kind]
    subsets = {}
    for subset, train in (("train", True), ("val", False)):
        try:
            data = dataset(config.source, train=train, download=True)
        except Exception as error:
            raise UserError(
                f"{config.kind} is not in dataset.source={config.source} and cannot be downloaded "
                f"({type(error).__name__}): fetch {dataset.url} elsewhere, and put it there"
            ) from error
        images, labels = data.data, data.targets
        subsets[subset] = [
            Sample(label, f"{config.kind}/{subset}/{i}", partial(images.__getitem__, i))
            for i, label in enumerate(labels)
        ]
    group_of = cifar_groups(config.kind)
    return RawDataset(
        [ClassInfo(n, None, group_of[n]) for n in data.classes], subsets["train"], subsets["val"]
    )
