"""ImageNet (ILSVRC 2012): train/ and val/ with a folder per wnid, or a flat val/ with
``dataset.val_labels``.
"""

import csv
import re
from importlib.resources import files
from pathlib import Path, PurePosixPath

from transferability.data.config import DatasetConfig
from transferability.data.description import ClassInfo
from transferability.data.readers.base import RawDataset, file_item
from transferability.data.readers.file_tree import FileTree, require_images
from transferability.errors import UserError, reason


def imagenet_groups() -> dict[str, str]:
    """wnid -> natural | man-made for ILSVRC's 1000 classes."""
    with (files("transferability.reference") / "ilsvrc12_natural_manmade.csv").open(
        encoding="utf-8"
    ) as file:
        return {row["wnid"]: row["group"] for row in csv.DictReader(file)}


def read_dataset(config: DatasetConfig) -> RawDataset:
    """Read the dataset of ``config``, see :func:`readers.read_dataset`."""
    tree = FileTree(str(config.source))
    require_images(tree)
    root = tree.find("train")
    if root is None:
        raise UserError(
            f"dataset.source={config.source} has no folder train/ with a folder per wnid in it"
        )
    train_names = tree.images(f"{root}train/")
    wnids = sorted({n.removeprefix(f"{root}train/").split("/")[0] for n in train_names})
    if not all(re.fullmatch(r"n\d{8}", w) for w in wnids):
        odd = next(w for w in wnids if not re.fullmatch(r"n\d{8}", w))
        raise UserError(
            f"{tree.source / root}/train/{odd} is not a wnid folder (n01440764); for "
            "other images use dataset=folder"
        )
    groups, index = imagenet_groups(), {w: i for i, w in enumerate(wnids)}
    train = [
        file_item(tree, config, index[n.removeprefix(f"{root}train/").split("/")[0]], n)
        for n in train_names
    ]
    val_names = tree.images(f"{root}val/")
    flat = [n for n in val_names if "/" not in n.removeprefix(f"{root}val/")]
    wnid_of = _flat_val_wnids(flat, config) if flat else {}
    val = []
    for name in val_names:
        wnid = wnid_of.get(name) or name.removeprefix(f"{root}val/").split("/")[0]
        if wnid not in index:
            raise UserError(f"{tree.source / name}: its class {wnid} has no training folder")
        val.append(file_item(tree, config, index[wnid], name))
    return RawDataset([ClassInfo(w, w, groups.get(w)) for w in wnids], train, val)


def _flat_val_wnids(names: list[str], config: DatasetConfig) -> dict[str, str]:
    """Validation image -> its wnid, from lines of a wnid in the order of file names, or from lines
    of file name and wnid.
    """
    if config.val_labels is None:
        raise UserError(
            f"{config.source}/val is flat: set dataset.val_labels to a text file with the wnid of "
            "each image (a line per image in the order of file names, or `name wnid`, as in "
            "LOC_val_solution.csv)"
        )
    try:
        lines = Path(config.val_labels).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"dataset.val_labels={config.val_labels}: {reason(error)}") from error
    found = [(line, wnid.group()) for line in lines if (wnid := re.search(r"n\d{8}", line))]
    if found and all(line.strip() == wnid for line, wnid in found):
        if len(found) != len(names):
            raise UserError(
                f"dataset.val_labels has {len(found)} wnids, but val/ has {len(names)} images"
            )
        return {name: wnid for name, (_, wnid) in zip(names, found, strict=True)}
    by_stem = {re.split(r"[,\s]", line.strip())[0].rsplit(".", 1)[0]: wnid for line, wnid in found}
    missing = [n for n in names if PurePosixPath(n).stem not in by_stem]
    if missing:
        raise UserError(f"dataset.val_labels={config.val_labels} has no wnid for {missing[0]}")
    return {n: by_stem[PurePosixPath(n).stem] for n in names}
