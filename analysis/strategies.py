"""Comparison of a study's strategies: chosen on validation images, reported on test images."""

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.advice import BALANCES, Advice, first, words
from analysis.page import MARGIN
from analysis.statistics.baseline import (
    ACCURACY,
    BALANCED,
    balanced_accuracy,
    majority,
    too_few,
)
from analysis.statistics.over_images import (
    accuracy_interval,
    balanced_interval,
    difference_interval,
    together,
)
from analysis.tables import StudyResults
from transferability.study.recipe import probe_recipe

WAY = ["cell", "recipe"]


def advise(tables: StudyResults, margin: float = MARGIN) -> list[Advice]:
    """The advice of a study of a pretrained base and one task, for each training-set size from the
    smallest to all; empty for other studies, or if predictions were not kept.

    Args:
        margin: how far behind the best a strategy may be and still count as good.
    """
    networks = tables.networks
    if "given" not in tables.metadata or "right" not in networks or networks.task.nunique() > 1:
        return []
    asked = networks[(networks.treatment == "base") | (networks.source == "A")]
    sizes = sorted(asked.images_per_class.unique(), key=lambda size: (pd.isna(size), size))
    found = [_of_size(tables, asked, None if pd.isna(size) else int(size)) for size in sizes]
    return [replace(advice, margin=margin) for advice in found if advice]


def _of_size(tables: StudyResults, asked: pd.DataFrame, size: int | None) -> Advice | None:
    """The advice for ``size`` training images per class; None for fewer than two strategies."""
    asked = _at(asked, size)
    finished = asked.groupby(WAY).right.transform("count") == asked.seed.nunique()
    done = asked[finished]
    if len(done.drop_duplicates(WAY)) < 2:
        return None
    subset = "test" if "test_top1" in done and done.test_top1.notna().all() else "validation"
    ways = []
    for _, rows in done.groupby(WAY, dropna=False, sort=False):
        right = {
            row.seed: own.astype(float)
            for row in rows.itertuples()
            if (own := tables.correct(row.run, row.task, subset)) is not None
        }
        ways.append((_described(rows, right, tables), right))
    task, by = done.task.iloc[0], tables.metadata.get("choose_by")
    chosen = "validation_balanced" if by == BALANCED else "validation"
    ways.sort(key=lambda way: -way[0][chosen])  # stable
    if by:  # ties go to the cheapest; in older tables, to the first of the study
        ways.sort(key=lambda way: (-round(way[0][chosen], 12), way[0]["cost"]))
    differing = _compare(ways, tables.predictions[f"{task} {subset}"], by == BALANCED)
    frame = pd.DataFrame([row for row, _ in ways])
    frame["cost"] /= frame.cost[0]
    frame["longer"] = frame.longer / frame.longer.mode()[0]
    falls = frame[chosen] - frame["balanced" if by == BALANCED else "test"]
    left = len(asked[~finished].drop_duplicates(WAY))
    optimism = float(falls[0] - falls.mean())
    top = len(tables.metadata["layer_costs"]) - 1
    best = np.stack(list(ways[0][1].values()))
    found = majority(tables, task, subset, best, by == BALANCED)
    few = too_few(best.shape[1], differing, subset)
    return Advice(frame, left, subset, optimism, size, top, by or ACCURACY, found, few)


def _compare(
    ways: list[tuple[dict, dict[int, np.ndarray]]], labels: np.ndarray, balanced: bool
) -> float:
    """Add to each strategy's row its accuracy on the images of ``labels``, and how far it is behind
    the first strategy.

    Returns:
        The median share of images that only one of a strategy and the first predicts correctly.
    """
    of_best, shares = ways[0][1], []
    cheaper = sum(row["cost"] < ways[0][0]["cost"] for row, _ in ways)
    for row, right in ways:
        scores = np.stack(list(right.values()))
        row["test"], row["test_low"], row["test_high"] = accuracy_interval(scores)
        row |= dict(zip(BALANCES, balanced_interval(scores, labels), strict=True))
        pairs = np.stack([of_best[seed] - right[seed] for seed in of_best])
        shares.append(float((pairs != 0).mean()))
        found = [(0.0, 0.0, 0.0)] * 2  # the best is not behind itself
        if right is not of_best:
            found = [
                balanced_interval(pairs, labels, True, confidence)
                if balanced
                else difference_interval(pairs, confidence)
                for confidence in (0.95, together(cheaper))
            ]
        (row["behind"], row["low"], row["high"]), (*_, row["bound"]) = found
        row["apart"] = not row["low"] <= 0 <= row["high"]
    return float(np.median(shares[1:])) if len(shares) > 1 else 0.0


