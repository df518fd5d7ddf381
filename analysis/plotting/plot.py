"""Elements of figures: marks, curves, bars and axes, drawn from rows of a table."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from analysis.plotting.style import BLUE, FAINT, LIGHT_RED, PAPER, READINGS, RED, Style, with_tips
from analysis.statistics.linear_model import BLOCK

TICKS = 16  # the number of tick labels that fit on an axis of layers


def chance(axes: Axes, height: float, side: str) -> None:
    axes.axhline(height, color=FAINT, lw=0.8, ls="--")
    where = (0.01 if side == "left" else 0.99, height)
    frame = axes.get_yaxis_transform()  # along the axes, at the height of the data
    axes.annotate("chance", where, (0, 3), frame, "offset points", fontsize=8, color=FAINT, ha=side)


def curve(axes: Axes, rows: pd.DataFrame, mark: Style, style: str = "-") -> None:
    """Draw one treatment and its base at n = 0: marks, a thin line per block, and the mean if there
    are several blocks.
    """
    treated = rows[rows.treatment != "base"]
    groups = [own.sort_values("n", kind="stable") for _, own in rows.groupby(BLOCK, dropna=False)]
    thin = len(groups) > 1
    for own in groups:
        axes.plot(
            own.n,
            own.accuracy,
            style,
            color=mark.color,
            lw=0.6 if thin else 1.6,
            alpha=0.5 if thin else 1,
            zorder=1,
        )
    if thin:
        mean = rows.groupby("n").accuracy.mean()
        axes.plot(mean.index, mean, style, color=mark.color, lw=1.8, zorder=2)
    points(axes, treated, mark, offset=0)


def by_target(axes: Axes, rows: pd.DataFrame, mark: Style) -> None:
    """Draw a curve for each direction between natural and man-made."""
    for target, name, style in (("A", "natural (task A)", "-"), ("B", "man-made (task B)", "--")):
        if (rows.target == target).any():
            curve(axes, rows[rows.target == target], mark, style)
            axes.plot([], [], style, color=mark.color, label=f"target: {name}")
    axes.legend(loc="lower left", fontsize=8)
    layer_axis(axes, rows.n.max())


def points(axes: Axes, rows: pd.DataFrame, mark: Style, offset: float | None = None) -> None:
    """Draw one mark per network."""
    shown = rows[rows.accuracy.notna()]
    shift = mark.offset if offset is None else offset
    scatter(axes, shown.n + shift, shown.accuracy, mark, tips_of(shown))


def scatter(axes: Axes, x, y, mark: Style, tips: list[str]) -> None:
    """Draw marks of the values that are not NaN, so that each mark in an SVG has its tip."""
    there = ~np.isnan(np.asarray(y, float))
    collection = axes.scatter(
        np.asarray(x)[there],
        np.asarray(y)[there],
        s=mark.size,
        marker=mark.marker,
        facecolors=mark.face,
        edgecolors=PAPER if mark.filled else mark.color,
        linewidths=0.5 if mark.filled else 1.3,
        zorder=3,
    )
    with_tips(collection, [tip for tip, known in zip(tips, there, strict=True) if known])


def tips_of(rows: pd.DataFrame) -> list[str]:
    return [f"{r.cell}, {r.split}, seed {r.seed}: {r.accuracy:.3f}" for r in rows.itertuples()]


def bars(axes: Axes, rows: pd.DataFrame, mark: Style, kind: str | None) -> None:
    """Draw the mean at each n with bars of ``kind``: one standard deviation if there are several
    "networks", the binomial 95% interval over "images" of a single network, or None.
    """
    done = rows[rows.accuracy.notna()]
    for n, own in done.groupby("n"):
        mean = own.accuracy.mean()
        below = above = 0.0
        spread = f"{len(own)} networks" if len(own) > 1 else "one network"
        if kind == "networks" and len(own) > 1:
            below = above = own.accuracy.std()
            spread = f"± {below:.3f} between {len(own)} networks"
        elif kind == "images" and len(own) == 1:
            images = int(own.val_images.iloc[0])
            interval = stats.binomtest(round(mean * images), images).proportion_ci(0.95, "exact")
            below, above = max(mean - interval.low, 0), max(interval.high - mean, 0)
            spread = (
                f"one network, validation images alone: {interval.low:.3f} to {interval.high:.3f}"
            )
        x = n + mark.offset / 2
        if below or above:
            bar = [[below], [above]]
            axes.errorbar([x], [mean], bar, color=mark.color, lw=1, capsize=2, zorder=2)
        scatter(axes, [x], [mean], mark, [f"{own.treatment.iloc[0]}, n = {n}: {mean:.3f} {spread}"])


def estimates(axes: Axes, rows: pd.DataFrame, mark: Style) -> None:
    """Draw differences with their intervals, joined by a line."""
    x = rows.n + mark.offset
    axes.plot(x, rows.value, color=mark.color, lw=1.3, zorder=2)
    axes.vlines(x, rows.low, rows.high, color=mark.color, lw=1, zorder=2)
    tips = [
        (
            f"{r.quantity}, n = {r.n}: {r.value:+.3f} [{r.low:+.3f}, {r.high:+.3f}], "
            f"{r.networks} networks"
        )
        for r in rows.itertuples()
    ]
    scatter(axes, x, rows.value, mark, tips)


def shade(axes: Axes, lines: dict[str, pd.Series]) -> None:
    """Shade the cost of broken co-adaptation from base to BnB, the cost of specificity from BnB to
    AnB, and the gain of AnB+ above base.
    """
    base = lines["base"].iloc[0] if len(lines["base"]) else np.nan
    for upper, lower, color in (
        ("base", "BnB", BLUE),
        ("BnB", "AnB", RED),
        ("AnB+", "base", LIGHT_RED),
    ):
        if upper in lines and lower in lines:
            both = lines[lower if upper == "base" else upper].index
            low, high = (
                pd.Series(base, both) if t == "base" else lines[t].reindex(both)
                for t in (lower, upper)
            )
            axes.fill_between(
                both, low, high, where=high > low, interpolate=True, color=color, alpha=0.1, lw=0
            )


def numbers_at_the_end(axes: Axes, lines: dict[str, pd.Series], last: int) -> None:
    """Draw the number of each reading at the right end of its line, with a minimum distance."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.055
    ends = {
        t: (line.iloc[0] if t == "base" else line.iloc[-1])
        for t, line in lines.items()
        if len(line)
    }
    heights, previous = {}, -np.inf
    for treatment in sorted(ends, key=ends.__getitem__):
        previous = heights[treatment] = max(ends[treatment], previous + gap)
    excess = max(0.0, previous - high + gap / 2)
    for treatment, height in heights.items():
        number = READINGS[treatment][0].split()[0]
        axes.text(
            last + 0.45 * _scale(last),
            height - excess,
            number,
            fontweight="bold",
            va="center",
            ha="center",
        )


def side_by_side(names: Collection[Any], step: float) -> dict[Any, float]:
    """The shift of each of ``names`` along an axis, so that marks at one place do not overlap."""
    return {name: step * (place - (len(names) - 1) / 2) for place, name in enumerate(names)}


def layer_axis(axes: Axes, last: int, first: int = 0, numbers: bool = False) -> None:
    """Set up the axis of n, with a tick label every 1, 2 or 5 layers, as many as fit.

    Args:
        numbers: whether to leave space on the right for :func:`numbers_at_the_end`.
    """
    every = next((step for step in (1, 2) if last - first < TICKS * step), 5)
    axes.set_xticks([n for n in range(first, last + 1) if n % every == 0])
    if every > 1:
        axes.set_xticks(range(first, last + 1), minor=True)
    room = 0.35 * _scale(last) if numbers else 0
    axes.set_xlim(first - 0.4 * _scale(last), last + room + 0.4 * _scale(last))
    axes.set_xlabel(
        "Layer n at which the network is chopped" + (" (0: base)" if first == 0 else "")
    )


def _scale(last: int) -> float:
    """The number of layers on this axis that are as wide as one layer on an axis up to 7."""
    return max(1.0, last / 7)
