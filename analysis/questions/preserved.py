"""Copied layers above the frozen ones: A3B~1 copies 4 and freezes 3 (study=preserved)."""

import pandas as pd
from matplotlib.axes import Axes

from analysis.plotting import captions, plot
from analysis.plotting.style import INK, ORANGE, TREATMENTS, FigureSpec, Panel, Style, assign_styles
from analysis.statistics.linear_model import estimate, mean, subtract
from analysis.tables import StudyResults
from transferability.errors import UserError

# color, marker, offset
DEPTHS = [(ORANGE, "s", -0.06), ("#8073ac", "^", -0.18), ("#35978f", "v", -0.3)]


def asked(networks: pd.DataFrame) -> bool:
    return networks.treatment.str.contains("~").any()


def draw(tables: StudyResults) -> FigureSpec:
    """Draw AnB~k: n frozen layers, and k more that are copied and fine-tuned (an unpublished plot
    of the paper's authors).
    """
    done = tables.networks[tables.networks.accuracy.notna()]
    kept = sorted(t for t in set(done.treatment) if "~" in t)
    looks = {t: TREATMENTS[t] for t in ("AnB", "AnB+") if (done.treatment == t).any()}
    for treatment, (color, marker, offset) in assign_styles(
        kept, DEPTHS, "preserved depths"
    ).items():
        label = f"{treatment}: {treatment.split('~')[1]} more copied, fine-tuned"
        looks[treatment] = Style(label, color, marker, offset=offset)
    table, measure = _table(done, kept), tables.measure
    spread = (
        "the spread between networks"
        if (table.covers == "networks").all()
        else "the validation images alone"
    )
    return FigureSpec(
        "preserved",
        f"Layers that are copied above the frozen ones: {tables.dataset}",
        f"{captions.counts(tables.networks)} A mark is one network, lines are means, dotted: base. "
        f"Bars: intervals from {spread}, simultaneous: 95% for all of them together. "
        f"{captions.statistic(tables)}",
        [
            Panel("Every network", lambda axes: _every_network(axes, done, looks, measure)),
            Panel(
                "What copying more is worth", lambda axes: _gains(axes, table, looks, done.n.max())
            ),
        ],
        list(looks.values()),
        table,
        columns=2,
    )


def _table(done: pd.DataFrame, kept: list[str]) -> pd.DataFrame:
    """A row per preserved treatment and n: the difference from AnB at the same n, with simultaneous
    intervals.
    """
    compared = [
        (treatment, n)
        for treatment in kept
        for n in sorted(set(done[done.treatment == treatment].n))
    ]
    rows = []
    for treatment, n in compared:
        found = estimate(
            done, subtract(mean(treatment, [n]), mean("AnB", [n])), 1 - 0.05 / len(compared)
        )
        if found:
            rows.append({"treatment": treatment, "n": n, **vars(found), "covers": found.covers})
    if not rows:
        raise UserError(
            "preserved layers are compared with AnB of the same n: "
            "none is finished in the same task"
        )
    return pd.DataFrame(rows).drop(columns=["df", "error"])


def _every_network(axes: Axes, done: pd.DataFrame, looks: dict[str, Style], measure: str) -> None:
    axes.axhline(done[done.treatment == "base"].accuracy.mean(), color=INK, lw=0.8, ls=":")
    for treatment, mark in looks.items():
        own = done[done.treatment == treatment]
        line = own.groupby("n").accuracy.mean()
        axes.plot(line.index + mark.offset, line, color=mark.color, lw=1.5, zorder=2)
        plot.points(axes, own, mark)
    plot.layer_axis(axes, done.n.max(), first=1)
    axes.set_xlabel("Frozen layers n (of AnB+: copied)")
    axes.set_ylabel(f"{measure.capitalize()} accuracy on the target task")


def _gains(axes: Axes, table: pd.DataFrame, looks: dict[str, Style], last: int) -> None:
    axes.axhline(0, color=INK, lw=0.8)
    for treatment in sorted(set(table.treatment)):
        own = table[table.treatment == treatment]
        plot.estimates(axes, own.assign(quantity=f"{treatment} - AnB"), looks[treatment])
    plot.layer_axis(axes, last, first=1)
    axes.set_xlabel("Frozen layers n")
    axes.set_ylabel("Accuracy minus AnB with the same n")
