"""The figures of an answer: accuracy at each depth, and the race."""

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, ScalarFormatter

from analysis.plotting import plot
from analysis.plotting.style import (
    BLUE,
    GREEN,
    INK,
    LIGHT_BLUE,
    LIGHT_RED,
    ORANGE,
    RED,
    FigureSpec,
    Panel,
    Style,
)

if TYPE_CHECKING:
    from analysis.advised import Answer

ARM = ["cell", "rate", "optimizer"]  # columns that identify an arm of the race
PROBE = Style("a linear classifier on layer n", BLUE, "s")
KNN = Style("k nearest neighbors on layer n", LIGHT_BLUE, "v", line="--")
KINDS = {  # kind of cell -> its style
    "two phases": Style("two phases: new layers first, then everything", GREEN, "^", size=50),
    "fine-tuned": Style("n layers copied, all fine-tuned", LIGHT_RED, "P", size=60),
    "frozen": Style("n layers copied and frozen", RED, "D"),
    "all copied": Style("all layers copied, n frozen", ORANGE, "h", size=44),
    "scratch": Style("from scratch", INK, "o", filled=False),
}


def kind(cell: str) -> str:
    """The kind of a cell of the race, a key of KINDS."""
    if cell.startswith("base"):
        return "scratch"
    if cell.endswith("++"):
        return "two phases"
    if "~" in cell:
        return "all copied"
    return "fine-tuned" if cell.endswith("+") else "frozen"


def curve(found: "Answer") -> FigureSpec:
    """Accuracy of linear probes, nearest neighbors and the best raced network at each depth."""
    probes = found.strategies[found.strategies.probe].sort_values("n", kind="stable")
    raced = found.strategies[~found.strategies.probe & (found.strategies.n > 0)]

    told = found.depths
    nearest = told.knn_test if found.subset == "test" else told.knn

    def draw(axes: Axes) -> None:
        axes.plot(told.n, nearest, color=KNN.color, lw=1.2, ls=KNN.line, zorder=1)
        tips = [
            f"layer {n}: k nearest neighbors {v:.3f}" for n, v in zip(told.n, nearest, strict=True)
        ]
        plot.scatter(axes, told.n, nearest, KNN, tips)
        _line(axes, probes.n, probes.test, probes, PROBE)
        for _, rows in raced.groupby("n"):
            row = rows.iloc[0]  # the best on validation
            _line(axes, [row.n], [row.test], rows.iloc[:1], KINDS[kind(row.cell)])
        plot.layer_axis(axes, found.layers)
        axes.set_xlabel(f"n, of the {found.layers} layers below the classifier")
        axes.set_ylabel(f"Accuracy on {found.subset} images")

    there = {kind(rows.iloc[0].cell) for _, rows in raced.groupby("n")}
    return FigureSpec(
        "curve",
        "What each depth is worth",
        f"Accuracy on {found.subset} images of a linear classifier and of the nearest neighbors on "
        f"each layer{', and of the best network of the race at its depth' if there else ''}.",
        [Panel("", draw)],
        [PROBE, KNN, *(mark for name, mark in KINDS.items() if name in there)],
        probes[["n", "validation", "test", "low", "high"]],
    )


def race(found: "Answer") -> FigureSpec | None:
    """Validation accuracy against steps; None before the race."""
    raced = found.strategies[~found.strategies.probe]
    if raced.empty:
        return None
    best = found.probe

    def draw(axes: Axes) -> None:
        if best is not None:
            axes.axhline(best.validation, color=PROBE.color, lw=1, ls=":", zorder=1)
        for (cell, *_), rows in raced.groupby(ARM):
            rows = rows.sort_values("steps", kind="stable")
            _line(axes, rows.steps, rows.validation, rows, KINDS[kind(cell)])
        axes.set_xscale("log")
        steps = sorted(set(raced.steps))
        axes.set_xticks(steps, [str(s) for s in steps])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("Steps, each network with a schedule of its own to the end")
        axes.set_ylabel("Validation accuracy")

    there = {kind(cell) for cell in raced.cell}
    return FigureSpec(
        "race",
        "The race",
        "Validation accuracy of every network of the race, the mean over seeds, by its steps; "
        "lines join those of one strategy and rate. Dotted: the best linear classifier.",
        [Panel("", draw)],
        [mark for name, mark in KINDS.items() if name in there],
        raced[[*ARM, "steps", "seeds", "validation"]],
    )


def _line(axes: Axes, x, y, rows: pd.DataFrame, mark: Style) -> None:
    axes.plot(x, y, color=mark.color, lw=1.2, zorder=2)
    tips = [
        f"{row.cell}, {row.optimizer}, {row.steps} steps, rate {row.rate:g}: "
        f"validation {row.validation:.3f}, "
        f"{row.test:.3f} [{row.low:.3f}, {row.high:.3f}]"
        for row in rows.itertuples()
    ]
    plot.scatter(axes, x, y, mark, tips)
