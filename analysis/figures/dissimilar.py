"""All treatments between natural and man-made, for studies with more than the paper's AnB."""

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes

from analysis.plotting import captions, plot
from analysis.plotting.selection import MAIN, finished, mean_line, relative_table, relative_to_base
from analysis.plotting.style import INK, ORANGE, RED, TREATMENTS, FigureSpec, Panel, Style
from analysis.statistics.decomposition import decompose
from analysis.tables import StudyResults, mixed
from transferability.tasks.splits import NATURAL_MANMADE

TITLES = {
    "A": "Target A: natural, layers from man-made",
    "B": "Target B: man-made, layers from natural",
}
LOSSES = {
    "specificity loss": Style("similar tasks", RED, "D", offset=-0.06),
    "specificity loss, dissimilar tasks": Style("natural/man-made", ORANGE, "h", offset=0.06),
}


def draw(tables: StudyResults) -> FigureSpec | str:
    if why := mixed(tables.networks):
        return why
    rows = tables.networks[tables.networks.split_kind == NATURAL_MANMADE]
    copied = [t for t in MAIN if finished(rows, t)]
    there = copied + (["RnB"] if finished(rows, "RnB") else [])
    if not set(there) - {"AnB"}:
        return "nothing but AnB between natural and man-made, which is in the figure distance"
    relative, parts, last = relative_to_base(rows), decompose(tables.networks), rows.n.max()
    panels, measure = [], tables.measure
    if copied:
        for target in sorted(set(rows.target)):
            panels.append(
                Panel(
                    TITLES[target],
                    _of_target(relative[relative.target == target], copied, last, measure),
                )
            )
    if "RnB" in there:
        panels.append(
            Panel("Random, untrained layers", lambda axes: _random(axes, relative, measure))
        )
    bars = ""
    if (parts.quantity == "specificity loss, dissimilar tasks").any():
        panels.append(Panel("Specificity loss", lambda axes: _losses(axes, parts, last)))
        bars = " Bars: 95% intervals, simultaneous for all of one color."
    classes = " and ".join(str(own.classes.iloc[0]) for _, own in rows.groupby("target"))
    return FigureSpec(
        "dissimilar",
        f"Dissimilar tasks, all treatments: {captions.study(tables)}",
        f"{captions.counts(rows)} A mark is one network, minus the base of its task and seed; "
        f"lines are means. The tasks have {classes} classes, so their differences are not of one "
        f"size.{bars}{captions.without_base(rows)} {captions.statistic(tables)}",
        panels,
        [TREATMENTS[t] for t in ("base", *there)],
        pd.concat(
            [
                relative_table(own, t, f"{t}, target {target}")
                for target, own in rows.groupby("target")
                for t in there
            ]
        ),
        columns=2 if len(panels) == 4 else 3,
    )


def _of_target(
    rows: pd.DataFrame, copied: list[str], last: int, measure: str
) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        axes.axhline(0, color=INK, lw=0.8, ls=":")
        plot.points(axes, rows[rows.treatment == "base"], TREATMENTS["base"])
        for treatment in copied:
            line = mean_line(rows, treatment)
            axes.plot(line.index, line, color=TREATMENTS[treatment].color, lw=1.3, zorder=1)
            plot.points(axes, rows[rows.treatment == treatment], TREATMENTS[treatment])
        plot.layer_axis(axes, last)
        axes.set_ylabel(f"{measure.capitalize()} accuracy minus base of the same task")

    return paint


def _random(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    axes.axhline(0, color=INK, lw=0.8, ls=":")
    plot.by_target(axes, rows[rows.treatment.isin(["base", "RnB"])], TREATMENTS["RnB"])
    axes.set_ylabel(f"{measure.capitalize()} accuracy minus base of the same task")


def _losses(axes: Axes, parts: pd.DataFrame, last: int) -> None:
    axes.axhline(0, color=INK, lw=0.8)
    for quantity, mark in LOSSES.items():
        plot.estimates(axes, parts[parts.quantity == quantity], mark)
    axes.legend(
        handles=[axes.plot([], [], "-", color=m.color, label=m.label)[0] for m in LOSSES.values()],
        loc="upper left",
        fontsize=8,
    )
    plot.layer_axis(axes, last, first=1)
    axes.set_ylabel("Specificity loss: BnB − AnB")
