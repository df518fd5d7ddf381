"""Comparison of the finished strategies of ``experiments.advise``, and its answer."""

import numpy as np
import pandas as pd

from analysis.advice import words
from analysis.advised import Answer
from analysis.statistics.baseline import Majority, too_few
from analysis.statistics.over_images import (
    Part,
    accuracy_interval,
    covering_choice,
    difference_interval,
    seed_part,
    together,
)
from transferability.data.packed import PackedDataset
from transferability.networks.sequential import profile_layers
from transferability.runs.store import Store
from transferability.study.recipe import LBFGS
from transferability.study.spec import RunSpec

CONFUSED = 12  # classes of a confusion matrix, at most


def answer(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    told: pd.DataFrame,
    ended: bool,
    longest: int,
) -> Answer:
    """The answer from the finished runs ``specs``, all of one task and base.

    Args:
        told: the table of ``measurements.depths``.
        ended: whether the race is over.
        longest: the most steps of a network in the race.
    """
    classes = list(specs[0].classes)
    rows_of = {"validation": dataset.val_rows(classes), "test": dataset.test_rows(classes)}
    subset = "test" if len(rows_of["test"]) else "validation"
    labels = {p: np.searchsorted(classes, dataset.labels[rows]) for p, rows in rows_of.items()}
    groups: dict[tuple, list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault((str(spec.cell), spec.recipe), []).append(spec)
    found = [_strategy(own, store, dataset, labels, subset) for own in groups.values()]
    found.sort(key=lambda one: (-round(one[0]["validation"], 12), one[0]["cost"]))
    of_best = found[0][2]
    cheaper = sum(row["cost"] < found[0][0]["cost"] for row, *_ in found)
    for row, _, tested in found:
        row["test"], row["low"], row["high"] = accuracy_interval(tested)
        row |= dict.fromkeys(("behind", "behind_low", "behind_high", "bound"), 0.0)
    for row, _, tested in found[1:]:  # the best is 0 behind itself
        pairs, seeds = _pairs(found[0][0], of_best, row, tested)
        row["behind"], row["behind_low"], row["behind_high"] = difference_interval(
            pairs, seeds=seeds
        )
        row["bound"] = difference_interval(pairs, together(cheaper), seeds)[2]
    table = pd.DataFrame([row for row, *_ in found])
    table["cost"] /= table.cost[0]
    low, high = alone = table.low[0], table.high[0]
    if len(found) > 1:
        low, high = covering_choice([v for _, v, _ in found], [tested for *_, tested in found])
    spec = groups[table.cell[0], found[0][0]["recipe"]][0]
    names = [dataset.classes[c].name for c in classes]
    differing = [float((of_best.mean(0) != tested.mean(0)).mean()) for *_, tested in found[1:]]
    return Answer(
        table.drop(columns="recipe"),
        (min(low, alone[0]), max(high, alone[1])),
        subset,
        _majority(labels, subset, of_best, names),
        too_few(of_best.shape[1], float(np.median(differing)) if differing else 0.0, subset),
        _confused(
            store, groups[table.cell[0], found[0][0]["recipe"]], labels[subset], subset, names
        ),
        spec,
        specs[0].network.whole_depth - 1,
        table[table.probe][["n", "validation", "test"]]
        .merge(told, on="n")
        .sort_values("n", kind="stable"),
        ended,
        longest,
    )


def _pairs(
    best: dict, of_best: np.ndarray, row: dict, tested: np.ndarray
) -> tuple[np.ndarray, Part | None]:
    """The best minus another strategy on each image, and the variance that their seeds add.

    With equally many seeds, the differences are seed by seed, (seeds, images), and no variance is
    added. Otherwise they are of means over seeds, (1, images), and the variance is that between the
    seeds of strategies that are trained, not fitted.
    """
    if len(of_best) == len(tested):
        return of_best - tested, None
    trained = [right for one, right in ((best, of_best), (row, tested)) if not one["probe"]]
    return of_best.mean(0, keepdims=True) - tested.mean(0), seed_part(*trained)


def _strategy(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    labels: dict[str, np.ndarray],
    subset: str,
) -> tuple[dict, np.ndarray, np.ndarray]:
    """The row of a strategy without comparisons, and its correct predictions of validation images
    and of images of ``subset``, each (seeds, images).
    """
    first, cell = specs[0], specs[0].cell
    kept = [store.predictions(spec) or {} for spec in specs]
    right = {
        p: np.stack([(one[p].numpy() == labels[p]).astype(float) for one in kept])
        for p in ("validation", subset)
    }
    row = {
        "cell": str(cell),
        "words": words(
            pd.Series(
                {"treatment": cell.treatment, "cell": str(cell), "n": cell.n}
                | {"copied": cell.copied, "frozen": cell.frozen}
            ),
            cell.short,
            first.network.whole_depth - 1,
        ),
        "n": cell.n,
        "steps": first.recipe.steps,
        "rate": first.recipe.lr,
        "optimizer": first.recipe.optimizer,
        "seeds": len(specs),
        "validation": right["validation"].mean(),
        "cost": _operations(first, dataset),
        "seconds": sum(store.provenance(spec)["seconds"] for spec in specs),
        "run": first.run_id,
        "probe": first.recipe.optimizer == LBFGS,
        "recipe": first.recipe,
    }
    return row, right["validation"], right[subset]


def _operations(spec: RunSpec, dataset: PackedDataset) -> float:
    """Multiply-adds of training a network, and of the first phase if there are two."""
    costs = [layer.macs for layer in profile_layers(spec.network)]
    if spec.recipe.optimizer == LBFGS:
        views = 1 + spec.recipe.mirror
        rows = dataset.train_rows(list(spec.classes), spec.images_per_class)
        return sum(costs) * views * len(rows)
    images = spec.recipe.steps * spec.recipe.batch_size
    own = images * (sum(costs) + 2 * sum(costs[spec.cell.frozen :]))
    return own + (_operations(spec.base, dataset) if spec.base else 0.0)


def _majority(
    labels: dict[str, np.ndarray], subset: str, right: np.ndarray, names: list[str]
) -> Majority:
    common = int(np.bincount(labels["validation"]).argmax())
    always = (labels[subset] == common).astype(float)
    return Majority(repr(names[common]), float(always.mean()), difference_interval(right - always))


def _confused(
    store: Store, specs: list[RunSpec], labels: np.ndarray, subset: str, names: list[str]
) -> pd.DataFrame | None:
    if len(names) > CONFUSED:
        return None
    matrix = np.zeros((len(names), len(names)), int)
    for spec in specs:
        np.add.at(matrix, (labels, (store.predictions(spec) or {})[subset].numpy()), 1)
    return pd.DataFrame(matrix, columns=names).assign(**{"": names})[["", *names]]
