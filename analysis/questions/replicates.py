"""Splits and seeds: do losses and gains at one n hold for other classes? (study=replicates)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.paper import beside
from analysis.plotting import captions, plot
from analysis.plotting.style import (
    FAINT,
    INK,
    KINDS_OF_NETWORK,
    FigureSpec,
    Panel,
    Style,
    assign_styles,
)
from analysis.statistics.decomposition import QUANTITIES, decompose, difference_at
from analysis.statistics.linear_model import estimate
from analysis.statistics.over_splits import BySplit
from analysis.tables import StudyResults
from transferability.errors import UserError
from transferability.tasks.splits import NATURAL_MANMADE

REPLICATED = (
    "co-adaptation loss",
    "specificity loss",
    "retraining gain",
    "gain over base",
    "gain over control",
)
MEAN = Style("mean over splits, 95% interval over splits", INK, "o", line="-", size=60)
MODEL = Style("linear model, 95% interval of these tasks", FAINT, "s", line="-", size=40)


def asked(networks: pd.DataFrame) -> bool:
    near = networks[(networks.treatment != "base") & (networks.split_kind != NATURAL_MANMADE)]
    return len(near[["split", "seed"]].drop_duplicates()) > 1


def draw(tables: StudyResults) -> FigureSpec:
    """Draw losses and gains of every target task and their means over splits, a panel per n."""
    compared = {treatment for name in REPLICATED for treatment in QUANTITIES[name]}
    own = tables.networks[tables.networks.treatment.isin(compared)]
    networks = own[own.split_kind != NATURAL_MANMADE]
    tasks = _task_differences(networks[networks.accuracy.notna()])
    if tasks.empty:
        raise UserError(
            "several splits or seeds, but none has two of base, BnB, BnB+, AnB, "
            "AnB+ finished in one task"
        )
    paper = decompose(beside(tables)).set_index(["quantity", "n"]).value
    table = _table(tasks, networks, paper)
    looks = assign_styles(tasks.split.unique(), KINDS_OF_NETWORK[1:], "splits")
    marks = {
        split: Style(split, color, marker, line="") for split, (color, marker, _) in looks.items()
    }
    labels = {row.quantity: f"{row.quantity}\n{row.compared}" for row in table.itertuples()}
    panels, measure = [], tables.measure
    for n in sorted(set(table.n)):
        paint = _differences(tasks[tasks.n == n], table[table.n == n], marks, labels, measure)
        panels.append(Panel(f"n = {n}", paint, 8.4, 4.2))
    return FigureSpec(
        "replicates",
        f"Do losses and gains hold for other splits? {tables.dataset}",
        f"{captions.counts(networks)} A colored mark is one target task, filled: A, hollow: B. "
        "Large: the mean over splits with its 95% interval (Student's t; both directions and all "
        f"seeds of a split count as one), which covers {captions.SPLITS_COVER}. Square: that of "
        f"the linear model, which covers {captions.MODEL_COVERS}. {captions.statistic(tables)}",
        panels,
        [*marks.values(), MEAN, MODEL, Style("the paper's published numbers", FAINT, line="--")],
        table,
    )


def _differences(
    tasks: pd.DataFrame,
    means: pd.DataFrame,
    marks: dict[str, Style],
    labels: dict[str, str],
    measure: str,
) -> Callable[[Axes], None]:
    """Draw the differences at one n, in the order of ``labels``."""
    place, shifts = list(labels).index, plot.side_by_side(marks, 0.1)

    def paint(axes: Axes) -> None:
        axes.axhline(0, color=INK, lw=0.8)
        for (split, target), own in tasks.groupby(["split", "target"]):
            tips = [
                f"{r.quantity}, {split}, seed {r.seed}: {r.difference:+.3f}"
                for r in own.itertuples()
            ]
            mark = replace(marks[split], filled=target == "A")
            plot.scatter(axes, own.quantity.map(place) + shifts[split], own.difference, mark, tips)
        x = means.quantity.map(place) + 0.33
        for at, mark, columns in (
            (x, MEAN, ["difference", "low", "high"]),
            (x + 0.1, MODEL, ["model", "model low", "model high"]),
        ):
            value, low, high = (means[column] for column in columns)
            axes.vlines(at, low, high, color=mark.color, lw=1.2)
            tips = [
                f"{r.quantity}: {r[columns[0]]:+.3f} [{r[columns[1]]:+.3f}, {r[columns[2]]:+.3f}]"
                for _, r in means.iterrows()
            ]
            plot.scatter(axes, at, value, mark, tips)
        axes.hlines(means.paper, x - 0.66, x + 0.1, color=FAINT, lw=1, ls="--", zorder=1)
        axes.set_xticks(range(len(labels)), labels.values(), fontsize=8)
        axes.set_ylabel(f"Difference in {measure} accuracy")

    return paint


def _task_differences(networks: pd.DataFrame) -> pd.DataFrame:
    """A row per quantity, n and target task."""
    parts = []
    for n in sorted(set(networks[networks.n > 0].n)):
        rows = networks[(networks.n == n) | (networks.treatment == "base")]
        accuracy = rows.pivot_table(
            index=["split", "seed", "target"], columns="treatment", values="accuracy"
        )
        for name in REPLICATED:
            first, second = QUANTITIES[name]
            if {first, second} <= set(accuracy.columns):
                found = (
                    (accuracy[first] - accuracy[second]).dropna().rename("difference").reset_index()
                )
                parts.append(found.assign(n=n, quantity=name, compared=f"{first} − {second}"))
    return pd.concat(parts) if parts else pd.DataFrame()


def _table(tasks: pd.DataFrame, networks: pd.DataFrame, paper: pd.Series) -> pd.DataFrame:
    """A row per n and quantity: the mean over splits and the linear model's estimate, each with its
    interval, the number of tasks above 0, and the paper's value.
    """
    by_split, rows = BySplit(networks), []
    for (n, name, compared), own in tasks.groupby(["n", "quantity", "compared"], sort=False):
        weights = difference_at(*QUANTITIES[name], n)
        over_splits, model = by_split.estimate(weights), estimate(networks, weights)
        assert over_splits and model  # since tasks have the difference
        above = int((own.difference > 0).sum())
        low, high = over_splits.interval()
        rows.append(
            {"n": n, "quantity": name, "compared": compared, "splits": over_splits.count}
            | {"difference": over_splits.value, "low": low, "high": high}
            | {"model": model.value, "model low": model.low, "model high": model.high}
            | {"tasks above 0": f"{above} of {len(own)}", "paper": paper.get((name, n), np.nan)}
        )
    return pd.DataFrame(rows)
