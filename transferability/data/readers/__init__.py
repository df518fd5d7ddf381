"""Readers: one module per kind of dataset.

To add a kind, add a module with ``read_dataset(config)`` to this folder, an entry to
``config.READERS``, and a file to ``conf/dataset/``.
"""

from importlib import import_module

from transferability.data.config import READERS, DatasetConfig
from transferability.data.readers.base import RawDataset
from transferability.data.readers.holdout import check_groups, with_test
from transferability.errors import UserError


def read_dataset(config: DatasetConfig) -> RawDataset:
    """Read the dataset of ``config``.

    Raises:
        UserError: the source is missing, empty or not of the stated kind.
    """
    if config.source is None and not config.synthetic:
        raise UserError(
            f"dataset.source is not set: set dataset.source=PATH to the images of {config.name}"
        )
    reader = import_module(f"transferability.data.readers.{READERS[config.kind]}")
    source = reader.read_dataset(config)
    source = with_test(source, config) if config.test_fraction else source
    if config.group is not None:
        check_groups(source, config)
    return source
