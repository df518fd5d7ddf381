"""Duplicate images in a dataset: copies in several subsets inflate accuracy, copies in several
classes distort it.

Duplicates are images with equal pixels after decoding and resizing, as the networks receive them.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

import numpy as np

from transferability.data.config import DatasetConfig
from transferability.data.readers.base import RawDataset, Sample
from transferability.errors import UserError

log = logging.getLogger(__name__)
HASH = 16  # bytes
Picture = tuple[str, Sample]  # its subset and the sample
# Kinds of duplicates, by name in dataset.json -> whether two equal images are of this kind.
KINDS: dict[str, Callable[[Picture, Picture], bool]] = {
    "within a class": lambda a, b: (a[0], a[1].label) == (b[0], b[1].label),
    "in several classes": lambda a, b: a[1].label != b[1].label,
    "in several parts": lambda a, b: a[0] != b[0],
}


def pixel_hash(image: np.ndarray) -> bytes:
    """HASH bytes that are equal for two images of one shape only if their pixels are equal."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()[:HASH]


def find_duplicates(source: RawDataset, hashes: np.ndarray) -> list[list[Picture]]:
    """Groups of duplicate images, sorted by name.

    ``hashes``: (N, HASH) uint8, a row per image, in the order of ``source.subsets``.
    """
    pictures = [(subset, item) for subset, items in source.subsets.items() for item in items]
    keys = np.ascontiguousarray(hashes).view("u8,u8").ravel()
    _, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    groups: dict[int, list[Picture]] = {}
    for row in np.flatnonzero(counts[which] > 1):
        groups.setdefault(int(which[row]), []).append(pictures[row])
    return sorted(
        (sorted(group, key=_name) for group in groups.values()), key=lambda group: _name(group[0])
    )


def _name(picture: Picture) -> str:
    return picture[1].name


def summarize(groups: Iterable[list[Picture]]) -> dict[str, Any]:
    """The number of groups of each of KINDS, and the names of the first two images."""
    found: dict[str, Any] = {}
    for group in groups:
        for kind, matches in KINDS.items():
            if pair := next((p for p in combinations(group, 2) if matches(*p)), None):
                first = {"pictures": 0, "first": [_name(picture) for picture in pair]}
                found.setdefault(kind, first)["pictures"] += 1
    return found


def redundant(groups: Iterable[list[Picture]]) -> dict[str, str]:
    """Images to drop: name -> reason.

    One copy of each image stays: a test image if possible, else a validation image. No copy stays
    if the copies are in several classes, because the correct class is unknown.
    """
    out, order = {}, ("test", "validation", "training")
    for group in groups:
        stays = min(group, key=lambda picture: (order.index(picture[0]), _name(picture)))
        several = len({item.label for _, item in group}) > 1
        for picture in group:
            other = next(p for p in group if p is not picture) if several else stays
            if several or picture is not stays:
                out[_name(picture)] = f"is equal to {_name(other)}"
    return out


def describe(found: dict[str, Any], names: bool = True) -> str:
    """Describe the result of :func:`summarize` in words."""
    words = []
    for kind, of in found.items():
        first = f" (first {' and '.join(of['first'])})" if names else ""
        words.append(f"{of['pictures']:,} {kind.replace('parts', 'subsets')}{first}")
    return ", ".join(words)


def check_duplicates(equal: dict[str, Any] | None, config: DatasetConfig) -> None:
    """Warn of duplicate images.

    Raises:
        UserError: there are duplicates and ``duplicates=fail``.
    """
    if equal and config.duplicates == "fail":
        raise UserError(
            f"{config.source} has duplicate images: {describe(equal)}: remove them, or set "
            "dataset.duplicates=drop, or keep"
        )
    if equal and config.duplicates == "keep":
        log.warning(
            "%s has duplicate images: %s; duplicates inflate or distort accuracy: "
            "dataset.duplicates=drop removes them",
            config.name,
            describe(equal),
        )
