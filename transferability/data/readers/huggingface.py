"""Datasets of the Hugging Face hub, and its formats on disk (parquet, arrow, imagefolder,
WebDataset shards), read by the library ``datasets``.
"""

import logging
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from transferability.data.config import DatasetConfig
from transferability.data.description import ClassInfo
from transferability.data.readers.base import RawDataset, Sample
from transferability.data.readers.class_names import check_names
from transferability.data.readers.holdout import with_validation
from transferability.data.readers.imagenet import imagenet_groups
from transferability.data.readers.subsets import WORDS, subset_named
from transferability.errors import UserError, and_more, reason, shown

log = logging.getLogger(__name__)
# names of class columns that are not a ClassLabel
LABELS = ("label", "labels", "cls", "class", "category", "target", "fine_label")
# first and last class of ImageNet-1k on the hub, where classes are in the order of wnids
IMAGENET = ("tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue")


def read_dataset(config: DatasetConfig) -> RawDataset:
    """Read the dataset of ``config``, see :func:`readers.read_dataset`."""
    splits = _by_subset(_loaded(config), str(config.source))
    first, columns = splits["train"], config.columns or {}
    image = _image_column(first, columns.get("file"), str(config.source))
    label = _label_column(first, columns.get("class"), str(config.source))
    texts = {subset: _texts(data, label) for subset, data in splits.items()}
    _say_without_class(texts, label, str(config.source))
    known = getattr(first.features[label], "names", None)
    names = known or sorted({t for t in texts["train"] if t is not None}, key=_in_order)
    check_names(names, str(config.source))
    index = {name: i for i, name in enumerate(names)}
    subsets: dict[str, list[Sample]] = {}
    for subset, data in splits.items():
        read = _reader(data, image)
        own = [(i, text) for i, text in enumerate(texts[subset]) if text is not None]
        if extra := sorted({text for _, text in own} - index.keys()):
            raise UserError(
                f"class {extra[0]!r}{and_more(extra)} of {config.source} has {subset} "
                "images but no training images"
            )
        subsets[subset] = [
            Sample(index[t], f"{config.source}/{subset}/{i}", partial(read, i)) for i, t in own
        ]
    source = RawDataset(
        _classes(names), subsets["train"], subsets.get("val", []), subsets.get("test", [])
    )
    return source if source.val else with_validation(source, config)


def _loaded(config: DatasetConfig) -> dict[str, Any]:
    """Name of each split -> its rows."""
    library, source = _datasets(), str(config.source)
    saved = [name for name in ("dataset_dict.json", "state.json") if (Path(source) / name).exists()]
    try:
        if saved:
            found = library.load_from_disk(source)
        elif Path(source).is_file():
            kinds = {".tar": "webdataset", ".arrow": "arrow"}
            kind = kinds.get(Path(source).suffix, "parquet")
            found = library.load_dataset(kind, data_files={"train": source})
        else:
            found = library.load_dataset(source)
    except Exception as error:  # from the library, the network or a damaged file
        raise UserError(
            f"dataset.source={source} cannot be opened by datasets.load_dataset "
            f"({reason(error)}): it must be a name on the hub, or a folder or file of parquet, "
            "arrow, images or WebDataset shards"
        ) from error
    return found if isinstance(found, dict) else {"train": found}


def _datasets() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "dataset=huggingface needs datasets: pip install '.[huggingface]'"
        ) from error
    return datasets


def _by_subset(splits: dict[str, Any], source: str) -> dict[str, Any]:
    """Subset (train, val or test) -> its rows, by the names of splits."""
    found: dict[str, Any] = {}
    for name, data in splits.items():
        subset = subset_named(name)
        if subset is None or subset in found:
            raise UserError(
                f"{source} has the splits {', '.join(splits)}: it is unclear "
                "which are for training, validation and test"
            )
        found[subset] = data
    if "train" not in found:
        raise UserError(f"{source} has no training split, only {', '.join(splits)}")
    return {subset: data for subset, data in found.items() if subset != "pred"}


def _image_column(data: Any, stated: str | None, source: str) -> str:
    images = [name for name, kind in data.features.items() if type(kind).__name__ == "Image"]
    return _one(images, stated, "image", "file", data, source)


def _label_column(data: Any, stated: str | None, source: str) -> str:
    kinds = {name: type(kind).__name__ for name, kind in data.features.items()}
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    labels = labels or [name for name in LABELS if kinds.get(name) == "Value"]
    return _one(labels, stated, "label", "class", data, source)


def _one(
    found: list[str], stated: str | None, usual: str, role: str, data: Any, source: str
) -> str:
    """The stated column, else the only one in ``found``, else the one with the usual name."""
    if stated is not None and stated in data.features:
        return stated
    if stated is None and (len(found) == 1 or usual in found):
        return found[0] if len(found) == 1 else usual
    listed = ", ".join(found or data.features)
    what = f"no column {stated}" if stated else f"{len(found)} columns of {usual}s"
    raise UserError(f'{source} has {what} ({listed}): set "dataset.columns={{{role}: NAME}}"')


def _texts(data: Any, label: str) -> list[str | None]:
    """The class of each row; None for rows without one, as in test splits whose labels are secret,
    or for empty cells.
    """
    kind, values = data.features[label], data.select_columns([label])[:][label]
    if hasattr(kind, "names"):
        return [None if v is None or v < 0 else kind.names[v] for v in values]
    if wrong := [v for v in values if isinstance(v, (list, dict))]:
        raise UserError(f"column {label} has {wrong[0]}: an image must have one class")
    empty = [v is None or (isinstance(v, float) and math.isnan(v)) for v in values]
    return [None if e or not str(v).strip() else str(v) for v, e in zip(values, empty, strict=True)]


def _say_without_class(texts: dict[str, list[str | None]], label: str, source: str) -> None:
    """Log the number of images that are left out, per subset.

    Raises:
        UserError: no training image has a class.
    """
    if not any(text is not None for text in texts["train"]):
        raise UserError(
            f"dataset.source={source}: no training image has a class in the column {label}: if "
            'another says it, set "dataset.columns={class: NAME}"'
        )
    for subset, own in texts.items():
        if lost := own.count(None):
            log.warning(
                "%s: %d of %d %s images have no class and are left out",
                shown(source),
                lost,
                len(own),
                WORDS[subset],
            )


def _in_order(name: str) -> tuple[int, int, str]:
    """Sort key: numbers by value, then other names."""
    return (0, int(name), name) if re.fullmatch(r"\d+", name) else (1, 0, name)


def _reader(data: Any, image: str) -> Callable[[int], bytes]:
    """A function that returns the encoded image of a row."""
    plain = data.select_columns([image]).cast_column(image, _datasets().Image(decode=False))

    def read(row: int) -> bytes:
        found = plain[row][image]
        return found["bytes"] if found["bytes"] is not None else Path(found["path"]).read_bytes()

    return read


def _classes(names: list[str]) -> list[ClassInfo]:
    """The classes; those of ImageNet have wnids and groups."""
    groups = imagenet_groups()
    if len(names) == len(groups) and (names[0], names[-1]) == IMAGENET:
        names = sorted(groups)
    if all(re.fullmatch(r"n\d{8}", name) for name in names):
        return [ClassInfo(name, name, groups.get(name)) for name in names]
    return [ClassInfo(name) for name in names]
