"""Strategies for a pretrained network on one scale, and accuracy against training-set size."""

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.advice import FAMILIES, Advice
from analysis.plotting import captions, plot
from analysis.plotting.style import (
    BLUE,
    GREEN,
    INK,
    LIGHT_RED,
    ORANGE,
    RED,
    FigureSpec,
    Panel,
    Style,
)
from analysis.strategies import advise, summary
from analysis.tables import StudyResults

LOOKS = {
    "base": Style(f"base: {FAMILIES['base']}", INK, line=":"),
    "An.B": Style(f"An.B: {FAMILIES['An.B']}", BLUE, "s", offset=-0.15),
    "AnB": Style(f"AnB: {FAMILIES['AnB']}", RED, "D", offset=-0.05),
    "AnB+": Style(f"AnB+: {FAMILIES['AnB+']}", LIGHT_RED, "P", offset=0.05, size=60),
    "AnB++": Style(f"AnB++: {FAMILIES['AnB++']}", GREEN, "^", offset=0.1, size=50),
    "AnB~all": Style(f"AnB~all: {FAMILIES['AnB~all']}", ORANGE, "h", offset=0.15, size=44),
}
SIZES = {  # columns of analysis.strategies.summary
    "best": Style("the best on validation", INK, "o"),
    "from scratch": Style("from scratch", INK, line=":"),
    "linear classifier": Style("linear classifier", BLUE, "s"),
    "all frozen": Style("all layers copied, all frozen", RED, "D"),
    "all fine-tuned": Style("all layers copied, none frozen", LIGHT_RED, "P", size=60),
}


def draw(tables: StudyResults) -> FigureSpec | str:
    if not (found := advise(tables)):
        return "fewer than two strategies for a pretrained base and one task are finished"
    there = [name for name in LOOKS if any(len(a.family(name)) for a in found)]
    marks = [LOOKS[name] for name in there]
    shown = found[-1].shown
    drawn = [a.family(name) for a in found for name in there]
    low = min(rows[f"{shown}_low"].min() for rows in drawn)
    high = max(rows[f"{shown}_high"].max() for rows in drawn)
    scale = low - 0.03 * (high - low), high + 0.03 * (high - low)
    panels = [
        Panel(_title(a, len(found)), partial(_of_size, advice=a, there=there, scale=scale))
        for a in found
    ]
    table = pd.concat(
        [
            a.curve(name).assign(family=name, images=a.images_per_class or "all")
            for a in found
            for name in there
        ]
    )
    several = len(found) > 1
    if several:
        panels.append(Panel("What more images are worth", lambda axes: _sizes(axes, found)))
    longer = ""
    if any((a.strategies.longer > 1).any() for a in found):
        longer = " Open marks and the dashed line: trained longer (as in the table of strategies)."
        longer += " The last panel has the best of each kind, trained longer or not." * several
    one, counts = found[-1], sorted({a.best.seeds for a in found})
    seeds = " or ".join(map(str, counts)) + (" seed" if counts == [1] else " seeds")
    columns = ["images", "family", "n", "recipe", shown, f"{shown}_low", f"{shown}_high"]
    always = ""
    if "choose_by" in tables.metadata and one.majority:  # older figures stay unchanged
        always = f" {one.majority.always}."
    return FigureSpec(
        "advice",
        f"How many layers to keep, freeze, fine-tune: {captions.study(tables)}",
        f"{_measure(one)} on {one.subset} images against n, at each n with the recipe that is best "
        f"on validation images; means of {seeds}, bars: 95% intervals over images"
        f"{' and seeds' if max(counts) > 1 else ''}. Marks of one n are shifted sideways."
        f"{longer}{always}",
        panels,
        marks,
        table[columns].reset_index(drop=True),
        columns=2,
    )


def _measure(advice: Advice) -> str:
    return "Accuracy" if advice.shown == "test" else "Balanced accuracy"


def _axis(advice: Advice) -> str:
    return f"{'Top-1' if advice.shown == 'test' else 'Balanced'} accuracy on {advice.subset} images"


def _title(advice: Advice, count: int) -> str:
    if advice.images_per_class is None:
        return "All training images" if count > 1 else ""
    return f"{advice.images_per_class} training images per class"


def _of_size(axes: Axes, advice: Advice, there: list[str], scale: tuple[float, float]) -> None:
    for name in there:
        mark, rows = LOOKS[name], advice.family(name)
        if name == "base":
            for way in (_best(rows, rows.longer == 1), _best(rows, rows.longer > 1)):
                if way is not None:
                    line = "--" if way.longer > 1 else ":"
                    axes.axhline(way[advice.shown], color=mark.color, lw=1, ls=line, zorder=1)
            continue
        _line(axes, advice.curve(name), mark, advice.shown)
        longer = rows[rows.longer > 1].drop_duplicates("n")
        if len(longer) and name != "AnB+":  # whose last n is the first of AnB~all
            _line(
                axes,
                longer,
                Style("", mark.color, mark.marker, False, size=mark.size),
                advice.shown,
            )
    plot.layer_axis(axes, advice.top)
    axes.set_ylim(scale)
    axes.set_xlabel(f"n, of the {advice.top} layers below the classifier")
    axes.set_ylabel(_axis(advice))


def _best(rows: pd.DataFrame, which: pd.Series) -> pd.Series | None:
    return rows[which].iloc[0] if which.any() else None


def _line(axes: Axes, rows: pd.DataFrame, mark: Style, shown: str) -> None:
    value, low, high = rows[shown], rows[f"{shown}_low"], rows[f"{shown}_high"]
    x, spread = rows.n + mark.offset, [value - low, high - value]
    axes.plot(x, value, color=mark.color, lw=1.3, zorder=2)
    axes.errorbar(x, value, spread, fmt="none", ecolor=mark.color, elinewidth=0.8, zorder=2)
    tips = [
        f"{row.cell}, {row.recipe}: {row[shown]:.3f} [{row[f'{shown}_low']:.3f}, "
        f"{row[f'{shown}_high']:.3f}]"
        for _, row in rows.iterrows()
    ]
    plot.scatter(axes, x, value, mark, tips)


def _sizes(axes: Axes, found: list[Advice]) -> None:
    table, places = summary(found), range(len(found))
    for name, mark in SIZES.items():
        values = table[found[-1].subset if name == "best" else name]
        if values.isna().all():
            continue
        look: dict[str, Any] = {"color": mark.color, "marker": mark.marker, "label": mark.label}
        axes.plot(places, values, mark.line, lw=1.3, zorder=2, markersize=5, **look)
        tips = [f"{mark.label}, {row[0]} images per class" for row in table.itertuples(index=False)]
        if mark.marker:
            plot.scatter(axes, places, values, mark, tips)
    axes.set_xticks(places, [str(size) for size in table["images a class"]])
    axes.set_xlabel("Training images per class")
    axes.set_ylabel(_axis(found[-1]))
    axes.legend(fontsize=7, loc="best")
