"""Equal pictures in a dataset: copies in training and validation flatter accuracy,
copies in two classes mislead it.

Equal are pictures whose pixels are, decoded and fitted to the size of the pack: as the
networks see them.
"""

import hashlib
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np

from transferability.sources.source import Item, Source

HASH = 16  # bytes
Picture = tuple[str, Item]  # its part, and itself


def pixel_hash(image: np.ndarray) -> bytes:
    """HASH bytes that two images of one shape have in common only if their pixels are equal."""
    return hashlib.sha256(np.ascontiguousarray(image)).digest()[:HASH]


def equal_pictures(source: Source, hashes: np.ndarray) -> list[list[Picture]]:
    """Pictures that are there more than once, each with its copies, by name.

    ``hashes``: (N, HASH) uint8, a row an image, in the order of ``source.parts``.
    """
    pictures = [(part, item) for part, items in source.parts.items() for item in items]
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


def counted(groups: Iterable[list[Picture]]) -> dict[str, Any]:
    """How many pictures are more than once within a class, in several classes, in several parts;
    of each two names.
    """
    found: dict[str, Any] = {}
    for group in groups:
        places = [(part, item.label) for part, item in group]
        kinds = {
            "within a class": len(set(places)) < len(places) and (lambda a, b: a == b),
            "in several classes": len({label for _, label in places}) > 1
            and (lambda a, b: a[1] != b[1]),
            "in several parts": len({part for part, _ in places}) > 1
            and (lambda a, b: a[0] != b[0]),
        }
        for kind, fits in kinds.items():
            if fits:
                i, j = next(
                    pair
                    for pair in combinations(range(len(group)), 2)
                    if fits(*(places[k] for k in pair))
                )
                found.setdefault(
                    kind, {"pictures": 0, "first": [_name(group[i]), _name(group[j])]}
                )["pictures"] += 1
    return found


def superfluous(groups: Iterable[list[Picture]]) -> dict[str, str]:
    """What to drop: name -> why.

    Of each picture one stays, in the test part before validation before training; of one in several
    classes none, as nobody knows which is its own.
    """
    out = {}
    for group in groups:
        stays = min(
            group,
            key=lambda picture: (
                ("test", "validation", "training").index(picture[0]),
                _name(picture),
            ),
        )
        several = len({item.label for _, item in group}) > 1
        for picture in group:
            other = next(p for p in group if p is not picture) if several else stays
            if several or picture is not stays:
                out[_name(picture)] = f"is equal to {_name(other)}"
    return out


def sentence(found: dict[str, Any], names: bool = True) -> str:
    """What :func:`counted` found, in words."""
    firsts = {
        kind: f" (first {' and '.join(of['first'])})" if names else "" for kind, of in found.items()
    }
    return ", ".join(f"{of['pictures']:,} {kind}{firsts[kind]}" for kind, of in found.items())
