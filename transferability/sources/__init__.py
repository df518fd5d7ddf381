"""Where images come from: a file for each kind of dataset, and KINDS, which lists them.

A new kind is a file beside this one, its line in KINDS, and a file in ``conf/dataset/``.
"""

from transferability.config import DatasetConfig
from transferability.errors import UserError
from transferability.sources import cifar, folder, imagenet, procedural, tiny_imagenet
from transferability.sources.held_out import check_groups, with_test
from transferability.sources.source import Kind, Source

KINDS: dict[str, Kind] = {  # by dataset.kind
    "procedural": procedural.KIND,
    "tiny_imagenet": tiny_imagenet.KIND,
    "cifar10": cifar.KIND,
    "cifar100": cifar.KIND,
    "imagenet": imagenet.KIND,
    "folder": folder.KIND,
}


def open_source(config: DatasetConfig) -> Source:
    """The images that ``config`` names.

    Raises:
        UserError: the source is missing, empty or not of the stated kind.
    """
    kind = KINDS[config.kind]
    if config.source is None and not kind.embedded:
        raise UserError(
            f"dataset.source is not set: say where the images of {config.name} are, "
            "dataset.source=PATH"
        )
    source = kind.open(config)
    source = with_test(source, config) if config.test_fraction else source
    if config.group is not None:
        check_groups(source, config)
    return source
