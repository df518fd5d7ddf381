"""Cost of freezing against the WordNet distance of the source task (study=distance)."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

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
from analysis.statistics.intervals import fitted
from analysis.statistics.linear_model import BLOCK
from analysis.tables import StudyResults
from transferability.errors import UserError
from transferability.tasks.splits import DISTANCE

LINE = Style("straight line, one slope for all targets", INK, line="-")


def asked(networks: pd.DataFrame) -> bool:
    return bool((networks.split_kind == DISTANCE).any())


def draw(tables: StudyResults) -> FigureSpec:
    """Draw the specificity loss (BnB - AnB) of every source task, with a panel per n."""
    losses = losses_by_source(tables.networks[tables.networks.accuracy.notna()])
    if losses.empty:
        raise UserError(
            "no target task has a finished BnB and AnB of the same n: what freezing costs at a "
            "distance is their difference"
        )
    targets = losses.target_task.unique()
    looks = assign_styles(targets, KINDS_OF_NETWORK[1:], "target tasks")
    marks = {
        target: Style(target, color, marker, line="")
        for target, (color, marker, _) in looks.items()
    }
    table = _table(losses)
    panels = [
        Panel(f"n = {n}", _losses_of(own, table[table.n == n].iloc[0], marks, tables.metadata))
        for n, own in losses.groupby("n")
    ]
    bottom, top = losses.loss.min(), losses.loss.max()
    return FigureSpec(
        "wordnet",
        f"What freezing another task's layers costs, by how far that task is: {tables.dataset}",
        f"{captions.counts(tables.networks)} A mark is one source task; the line has one slope for "
        "all target tasks, each with a level of its own (drawn at their mean). Faint: how far the "
        "halves of random-0, and natural from man-made, are by the same measure. "
        "Brackets: 95%, over source tasks of these targets. "
        f"{captions.statistic(tables)}",
        [Panel(p.title, _at_heights(p.draw, bottom, top), p.width, p.height) for p in panels],
        [*marks.values(), LINE],
        table,
        columns=3,
    )


def losses_by_source(done: pd.DataFrame) -> pd.DataFrame:
    """A row per AnB network of known distance with its loss: the accuracy of BnB of the same block
    and n minus that of the network.
    """
    keys = [*BLOCK, "n"]
    own = done[done.treatment == "BnB"].groupby(keys, dropna=False).accuracy.mean()
    sent = done[(done.treatment == "AnB") & done.distance.notna()]
    loss = own.reindex(pd.MultiIndex.from_frame(sent[keys])).to_numpy() - sent.accuracy
    names = {task: f"target {i}" for i, task in enumerate(sent.task.unique(), 1)}
    rows = sent.assign(loss=loss, target_task=sent.task.map(names))
    return rows[rows.loss.notna()]


def _table(losses: pd.DataFrame) -> pd.DataFrame:
    """A row per n: the loss per step of distance, and its curvature.

    ``slope``: the common slope of all target tasks, each with its own intercept (least squares,
    Student's t over residuals). ``bend``: the coefficient of the squared distance when added to the
    model. ``rises``: the number of target tasks whose own slope is positive.
    """
    rows = []
    for n, own in losses.groupby("n"):
        blocks = own[BLOCK].astype(object).fillna("all").agg(tuple, axis=1)
        x = own.distance - own.distance.mean()
        line = fitted(own.loss, blocks, x)
        alone = [
            np.polyfit(x[own_block.index], own_block.loss, 1)[0]
            for _, own_block in own.groupby(blocks)
        ]
        row = {"n": n, "sources": len(own), "targets": len(alone), "mean loss": own.loss.mean()}
        for name, found in (("slope", line), ("bend", fitted(own.loss, blocks, x**2, x))):
            row |= {name: found.value, f"{name} low": found.low, f"{name} high": found.high}
        rows.append(row | {"rises": f"{sum(slope > 0 for slope in alone)} of {len(alone)}"})
    return pd.DataFrame(rows)


def _losses_of(
    own: pd.DataFrame, line: pd.Series, marks: dict[str, Style], about: dict
) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        axes.axhline(0, color=INK, lw=0.8, ls=":")
        for target, rows in own.groupby("target_task"):
            tips = [
                f"{r.split}, n = {r.n}, distance {r.distance:.1f}: {r.loss:+.3f}"
                for r in rows.itertuples()
            ]
            plot.scatter(axes, rows.distance, rows.loss, marks[target], tips)
        ends = np.array([own.distance.min(), own.distance.max()])
        axes.plot(
            ends, own.loss.mean() + line.slope * (ends - own.distance.mean()), color=INK, lw=1.5
        )
        for name, distance in about.get("distances", {}).items():
            axes.axvline(distance, color=FAINT, lw=0.8, ls="--", zorder=0)
            frame = axes.get_xaxis_transform()
            axes.annotate(
                name,
                (distance, 1),
                (-2, -2),
                frame,
                "offset points",
                rotation=90,
                fontsize=7,
                color=FAINT,
                ha="right",
                va="top",
            )
        axes.set_xlabel("Mean path distance in WordNet, source to target")
        axes.set_ylabel("Specificity loss: BnB − AnB")
        axes.text(
            0.02,
            0.02,
            f"{line.slope:+.4f} [{line['slope low']:+.4f}, {line['slope high']:+.4f}] per step",
            transform=axes.transAxes,
            fontsize=8,
        )

    return paint


def _at_heights(draw: Callable[[Axes], None], bottom: float, top: float) -> Callable[[Axes], None]:
    """Give a panel the range of losses of all panels."""

    def paint(axes: Axes) -> None:
        draw(axes)
        room = 0.12 * (top - bottom)
        axes.set_ylim(min(bottom, 0) - room, top + room)

    return paint
