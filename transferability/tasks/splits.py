"""Splits: pairs of disjoint tasks A and B over the classes of a dataset (paper section 2)."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import yaml

from transferability.data.packed import PackedDataset
from transferability.errors import UserError, and_more
from transferability.files import expanded
from transferability.tasks import wordnet

# kinds of split
RANDOM, NATURAL_MANMADE, USER, ALL = "random", "natural-manmade", "user", "all"
PRETRAINED = "pretrained"
DISTANCE = "distance"
SIMILAR = (RANDOM, USER, PRETRAINED)  # kinds whose tasks are not known to be dissimilar

_RANDOM = re.compile(r"random-(0|[1-9][0-9]{0,17})")
_DISTANCE = re.compile(rf"distance-([0-{wordnet.STEPS - 1}])(?:-([1-9][0-9]{{0,8}}))?")


def tasks_of(split: str, dataset: PackedDataset) -> dict[str, list[int]]:
    """Return the tasks of ``split``: task name -> sorted dataset classes.

    - ``random-K``: A is half of the classes, drawn by numpy's legacy generator seeded with the
      one-element list ``[K]``; the paper's rule (``make_rand_splits.py``).
    - ``natural-manmade``: A is natural classes, B is man-made classes.
    - ``distance-K``: B is classes of one kind, A is as many classes at the K-th of five WordNet
      distances from B. ``distance-K-J`` has other classes as B (:func:`wordnet.tasks_at`).
    - ``all``: every class is in the task ``all``.
    - ``pretrained``: every class is in task B; A is the task of pretrained weights.
    - ``PATH.yaml``: lists A and B of class names or wnids. Without a list A, A is the task of
      pretrained weights.

    Raises:
        UserError: the split is unknown, a task has too few classes, or a user's lists have unknown
            or shared classes.
    """
    n = len(dataset.classes)
    if match := _RANDOM.fullmatch(split):
        if int(match[1]) >= 2**32:
            raise UserError(
                f"split={split} is not possible: the number of a random split must be below 2^32"
            )
        chosen = np.random.RandomState([int(match[1])]).choice(np.arange(n), n // 2, replace=False)
        tasks = {"A": sorted(chosen.tolist()), "B": sorted(set(range(n)) - set(chosen.tolist()))}
    elif split == NATURAL_MANMADE:
        groups = [c.group for c in dataset.classes]
        tasks = {
            task: [i for i, g in enumerate(groups) if g == group]
            for task, group in (("A", "natural"), ("B", "man-made"))
        }
        if not tasks["A"] or not tasks["B"]:
            raise UserError(
                f"split=natural-manmade: {dataset.name} does not say which classes are natural and "
                "which man-made; use split=random-0, or lists of your own: split=PATH.yaml with "
                "A: [...] and B: [...]"
            )
    elif match := _DISTANCE.fullmatch(split):
        tasks = _at_distance(int(match[1]), int(match[2] or 0), split, dataset)
    elif split in (ALL, PRETRAINED):
        tasks = {"all" if split == ALL else "B": list(range(n))}
    elif split.endswith((".yaml", ".yml")):
        tasks = _user_tasks(Path(split), dataset)
    else:
        raise UserError(
            f"split={split} is not known: write random-0 (any number), natural-manmade, "
            f"distance-0 to distance-{wordnet.STEPS - 1}, all, pretrained, or PATH.yaml"
        )
    for task, classes in tasks.items():
        if len(classes) < 2:
            raise UserError(
                f"split={split} of {dataset.name} ({n} classes) leaves task {task} with "
                f"{len(classes)}: a task needs at least 2 classes"
            )
    return tasks


def split_rule(split: str, classes: int) -> str:
    """Describe how ``split`` divides the ``classes`` classes of a dataset, sorted by WordNet id or
    name, into tasks.
    """
    if match := _RANDOM.fullmatch(split):
        half = classes // 2
        return (
            f"A is numpy.random.RandomState([{match[1]}]).choice(numpy.arange({classes}), {half}, "
            "replace=False), sorted; B is the rest"
        )
    return {
        NATURAL_MANMADE: "A is natural classes, B is man-made ones",
        DISTANCE: "B is classes of one kind, A is as many at a chosen distance in WordNet",
        PRETRAINED: "A is the task of the weights, B is every class",
        ALL: "every class is one task",
        USER: f"the lists in {split}",
    }[split_kind(split)]


def split_kind(split: str) -> str:
    """Return the kind of a split: ``random`` for random-0, random-1 ...; ``distance`` for
    distance-0 ...; ``natural-manmade``, ``all``, ``pretrained``; ``user`` for a user's lists.
    """
    if split in (NATURAL_MANMADE, ALL, PRETRAINED):
        return split
    if _DISTANCE.fullmatch(split):
        return DISTANCE
    return RANDOM if _RANDOM.fullmatch(split) else USER


def split_name(split: str) -> str:
    """The split's name in run ids: the split itself, or the stem of a user's file."""
    return Path(split).stem if split_kind(split) == USER else split


def _at_distance(step: int, draw: int, split: str, dataset: PackedDataset) -> dict[str, list[int]]:
    wnids = [c.wnid or "" for c in dataset.classes]
    if not wordnet.knows(wnids):
        raise UserError(
            f"split={split}: {dataset.name} has classes that are not in ILSVRC, so their "
            "distances are not known; use split=random-0, or your own lists: split=PATH.yaml"
        )
    tasks = wordnet.tasks_at(step, draw, wnids, dataset.train_counts)
    return {task: classes.tolist() for task, classes in tasks.items()}


def _user_tasks(path: Path, dataset: PackedDataset) -> dict[str, list[int]]:
    if split_kind(path.stem) != USER:
        raise UserError(
            f"split={path}: runs would have the same names as those of split={path.stem}: rename "
            "the file"
        )
    path = Path(expanded(str(path), "split"))
    # names as they are written: YAML's types would turn class 010 into 8, and class no into False
    try:
        lists = yaml.BaseLoader(path.read_text(encoding="utf-8")).get_single_data()
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"split={path}: cannot be read: {' '.join(str(error).split())}") from error
    if not _lists_of_names(lists):
        raise UserError(
            f"split={path}: must have exactly two lists, A: [...] and B: [...], of class names "
            "or wnids; or only B, where weights= defines A"
        )
    meant = _meant_by(dataset)
    found = {
        task: [(name, meant.get(_canonical(name), set())) for name in names]
        for task, names in lists.items()
    }
    if unknown := [name for task in found.values() for name, classes in task if not classes]:
        raise UserError(
            f"split={path}: {dataset.name} has no class {unknown[0][:80]}{and_more(unknown)}"
        )
    for name, classes in (pair for task in found.values() for pair in task):
        if len(classes) > 1:
            wnids = " or ".join(str(dataset.classes[i].wnid) for i in sorted(classes))
            raise UserError(
                f"split={path}: {dataset.name} has {len(classes)} classes {name!r}: write {wnids}"
            )
    tasks = {
        task: sorted({i for _, classes in pairs for i in classes}) for task, pairs in found.items()
    }
    if both := set(tasks.get("A", ())) & set(tasks["B"]):
        raise UserError(f"split={path}: {dataset.classes[min(both)].name!r} is in both A and B")
    return tasks


def _meant_by(dataset: PackedDataset) -> dict[str, set[int]]:
    """The classes of each name or wnid: in ImageNet, "crane" has two."""
    meant: dict[str, set[int]] = {}
    for i, c in enumerate(dataset.classes):
        for name in {c.name, c.wnid or c.name}:
            meant.setdefault(_canonical(name), set()).add(i)
    return meant


def _canonical(name: str) -> str:
    """Normalize accents, which macOS and Linux keyboards encode differently."""
    return unicodedata.normalize("NFC", name)


def _lists_of_names(lists: object) -> bool:
    return (
        isinstance(lists, dict)
        and set(lists) in ({"A", "B"}, {"B"})
        and all(
            isinstance(names, list) and all(isinstance(n, str) for n in names)
            for names in lists.values()
        )
    )