def confusions(tables: StudyResults, advice: Advice, most: int = 12) -> pd.DataFrame:
    """The confusions of the best strategy of an advice, over all its seeds.

    Returns:
        For up to ``most`` classes, the confusion matrix: a row per class, a column per predicted
        class. For more classes, the ``most`` frequent errors, a row each: shows (the class),
        ``taken for`` (the predicted class), images, share (of the class).
    """
    networks, best = tables.networks, advice.best
    own = networks[(networks.cell == best.cell) & (networks.recipe == best.recipe)]
    own = _at(own, advice.images_per_class)
    names = tables.metadata["dataset"]["class_names"]
    task = own.task.iloc[0]
    classes = [names[c] for c in tables.predictions[f"{task} classes"]]
    matrix = np.zeros((len(classes), len(classes)), int)
    for run in own.run:
        taken = tables.predictions[f"{run} {advice.subset}"]
        np.add.at(matrix, (tables.predictions[f"{task} {advice.subset}"], taken), 1)
    if len(classes) <= most:
        return pd.DataFrame(matrix, columns=classes).assign(**{"": classes})[["", *classes]]
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, matrix)
    places = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows = [divmod(int(place), len(classes)) for place in places]
    return pd.DataFrame(
        {
            "shows": [classes[i] for i, _ in rows],
            "taken for": [classes[j] for _, j in rows],
            "images": [wrong[i, j] for i, j in rows],
            "share": [wrong[i, j] / matrix[i].sum() for i, j in rows],
        }
    )


def _at(networks: pd.DataFrame, size: int | None) -> pd.DataFrame:
    """The networks trained on ``size`` images per class; None: on all images."""
    sizes = networks.images_per_class
    return networks[sizes.isna() if pd.isna(size) else sizes == size]


def summary(advice: list[Advice]) -> pd.DataFrame:
    """Accuracy by training-set size: a row per number of images per class, with the accuracies of
    the best strategy, from scratch, of linear classifiers, with all layers copied and frozen, and
    with all copied and fine-tuned, each the best of its kind on validation.
    """
    rows = []
    for a in advice:
        whole = a.family("AnB~all")
        kinds = {
            "from scratch": a.scratch,
            "linear classifier": a.probe,
            "all frozen": first(whole[whole.n == a.top]),
            "all fine-tuned": first(whole[whole.n == 0]),
        }
        rows.append(
            {
                "images a class": a.images_per_class or "all",
                "best": f"{a.best.cell}, {a.best.recipe}",
                a.subset: a.best[a.shown],
                "low": a.best[f"{a.shown}_low"],
                "high": a.best[f"{a.shown}_high"],
                **{name: np.nan if way is None else way[a.shown] for name, way in kinds.items()},
                "optimism": a.optimism,
                "seeds": a.best.seeds,
            }
        )
    return pd.DataFrame(rows)


def _described(rows: pd.DataFrame, right: dict[int, np.ndarray], tables: StudyResults) -> dict:
    """The row of a strategy before comparison."""
    one = rows.iloc[0]
    costs, short = tables.metadata["layer_costs"], "." in one.cell
    cost = _operations(one, costs)
    if len(first_phase := _first_phase(one, tables.results)):
        cost += _operations(first_phase.iloc[0], costs)
    return {
        **one[[*WAY, "n", "copied", "frozen"]],
        "short": short,
        "steps": int(one.images // tables.metadata["recipe"]["batch_size"]),
        "longer": one.images,
        "words": words(one, short, len(costs) - 1),
        "cost": cost,
        "seeds": len(right),
        "validation": rows.top1.mean(),
        "validation_balanced": np.mean(
            [
                balanced_accuracy(*(tables.predictions[f"{of} validation"] for of in (run, task)))
                for run, task in zip(rows.run, rows.task, strict=True)
            ]
        ),
        "run": one.run,
    }


def _operations(network: pd.Series, costs: list[int]) -> float:
    """Multiply-adds of training a network with these costs of layers."""
    top = network.n if "." in network.cell else len(costs)
    trained = range(network.frozen, top)
    return network.images * (sum(costs[:top]) + 2 * sum(costs[i] for i in trained))


def _first_phase(network: pd.Series, results: pd.DataFrame) -> pd.DataFrame:
    """The network that the second of two phases starts from; no rows for other networks."""
    cell, again, _ = network.cell.partition("++")
    if not again:
        return results.iloc[:0]
    own = (results.cell == cell) & (results.task == network.task) & (results.seed == network.seed)
    rows = _at(results[own & (results.state == "done")], network.images_per_class)
    usual = probe_recipe(mirror=False).name if "." in cell else network.recipe
    return rows[rows.recipe == usual] if (rows.recipe == usual).any() else rows
