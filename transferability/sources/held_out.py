"""Holding out validation and test images where a dataset has none: a share of each class,
the same every time.
"""

import logging
from collections import Counter
from dataclasses import replace

from transferability.config import DatasetConfig
from transferability.draws import numpy_generator
from transferability.errors import UserError, and_more, shown
from transferability.sources.source import Item, Source

log = logging.getLogger(__name__)


def with_validation(source: Source, config: DatasetConfig) -> Source:
    """Hold out ``val_fraction`` of each class."""
    train, val = [], []
    by_class = _training_by_class(source)
    if single := [name for name, found in by_class if len(found) == 1]:
        raise UserError(
            f"class {single[0]!r}{and_more(single)} of {shown(config.source)} has one image: with "
            "it held out to validate there are no training images; add some, or leave it out"
        )
    for name, found in by_class:
        order = numpy_generator(config.seed, "held out", name).permutation(len(found))
        cut = max(1, round(config.val_fraction * len(found)))
        val += [found[i] for i in sorted(order[:cut])]
        train += [found[i] for i in sorted(order[cut:])]
    return replace(source, train=train, val=val, held_out=True)


def with_test(source: Source, config: DatasetConfig) -> Source:
    """Take ``test_fraction`` of each class out of its training images, where the source has no test
    images of its own; validation stays as it would be without.
    """
    if source.test:
        log.info(
            "%s has %d test images of its own: dataset.test_fraction=%g holds out no others",
            shown(config.source),
            len(source.test),
            config.test_fraction,
        )
        return source
    train, test = [], []
    held_out = Counter(item.label for item in source.val if source.held_out)
    for label, (name, found) in enumerate(_training_by_class(source)):
        order = numpy_generator(config.seed, "held out for test", name).permutation(len(found))
        cut = max(1, round(config.test_fraction * (len(found) + held_out[label])))
        test += [found[i] for i in sorted(order[:cut])]
        train += [found[i] for i in sorted(order[cut:])]
    return replace(source, train=train, test=test)


def _training_by_class(source: Source) -> list[tuple[str, list[Item]]]:
    """The wnid or name of each class, and its training images."""
    items = [[] for _ in source.classes]
    for item in source.train:
        items[item.label].append(item)
    return [(c.wnid or c.name, found) for c, found in zip(source.classes, items, strict=True)]
