"""Natural/man-made splits and random filters, and both relative to base, compared with random
splits (paper, figure 3).
"""

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes

from analysis.paper import beside
from analysis.plotting import captions, plot
from analysis.plotting.selection import finished, relative_table, relative_to_base, with_treated
from analysis.plotting.style import DISSIMILAR, INK, PUBLISHED, TREATMENTS, FigureSpec, Panel, Style
from analysis.tables import StudyResults, mixed
from transferability.tasks.splits import NATURAL_MANMADE, SIMILAR


@dataclass(frozen=True)
class _Line:
    """One kind of frozen layers, with the bases of its tasks."""

    rows: pd.DataFrame
    treatment: str
    mark: Style
    # the paper's mean accuracy minus base, by n; empty if it is not comparable
    published: pd.Series


def draw(tables: StudyResults) -> FigureSpec | str:
    if why := mixed(tables.networks):
        return why
    groups = _groups(tables.networks)
    theirs = {
        name: relative_to_base(rows).groupby("n").accuracy.mean()
        for name, rows in _groups(beside(tables)).items()
    }
    looks = {"similar": TREATMENTS["AnB"], "dissimilar": DISSIMILAR, "untrained": TREATMENTS["RnB"]}
    treatments = {"similar": "AnB", "dissimilar": "AnB", "untrained": "RnB"}
    lines = {
        name: _Line(rows, treatments[name], looks[name], theirs[name])
        for name, rows in groups.items()
        if finished(rows, treatments[name])
    }
    panels, base, measure = [], TREATMENTS["base"], tables.measure
    if "dissimilar" in lines:
        rows = groups["dissimilar"]
        title = "Dissimilar tasks: natural and man-made"
        marks = [base, DISSIMILAR]
        panels.append(Panel(title, lambda axes: _dissimilar(axes, rows, measure), marks=marks))
    if "untrained" in lines:
        marks, random = [base, TREATMENTS["RnB"]], groups["untrained"]
        panels.append(
            Panel(
                "Random, untrained layers", lambda axes: _random(axes, random, measure), marks=marks
            )
        )
    if not panels:
        return "neither a natural/man-made split nor random filters"
    last, drawn = tables.networks.n.max(), list(lines.values())
    panels.append(Panel("Relative to base", lambda axes: _relative(axes, drawn, last, measure)))
    marks, legend = [base, *(line.mark for line in drawn)], ""
    if any(map(len, theirs.values())):
        marks.append(PUBLISHED)
        legend = " Faint dashed: the paper's means on ImageNet."
    shown = pd.concat([line.rows for line in drawn]).drop_duplicates("run")
    return FigureSpec(
        "distance",
        "Frozen layers of similar tasks, of dissimilar tasks, and of no task: "
        f"{captions.study(tables)}",
        f"{captions.counts(shown)} A mark is one network, thin lines join one split, direction and "
        f"seed, thick lines are means.{legend}{captions.without_base(shown)} "
        f"{captions.statistic(tables)}",
        panels,
        marks,
        pd.concat(
            [relative_table(d.rows, d.treatment, d.mark.label) for d in drawn], ignore_index=True
        ),
        columns=3,
    )


def _groups(networks: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Networks with frozen layers of a similar task, of a dissimilar task and of no task, each with
    bases, in the order of the legend.
    """
    distant = networks.split_kind == NATURAL_MANMADE
    transfers, random = (
        networks.treatment.isin(["base", treatment]) for treatment in ("AnB", "RnB")
    )
    return {
        "similar": networks[networks.split_kind.isin(SIMILAR) & transfers],
        "dissimilar": networks[distant & transfers],
        "untrained": with_treated(networks[random & ~distant]),
    }


def _dissimilar(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    plot.by_target(axes, rows, DISSIMILAR)
    plot.points(axes, rows[rows.treatment == "base"], TREATMENTS["base"])
    axes.set_ylabel(f"{measure.capitalize()} accuracy on the target task")


def _random(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    plot.curve(axes, rows, TREATMENTS["RnB"])
    plot.points(axes, rows[rows.treatment == "base"], TREATMENTS["base"])
    plot.chance(axes, (1 / rows.classes).mean(), "left")
    plot.layer_axis(axes, rows.n.max())
    axes.set_ylabel(f"{measure.capitalize()} accuracy on the target task")


def _relative(axes: Axes, lines: list[_Line], last: int, measure: str) -> None:
    axes.axhline(0, color=INK, lw=0.8, ls=":")
    for line in lines:
        theirs = line.published
        if len(theirs):
            axes.plot(theirs.index, theirs, "--", color=line.mark.color, lw=1, alpha=0.45, zorder=1)
    for line in lines:
        plot.curve(axes, relative_to_base(line.rows), line.mark)
    plot.layer_axis(axes, last)
    axes.set_ylabel(f"{measure.capitalize()} accuracy minus base of the same task")
