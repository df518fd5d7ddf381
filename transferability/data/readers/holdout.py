"""Hold out validation and test images where a dataset has none: a reproducible share of each class.

With ``dataset.group``, entire groups are held out, such as the images of a patient or a video.
"""

import logging
from collections import Counter
from dataclasses import replace

from transferability.data.config import DatasetConfig
from transferability.data.readers.base import RawDataset, Sample
from transferability.errors import UserError, and_more, shown
from transferability.rng import numpy_rng

log = logging.getLogger(__name__)


def with_validation(source: RawDataset, config: DatasetConfig) -> RawDataset:
    """Hold out ``val_fraction`` of each class for validation."""
    by_class = _training_by_class(source)
    if single := [name for name, found in by_class if len(found) == 1]:
        raise UserError(
            f"only one image of class {single[0]!r}{and_more(single)} in {config.source}: with "
            "it held out to validate there are no training images; add some, or leave it out"
        )
    wanted = [max(1, round(config.val_fraction * len(found))) for _, found in by_class]
    train, val = _held_out(source, config, wanted, "held out", "validation")
    return replace(source, train=train, val=val, held_out=True)


def with_test(source: RawDataset, config: DatasetConfig) -> RawDataset:
    """Hold out ``test_fraction`` of each class for test, unless the source has test images.

    The test images are taken from the training images; the validation images are unchanged. The
    fraction is of the training and the held-out validation images of a class.
    """
    if source.test:
        log.info(
            "%s has %d test images of its own: dataset.test_fraction=%g holds out no others",
            shown(config.source),
            len(source.test),
            config.test_fraction,
        )
        return source
    validation = Counter(item.label for item in source.val if source.held_out)
    counts = [len(found) + validation[c] for c, (_, found) in enumerate(_training_by_class(source))]
    wanted = [max(1, round(config.test_fraction * count)) for count in counts]
    train, test = _held_out(source, config, wanted, "held out for test", "test")
    return replace(source, train=train, test=test)


def _training_by_class(source: RawDataset) -> list[tuple[str, list[Sample]]]:
    """The wnid or name of each class, with its training images."""
    items: list[list[Sample]] = [[] for _ in source.classes]
    for item in source.train:
        items[item.label].append(item)
    return [(c.wnid or c.name, found) for c, found in zip(source.classes, items, strict=True)]


def _held_out(
    source: RawDataset, config: DatasetConfig, wanted: list[int], purpose: str, subset: str
) -> tuple[list[Sample], list[Sample]]:
    """The remaining and the held-out training images; the latter are ``wanted[c]`` of class c, or
    about as many in entire groups.
    """
    if config.group is not None:
        return _by_groups(source, config, wanted, purpose, subset)
    train, held = list[Sample](), list[Sample]()
    for (name, found), count in zip(_training_by_class(source), wanted, strict=True):
        order = numpy_rng(config.seed, purpose, name).permutation(len(found))
        held += [found[i] for i in sorted(order[:count])]
        train += [found[i] for i in sorted(order[count:])]
    return train, held


def _by_groups(
    source: RawDataset, config: DatasetConfig, wanted: list[int], purpose: str, subset: str
) -> tuple[list[Sample], list[Sample]]:
    """The remaining and the held-out training images, by entire groups; the latter are about
    ``wanted[c]`` of class c, and not more if the groups permit.

    Raises:
        UserError: a class has no training images left.
    """
    sizes: dict[str, Counter[int]] = {}
    for item in source.train:
        sizes.setdefault(str(item.group), Counter())[item.label] += 1
    held, chosen = Counter[int](), set()
    for label, (name, found) in enumerate(_training_by_class(source)):
        groups = sorted({str(item.group) for item in found})
        order = numpy_rng(config.seed, purpose, name).permutation(len(groups))
        drawn = [groups[i] for i in order]
        fitting = (g for g in drawn if all(held[c] + n <= wanted[c] for c, n in sizes[g].items()))
        for group in fitting:
            if group not in chosen:
                chosen.add(group)
                held.update(sizes[group])
        if not held[label]:
            smallest = min(drawn, key=lambda group: sizes[group][label])
            chosen.add(smallest)
            held.update(sizes[smallest])
        if held[label] == len(found):
            raise UserError(
                f"class {name!r} of {config.source} has {len(groups)} groups "
                f"(dataset.group={config.group}, the first {groups[0]!r}): with "
                f"{subset} images held out by group there are no training images of it left"
            )
    log.info(
        "%s: %d of %d groups (dataset.group) with %d of %d images are held out for %s",
        shown(config.source),
        len(chosen),
        len(sizes),
        sum(held.values()),
        len(source.train),
        subset,
    )
    train = [item for item in source.train if item.group not in chosen]
    return train, [item for item in source.train if item.group in chosen]


def check_groups(source: RawDataset, config: DatasetConfig) -> None:
    """Check that no group is in two subsets.

    Raises:
        UserError: a group is in two subsets, or an image has no group.
    """
    subset_of: dict[str | None, tuple[str, Sample]] = {}
    for subset, items in source.subsets.items():
        for item in items:
            if item.group is None:
                raise UserError(f"dataset.group is for images in files, not for {config.kind}")
            other, first = subset_of.setdefault(item.group, (subset, item))
            if other != subset:
                raise UserError(
                    f"dataset.group={config.group}: group {item.group!r} has {other} "
                    f"and {subset} images ({first.name} and {item.name}): move them to one side"
                )
