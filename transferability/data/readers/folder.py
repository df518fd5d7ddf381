"""Your own images: class folders, with subsets such as train/ and val/ above them or a held-out
share, or files whose classes are in a table or in their names.
"""

import posixpath
import re
from functools import partial

from transferability.data.config import DatasetConfig
from transferability.data.description import ClassInfo
from transferability.data.readers.base import RawDataset, file_item
from transferability.data.readers.file_tree import FileTree
from transferability.data.readers.folder_layout import layout_of
from transferability.data.readers.holdout import with_validation
from transferability.data.readers.labels import by_labels, by_pattern, offered_setting
from transferability.data.readers.offers import StatedLayout
from transferability.data.readers.subsets import AmbiguousError
from transferability.errors import UserError


def read_dataset(config: DatasetConfig) -> RawDataset:
    """Read the dataset of ``config``, see :func:`readers.read_dataset`."""
    tree = FileTree(str(config.source))
    stated = StatedLayout(config.parts, config.class_level, tuple(config.leave_out or ()))
    how = by_labels if config.labels else by_pattern if config.pattern else None
    try:
        layout = layout_of(tree, stated, how and partial(how, config=config))
    except UserError as error:
        if kind := _published(tree):
            raise UserError(
                f"{error}; these look like the files of {kind}: set dataset={kind}"
            ) from error
        if not how and isinstance(error.__cause__, AmbiguousError):
            stated = StatedLayout(stated.subsets, leave_out=stated.leave_out)
            raise UserError(f"{error}{offered_setting(tree, stated)}") from error
        raise
    names = sorted(layout.train)
    train, val, test = (
        [
            file_item(tree, config, label, n, layout.groups[n] if layout.groups else None)
            for label, name in enumerate(names)
            for n in (subset or {}).get(name, [])
        ]
        for subset in (layout.train, layout.val, layout.test)
    )
    source = RawDataset([ClassInfo(n) for n in names], train, val, test)
    return source if layout.val is not None else with_validation(source, config)


def _published(tree: FileTree) -> str | None:
    """The kind of published dataset that the tree looks like; None if it looks like none."""
    bases = {posixpath.basename(name) for name in tree.names}
    if any(name.endswith((".parquet", ".arrow", ".cls")) for name in bases):
        return "huggingface"
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
