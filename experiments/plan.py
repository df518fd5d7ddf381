"""Tables of the runs of a study or a store that are done, can be resumed, or are missing."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from transferability.data.description import ClassInfo
from transferability.data.packed import PackedDataset
from transferability.errors import shown
from transferability.runs.store import Store
from transferability.study.jobs import group_into_jobs, with_bases
from transferability.study.spec import RunSpec
from transferability.tasks.splits import split_rule

LISTED = 100  # classes of a task that a plan lists
STATES = ("done", "training", "failed", "partial", "missing")


@dataclass(frozen=True)
class UnpackedImagenet:
    """The attributes of ILSVRC 2012 that a plan needs, before its 262 GB are packed."""

    name: str
    image_size: int
    checksum: str = "not packed"
    encoding: str | None = None

    @cached_property
    def classes(self) -> list[ClassInfo]:
        # here, because it also imports what reads images
        from transferability.data.readers.imagenet import imagenet_groups

        return [ClassInfo(wnid, wnid, group) for wnid, group in sorted(imagenet_groups().items())]

    @property
    def train_counts(self) -> np.ndarray:
        """The size of most classes for all: which classes are smaller is not known yet."""
        return np.full(len(self.classes), 1300)

    def val_rows(self, classes: list[int]) -> range:
        return range(50 * len(classes))


def print_plan(
    specs: list[RunSpec],
    study: list[RunSpec],
    store: Store,
) -> list[RunSpec]:
    """Print what ``experiments.run`` would train, skip and resume for ``specs``, a part of
    ``study``.

    Returns the runs that are left to train.
    """
    numbers = {
        s.run_id: number
        for number, job in enumerate(group_into_jobs(with_bases(study)))
        for s in job
    }
    wanted = with_bases(specs)
    states = {s.run_id: store.state(s) for s in wanted}
    print_states(wanted, states, numbers)
    left = [s for s in wanted if states[s.run_id] != "done"]
    if not left:
        print("\nNothing to train: every network is finished.")
    return left


def print_tasks(specs: list[RunSpec], dataset: PackedDataset | UnpackedImagenet) -> None:
    """Print the rule of each split, and the classes of its tasks."""
    for split in dict.fromkeys(s.split for s in specs):
        print(f"\n{split}: {split_rule(split, len(dataset.classes))}")
        tasks = {s.cell.target: s.classes for s in with_bases(specs) if s.split == split}
        for task, classes in sorted(tasks.items()):
            names = [shown(dataset.classes[i].name) for i in classes]
            more = " ..., all in about.json" if len(names) > LISTED else ""
            print(f"  {task}, {len(names)} classes: {', '.join(names[:LISTED])}{more}")


def print_states(
    runs: list[RunSpec], states: dict[str, str], numbers: dict[str, int] | None = None
) -> None:
    """Print a table of ``runs`` by their ``states``, one line per job, with the ``numbers`` of the
    jobs if known.
    """
    rows = []
    for job in group_into_jobs(runs):
        counts = Counter(states[s.run_id] for s in job)
        first = job[0]
        recipe, *others = dict.fromkeys(map(_network_and_recipe, job))
        recipe += f" and {len(others)} more" if others else ""
        counted = (str(counts[s] or "-") for s in STATES)
        number = str(numbers[first.run_id]) if numbers else ""
        rows.append([number, data_of(first), _treatments(job), recipe, str(len(job)), *counted])
    totals = Counter(states.values())
    rows.append(["", "all", "", "", str(len(runs)), *(str(totals[s] or "-") for s in STATES)])
    header = ["job", "data", "treatments", "network, recipe (steps x batch)", "networks"]
    header += ["done", "training", "failed", "resume", "missing"]
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [
            c.ljust(w) if 1 <= i < 4 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells if numbers else cells[1:]).rstrip())


def data_of(spec: RunSpec) -> str:
    """The training data of a network, in words."""
    reduced = f", {spec.images_per_class} images per class" if spec.images_per_class else ""
    return f"{spec.dataset.name} {spec.split} → {spec.cell.target}, seed {spec.seed}{reduced}"


def _network_and_recipe(spec: RunSpec) -> str:
    steps = f"{spec.recipe.steps:,} x {spec.recipe.batch_size}"
    return f"{spec.network.name}, {spec.recipe.name} ({steps})"


def _treatments(job: list[RunSpec]) -> str:
    return " ".join(dict.fromkeys(s.cell.treatment for s in job))
