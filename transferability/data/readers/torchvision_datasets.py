"""torchvision's classification datasets with their official splits, downloaded to
``dataset.source`` if missing.
"""

import posixpath
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from transferability.data.config import DatasetConfig
from transferability.data.description import ClassInfo
from transferability.data.readers.base import RawDataset, Sample
from transferability.data.readers.holdout import with_validation
from transferability.errors import UserError, did_you_mean, reason, shown

# Subset -> arguments of torchvision's class.
_ALL: dict[str, dict[str, Any]] = {"train": {}}
_TEST = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = {**_TEST, "val": {"split": "val"}}
_FLAG = {"train": {"train": True}, "test": {"train": False}}
KNOWN: dict[str, dict[str, dict[str, Any]]] = {
    **dict.fromkeys(("Caltech101", "Caltech256", "EuroSAT", "SEMEION", "SUN397"), _ALL),
    **dict.fromkeys(("DTD", "FGVCAircraft", "Flowers102", "PCAM", "RenderedSST2"), _THREE),
    **dict.fromkeys(("Food101", "GTSRB", "STL10", "SVHN", "StanfordCars"), _TEST),
    **dict.fromkeys(("FashionMNIST", "KMNIST", "MNIST", "QMNIST", "USPS"), _FLAG),
    "Country211": {**_TEST, "val": {"split": "valid"}},
    "EMNIST": {p: {"split": "balanced", **settings} for p, settings in _FLAG.items()},
    "Imagenette": {p: {"split": p} for p in ("train", "val")},
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
    "Places365": {
        "train": {"split": "train-standard", "small": True},
        "val": {"split": "val", "small": True},
    },
}


def read_dataset(config: DatasetConfig) -> RawDataset:
    """Read the dataset of ``config``, see :func:`readers.read_dataset`.

    Without official validation images, a share of the training images is held out.
    """
    if config.name not in KNOWN:
        raise UserError(
            f"dataset.name={config.name} is not one of torchvision's classification datasets "
            f"with one label per image ({', '.join(sorted(KNOWN))})"
            f"{did_you_mean(config.name, KNOWN)}"
        )
    subsets = {subset: _opened(config, settings) for subset, settings in KNOWN[config.name].items()}
    labels = {subset: _labels(data) for subset, data in subsets.items()}
    names = _class_names(subsets["train"], 1 + max(max(own) for own in labels.values()))
    items = {
        subset: _items(config, subset, data, labels[subset]) for subset, data in subsets.items()
    }
    classes = [ClassInfo(name) for name in names]
    source = RawDataset(classes, items["train"], items.get("val", []), items.get("test", []))
    return source if "val" in items else with_validation(source, config)


def _opened(config: DatasetConfig, settings: dict[str, Any]) -> Any:
    # imported only for these datasets: it takes seconds
    from torchvision import datasets

    known, root = getattr(datasets, config.name), Path(str(config.source)).expanduser()
    try:
        try:
            return known(root, **settings)
        except RuntimeError:  # missing or incomplete
            return known(root, **settings, download=True)
    except ImportError as error:
        raise UserError(f"{config.name} needs more than torchvision: {reason(error)}") from error
    except Exception as error:
        raise UserError(
            f"{config.name} is not in dataset.source={config.source} and cannot be "
            f"downloaded ({reason(error)}): put torchvision's files there"
        ) from error


def _labels(data: Any) -> list[int]:
    """The labels of all images, in order."""
    for name in ("_labels", "targets", "labels", "y"):
        if len(found := getattr(data, name, ())) == len(data):
            return [int(label) for label in found]
    for name in ("_samples", "samples", "imgs"):
        if len(found := getattr(data, name, ())) == len(data):
            return [int(label) for _, label in found]
    return [int(data[i][1]) for i in range(len(data))]


def _class_names(data: Any, count: int) -> Sequence[str]:
    names = getattr(data, "classes", None) or getattr(data, "categories", None)
    if names and len(names) >= count:
        return [str(name) for name in names]
    return [f"{label:0{len(str(count - 1))}d}" for label in range(count)]


def _items(config: DatasetConfig, subset: str, data: Any, labels: list[int]) -> list[Sample]:
    """Samples that read image files if the dataset has any, else torchvision's decoded images."""
    paths = next(
        (
            [file[0] if isinstance(file, tuple) else file for file in files]
            for name in ("_image_files", "_images", "_samples", "samples", "imgs")
            if len(files := getattr(data, name, ())) == len(data)
        ),
        None,
    )
    if paths is None:
        return [
            Sample(label, posixpath.join(config.name, subset, str(i)), partial(_pixels, data, i))
            for i, label in enumerate(labels)
        ]
    files = [Path(path) for path in paths]
    return [
        Sample(label, shown(file), file.read_bytes, partial(_size, file))
        for label, file in zip(labels, files, strict=True)
    ]


def _pixels(data: Any, index: int) -> np.ndarray:
    return np.asarray(data[index][0].convert("RGB"))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else -1
