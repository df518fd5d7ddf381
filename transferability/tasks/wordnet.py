"""How far apart classes are in WordNet (Miller 1995; ``reference/README.md`` has the origin).

Only for classes with a wnid of ILSVRC 2012: ImageNet's, and Tiny-ImageNet's.
"""

import csv
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

import numpy as np

STEPS = 5  # source tasks of distance-0 to distance-4


@lru_cache(maxsize=1)
def _hypernyms() -> dict[str, tuple[str, ...]]:
    """wnid -> the wnids right above it, for ILSVRC's classes and all that is above them."""
    with (files("transferability.reference") / "wordnet_ilsvrc12.csv").open(
        encoding="utf-8"
    ) as file:
        return {row["wnid"]: tuple(row["hypernyms"].split()) for row in csv.DictReader(file)}


@lru_cache(maxsize=4096)
def _above(wnid: str) -> dict[str, int]:
    """What is above ``wnid``, itself included -> the fewest steps up to it."""
    steps, level = {wnid: 0}, [wnid]
    while level:
        level = [h for below in level for h in _hypernyms()[below] if h not in steps]
        steps |= dict.fromkeys(level, max(steps.values()) + 1)
    return steps


def knows(wnids: Sequence[str | None]) -> bool:
    """Whether each of them is in the hierarchy."""
    return all(wnid in _hypernyms() for wnid in wnids)


def path_distances(rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """Path distance between synsets, (len(rows), len(columns)) int64: the fewest steps up to
    something above both, and down again. 0 for a synset and itself, 2 for two kinds of one thing.
    """
    steps = [_above(wnid) for wnid in (*rows, *columns)]
    column_of = {wnid: i for i, wnid in enumerate(dict.fromkeys(w for s in steps for w in s))}
    far = 1000  # more than any way there is: those that are not above
    table = np.full((len(steps), len(column_of)), far)
    for row, above in zip(table, steps, strict=True):
        row[[column_of[wnid] for wnid in above]] = list(above.values())
    down = table[len(rows) :]
    return np.array([(up + down).min(axis=1) for up in table[: len(rows)]])


def mean_distance(a: Sequence[str], b: Sequence[str]) -> float:
    """The mean path distance between the classes of two tasks."""
    return float(path_distances(a, b).mean())


def tasks_at(
    step: int, draw: int, wnids: Sequence[str], images: np.ndarray
) -> dict[str, np.ndarray]:
    """Tasks A and B of ``distance-STEP-DRAW``, as sorted positions in ``wnids``.

    B, the target, is the same for every step: draw an anchor, take the 2m classes nearest to it,
    and of these every other one. The classes that are left stand in the order of their mean
    distance to B, and A is m of them that follow each other: the nearest at step 0, the farthest
    at step 4, a quarter of the way further at each. m is a sixth of the classes. So that tasks have
    equally many images, only classes with the commonest number of training images (``images``, a
    number a class) take part.
    """
    usual = np.flatnonzero(images == np.bincount(images).argmax())
    m = len(usual) // 6
    known = [wnids[i] for i in usual.tolist()]
    distances = path_distances(known, known)
    anchor = np.random.RandomState([draw]).choice(len(usual))
    target = np.argsort(distances[anchor], kind="stable")[: 2 * m : 2]
    left = np.setdiff1d(np.arange(len(usual)), target)
    left = left[np.argsort(distances[left][:, target].mean(axis=1), kind="stable")]
    start = step * (len(left) - m) // (STEPS - 1)
    return {"A": np.sort(usual[left[start : start + m]]), "B": np.sort(usual[target])}
