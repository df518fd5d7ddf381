"""Your own images: any folder of class folders, with parts such as train/ and val/ above them,
or a share held out.
"""

import posixpath
import re

from transferability.data.config import DatasetConfig
from transferability.data.packed import ClassInfo
from transferability.data.readers.base import RawDataset, file_item
from transferability.data.readers.file_tree import FileTree
from transferability.data.readers.folder_layout import layout_of
from transferability.data.readers.holdout import with_validation
from transferability.data.readers.offers import Stated
from transferability.errors import UserError


def read_dataset(config: DatasetConfig) -> RawDataset:
    """The images that ``config`` names, see :func:`readers.read_dataset`."""
    tree = FileTree(config.source)
    try:
        stated = Stated(config.parts, config.class_level, tuple(config.leave_out or ()))
        layout = layout_of(tree, stated)
    except UserError as error:
        if kind := _published(tree):
            raise UserError(
                f"{error}; these look like the files of {kind}: set dataset={kind}"
            ) from error
        raise
    names = sorted(layout.train)
    train, val, test = (
        [
            file_item(tree, config, label, n)
            for label, name in enumerate(names)
            for n in (part or {}).get(name, [])
        ]
        for part in (layout.train, layout.val, layout.test)
    )
    source = RawDataset([ClassInfo(n) for n in names], train, val, test)
    return source if layout.val is not None else with_validation(source, config)


def _published(tree: FileTree) -> str | None:
    """The configuration that reads what the tree looks like: a dataset as its
    authors publish it.
    """
    bases = {posixpath.basename(name) for name in tree.names}
    if "wnids.txt" in bases:
        return "tiny_imagenet"
    if {"data_batch_1", "test_batch"} <= bases:
        return "cifar10"
    if {"train", "test", "meta"} <= bases or "cifar-100-python.tar.gz" in bases:
        return "cifar100"
    if "cifar-10-python.tar.gz" in bases:
        return "cifar10"
    if any(name.startswith("ILSVRC2012_img_") for name in bases):
        return "imagenet"
    train, val = (
        {found[1] for name in tree.names if (found := re.search(pattern, name))}
        for pattern in (r"(?:^|/)train/(n\d{8})/", r"(?:^|/)val/(n\d{8})/")
    )
    return "imagenet" if train and val <= train else None
