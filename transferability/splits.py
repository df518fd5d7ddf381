"""Splits: pairs of disjoint tasks A and B over the classes of a dataset (paper section 2)."""

import re
from pathlib import Path

import numpy as np
import yaml

from transferability.datasets import PackedDataset
from transferability.errors import UserError


def tasks_of(split: str, dataset: PackedDataset) -> dict[str, list[int]]:
    """The tasks of ``split``: task name -> sorted dataset classes.

    ``random-K``: the original's rule (``make_rand_splits.py``): half of the classes, drawn by numpy's legacy
    generator seeded with the one-element list ``[K]``, are A. ``natural-manmade``: A natural, B man-made.
    ``all``: every class as the task ``all``. ``PATH.yaml``: lists A and B of class names or wnids.

    Raises:
        UserError: an unknown split, too few classes, unknown or shared classes in a user's lists.
    """
    n = len(dataset.classes)
    if match := re.fullmatch(r"random-(\d+)", split):
        chosen = np.random.RandomState([int(match[1])]).choice(np.arange(n), n // 2, replace=False)
        tasks = {"A": sorted(chosen.tolist()), "B": sorted(set(range(n)) - set(chosen.tolist()))}
    elif split == "natural-manmade":
        groups = [c.group for c in dataset.classes]
        tasks = {
            task: [i for i, g in enumerate(groups) if g == group]
            for task, group in (("A", "natural"), ("B", "man-made"))
        }
        if not tasks["A"] or not tasks["B"]:
            raise UserError(
                f"split=natural-manmade: {dataset.name} does not say which classes are natural and which man-made; "
                "use split=random-0, or lists of your own: split=PATH.yaml with A: [...] and B: [...]"
            )
    elif split == "all":
        tasks = {"all": list(range(n))}
    elif split.endswith((".yaml", ".yml")):
        tasks = _user_tasks(Path(split), dataset)
    else:
        raise UserError(f"split={split} is not known: write random-0 (any number), natural-manmade, all, or PATH.yaml")
    for task, classes in tasks.items():
        if len(classes) < 2:
            raise UserError(
                f"split={split} of {dataset.name} ({n} classes) leaves task {task} with {len(classes)}: "
                "a task needs at least 2 classes"
            )
    return tasks


def split_kind(split: str) -> str:
    """``random`` for random-0, random-1 ...; ``natural-manmade``, ``all``; ``user`` for lists of one's own."""
    if split in ("natural-manmade", "all"):
        return split
    return "random" if re.fullmatch(r"random-\d+", split) else "user"


def split_name(split: str) -> str:
    """What names the split in run ids: itself, or the name of the user's file."""
    return Path(split).stem if split_kind(split) == "user" else split


def _user_tasks(path: Path, dataset: PackedDataset) -> dict[str, list[int]]:
    try:
        lists = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"split={path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(lists, dict) or set(lists) != {"A", "B"} or not all(map(isinstance, lists.values(), (list,) * 2)):
        raise UserError(f"split={path}: wants exactly two lists, A: [...] and B: [...], of class names or wnids")
    index = {c.name: i for i, c in enumerate(dataset.classes)}
    index |= {c.wnid: i for i, c in enumerate(dataset.classes) if c.wnid}
    unknown = [str(name) for names in lists.values() for name in names if str(name) not in index]
    if unknown:
        raise UserError(f"split={path}: {dataset.name} has no class {', '.join(unknown[:5])}")
    tasks = {task: sorted({index[str(name)] for name in names}) for task, names in lists.items()}
    if both := set(tasks["A"]) & set(tasks["B"]):
        raise UserError(f"split={path}: {dataset.classes[min(both)].name!r} is in both A and B")
    return tasks
