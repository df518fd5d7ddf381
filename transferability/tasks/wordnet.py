"""Distances between classes in WordNet (Miller 1995; ``reference/README.md`` gives the origin).

Only for classes with a wnid of ILSVRC 2012: those of ImageNet and Tiny-ImageNet.
"""

import csv
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

import numpy as np

STEPS = 5  # number of source tasks: distance-0 to distance-4


@lru_cache(maxsize=1)
def _hypernyms() -> dict[str, tuple[str, ...]]:
    """wnid -> the wnids of its direct hypernyms, for ILSVRC's classes and all their ancestors."""
    with (files("transferability.reference") / "wordnet_ilsvrc12.csv").open(
        encoding="utf-8"
    ) as file:
        return {row["wnid"]: tuple(row["hypernyms"].split()) for row in csv.DictReader(file)}


@lru_cache(maxsize=4096)
def _above(wnid: str) -> dict[str, int]:
    """``wnid`` and each of its ancestors -> the fewest steps up to the ancestor."""
    steps, level = {wnid: 0}, [wnid]
    while level:
        level = [h for below in level for h in _hypernyms()[below] if h not in steps]
        steps |= dict.fromkeys(level, max(steps.values()) + 1)
    return steps


def knows(wnids: Sequence[str | None]) -> bool:
    """Whether all ``wnids`` are in the hierarchy."""
    return all(wnid in _hypernyms() for wnid in wnids)


def path_distances(rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """Path distances between synsets, (len(rows), len(columns)) int64: the fewest steps up to a
    common ancestor and down again. 0 for a synset and itself, 2 for siblings.
    """
    steps = [_above(wnid) for wnid in (*rows, *columns)]
    column_of = {wnid: i for i, wnid in enumerate(dict.fromkeys(w for s in steps for w in s))}
    far = 1000  # longer than any path: for synsets that are not ancestors
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
    """Return tasks A and B of ``distance-STEP-DRAW``, as sorted indices of ``wnids``.

    B, the target, is the same for every step: every other one of the 2m classes nearest to a drawn
    anchor. A is m consecutive classes of the remaining ones, sorted by mean distance to B: the
    nearest at step 0, the farthest at step 4, a quarter of the way further per step. m is a sixth
    of the classes. Only classes with the most common number of training images (``images``, one
    number per class) take part, so that both tasks have equally many images.
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
