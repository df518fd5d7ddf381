"""The contents of about.json: what was run, on which images, and the criterion of choice."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from analysis.statistics.baseline import BALANCED
from transferability.data.duplicates import describe
from transferability.data.near_duplicates import near_sentence
from transferability.data.packed import PackedDataset
from transferability.networks.sequential import profile_layers
from transferability.study.spec import RunSpec, pretrained_base_of
from transferability.tasks import wordnet
from transferability.tasks.splits import (
    DISTANCE,
    NATURAL_MANMADE,
    split_kind,
    split_rule,
    tasks_of,
)


def task_distance(dataset: PackedDataset, a: Sequence[int], b: Sequence[int]) -> float:
    """The mean path distance in WordNet between the classes of two tasks; NaN if a class is not in
    WordNet.
    """
    wnids_a, wnids_b = ([dataset.classes[i].wnid or "" for i in task] for task in (a, b))
    known = wordnet.knows([*wnids_a, *wnids_b])
    return wordnet.mean_distance(wnids_a, wnids_b) if known else math.nan


def split_distances(dataset: PackedDataset) -> dict[str, float]:
    """The distance between the tasks of random-0 and of natural/man-made, if all classes are in
    WordNet.
    """
    if not wordnet.knows([c.wnid for c in dataset.classes]):
        return {}
    tasks = {split: tasks_of(split, dataset) for split in ("random-0", NATURAL_MANMADE)}
    return {split: round(task_distance(dataset, t["A"], t["B"]), 3) for split, t in tasks.items()}


def _encoding(dataset: PackedDataset) -> dict[str, str]:
    """The label of lossily packed images in figures and report."""
    quality = dataset.meta["settings"].get("jpeg_quality")
    return (
        {"encoding": f"JPEG-compressed pack (quality {quality}, 4:4:4)"} if dataset.encoding else {}
    )


def _duplicates(dataset: PackedDataset) -> dict[str, str]:
    """The report's text on duplicate and near-duplicate images."""
    found, near = (dataset.meta.get(key) for key in ("duplicates", "near_duplicates"))
    dropped = dataset.meta["settings"].get("duplicates") == "drop"
    how = "dropped" if dropped else "kept: duplicates inflate or distort accuracy"
    said = [f"duplicate images: {describe(found, names=False)} ({how})"] if found else []
    if near:
        said.append(near_sentence(near, dataset.n_val + dataset.n_test))
    return {"duplicates": "; ".join(said)} if said else {}


def _images(dataset: PackedDataset) -> dict[str, Any]:
    return (
        {
            "name": dataset.name,
            "classes": len(dataset.classes),
            "class_names": [c.name for c in dataset.classes],
            "training_images": dataset.n_train,
            "validation_images": dataset.n_val,
            "image_size": dataset.image_size,
            "checksum": dataset.checksum,
        }
        | ({"test_images": dataset.n_test} if dataset.n_test else {})
        | _duplicates(dataset)
    )


def _grammar(dataset: PackedDataset) -> dict[str, Any]:
    """The grammar of synthetic images, if any."""
    grammar = dataset.meta["settings"].get("grammar")
    return {"grammar": grammar} if grammar else {}


def _tasks(specs: list[RunSpec], dataset: PackedDataset) -> dict[str, dict[str, Any]]:
    """The rule of each split, and the names of the classes of its tasks."""
    found: dict[str, dict[str, Any]] = {}
    for spec in specs:
        tasks = found.setdefault(
            spec.split, {"rule": split_rule(spec.split, len(dataset.classes)), "classes": {}}
        )
        tasks["classes"][spec.cell.target] = [dataset.classes[i].name for i in spec.classes]
    return found


def study_metadata(
    specs: list[RunSpec], provenance: list[dict], dataset: PackedDataset
) -> dict[str, Any]:
    """Describe what was run, for the report; independent of the time of collection."""
    # parts of a study may differ in recipe or training-set size
    whole = [spec for spec in specs if not spec.cell.short]
    whole = [spec for spec in whole if spec.images_per_class is None] or whole or specs
    usual = Counter(spec.recipe for spec in whole).most_common(1)[0][0]
    last = [spec for spec in whole if spec.recipe == usual][-1]
    network, recipe = asdict(last.network) | {"layers": last.network.n_layers}, asdict(last.recipe)
    if len({spec.network.n_outputs for spec in whole if spec.recipe == usual}) > 1:
        network["outputs"] = "one per class of the task"
    own: dict[str, Any] = {}
    if any(split_kind(spec.split) == DISTANCE for spec in specs):
        own["distances"] = split_distances(dataset)
    if base := pretrained_base_of(specs):
        costs = [layer.macs for layer in profile_layers(last.network)]
        own |= {"given": base.lines(), "layer_costs": costs}
    versions = {f"{name} {p[name]}" for p in provenance for name in ("torch", "numpy", "python")}
    encoding = _encoding(dataset)
    return {
        "title": ", ".join(
            [
                dataset.name,
                f"{network['name']} network",
                f"{recipe['name']} recipe",
                *encoding.values(),
            ]
        ),
        "statistic": "top1",
        "statistic_label": "top-1 on all validation images of the task at the end of training",
        "dataset": _images(dataset) | encoding | _grammar(dataset),
        "tasks": _tasks(specs, dataset),
        "network": network,
        **own,
        "recipe": recipe,
        "device": sorted({p["device"] for p in provenance}),
        "versions": sorted(versions),
        "commit": sorted({p["commit"] for p in provenance if p["commit"]}),
        "finished": max((p["finished"] for p in provenance), default=None),
    }


def add_choice(about: dict[str, Any], choose_by: str) -> None:
    """Add the criterion by which the best is chosen, and the statistic that figures show."""
    about["choose_by"] = choose_by
    if choose_by == BALANCED:
        label = "balanced accuracy (the mean over classes) on all validation images of the task"
        about |= {
            "statistic": "top1_balanced",
            "statistic_label": f"{label} at the end of training",
        }
