"""Tiny-ImageNet: the official zip or its folder, also with validation images sorted into class
folders.

The files are wnids.txt, words.txt, train/WNID/images/*.JPEG, and val/images/*.JPEG with
val/val_annotations.txt, or val/WNID/*.JPEG.
"""

import posixpath
import re

from transferability.data.config import DatasetConfig
from transferability.data.description import ClassInfo
from transferability.data.readers.base import RawDataset, file_item
from transferability.data.readers.file_tree import FileTree, require_images
from transferability.data.readers.imagenet import imagenet_groups
from transferability.errors import UserError


def read_dataset(config: DatasetConfig) -> RawDataset:
    """Read the dataset of ``config``, see :func:`readers.read_dataset`."""
    tree = FileTree(str(config.source))
    require_images(tree)
    root = tree.find("wnids.txt")
    if root is None:
        raise UserError(
            f"dataset.source={config.source} has no wnids.txt: "
            "it is not Tiny-ImageNet's zip or folder"
        )
    wnids = sorted(set(tree.text(f"{root}wnids.txt").split()))
    words = dict(
        line.split("\t", 1) for line in tree.text(f"{root}words.txt").splitlines() if "\t" in line
    )
    groups, index = imagenet_groups(), {w: i for i, w in enumerate(wnids)}
    classes = [ClassInfo(words.get(w, w).split(",")[0], w, groups.get(w)) for w in wnids]
    listed = [
        (n, n.removeprefix(f"{root}train/").split("/")[0]) for n in tree.images(f"{root}train/")
    ]
    listed_val = _val(tree, f"{root}val/")
    for name, wnid in listed + listed_val:
        if wnid not in index:
            raise UserError(f"{tree.source / name}: its class {wnid} is not in wnids.txt")
    train, val = (
        [file_item(tree, config, index[wnid], name) for name, wnid in subset]
        for subset in (listed, listed_val)
    )
    return RawDataset(classes, train, val)


def _val(tree: FileTree, under: str) -> list[tuple[str, str]]:
    """File and wnid of each validation image, in the official order: val_0, val_1, val_2 ..."""
    images, listed = tree.images(under), f"{under}val_annotations.txt"
    sorted_to = {
        n: n.removeprefix(under).split("/")[0]
        for n in images
        if re.match(r"n\d{8}/", n.removeprefix(under))
    }
    if sorted_to and tree.size(listed) < 0:
        number = {
            n: [int(digits) for digits in re.findall(r"\d+", posixpath.basename(n))]
            for n in sorted_to
        }
        return sorted(sorted_to.items(), key=lambda pair: (number[pair[0]], pair[0]))
    lines = [line.split("\t") for line in tree.text(listed).splitlines() if line.strip()]
    if bad := next((line for line in lines if len(line) < 2), None):
        raise UserError(f"{tree.source / listed}: {bad[0]!r} is not `IMAGE tab WNID ...`")
    place = {posixpath.basename(n): n for n in sorted_to}
    return [(place.get(name, f"{under}images/{name}"), wnid) for name, wnid, *_ in lines]
