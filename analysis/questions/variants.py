"""Differences between kinds of network or recipes (study=random-filters, batchnorm)."""

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes

from analysis.plotting import captions, plot
from analysis.plotting.selection import with_share
from analysis.plotting.style import (
    INK,
    KINDS_OF_NETWORK,
    TREATMENTS,
    FigureSpec,
    Panel,
    Style,
    assign_styles,
)
from analysis.statistics.depths import Depths
from analysis.statistics.intervals import difference
from analysis.tables import VARIANT, StudyResults, kinds

TASK = ["task", "seed", "images_per_class"]
SAME = [*TASK, "split", "split_kind", "cell", "treatment", "n"]


def asked(networks: pd.DataFrame) -> bool:
    known = with_share(networks)
    treated = (known.treatment != "base") & known.share.notna()
    return len(known[treated][VARIANT].drop_duplicates()) > 1


def draw(tables: StudyResults) -> FigureSpec:
    """Draw accuracies as a share of the base's of the same kind, with a panel per treatment."""
    networks = with_share(tables.networks)
    networks = networks.assign(variant=kinds(networks))
    looks = assign_styles(networks.variant.unique(), KINDS_OF_NETWORK, "kinds of network")
    marks = {
        name: Style(name, color, marker, line=line) for name, (color, marker, line) in looks.items()
    }
    shown = networks[(networks.treatment != "base") & networks.share.notna()]
    shown = shown[["split_kind", "treatment"]].drop_duplicates()
    width = 4.6 if len(shown) > 1 else 7.4  # inches; a single panel is as wide as the legend
    panels = []
    for kind, treatment in shown.itertuples(index=False):
        rows = networks[
            (networks.split_kind == kind) & networks.treatment.isin(["base", treatment])
        ]
        label = TREATMENTS[treatment].label if treatment in TREATMENTS else treatment
        panels.append(
            Panel(f"{label}\n({', '.join(rows.split.unique())})", _shares(rows, marks), width)
        )
    bases = networks[networks.treatment == "base"].groupby("variant", sort=False).accuracy.mean()
    return FigureSpec(
        "variants",
        f"{len(marks)} kinds of network: what is left when layers are frozen or copied "
        f"({tables.dataset})",
        f"{captions.counts(networks)} A mark is one network, shifted sideways for clarity, lines "
        "are means, 1 is the base of the same kind. Mean accuracy of the bases: "
        f"{'; '.join(f'{name} {value:.3f}' for name, value in bases.items())}. "
        f"{captions.statistic(tables)}",
        panels,
        list(marks.values()),
        _table(networks, Depths(tables.layers)),
        columns=2,
    )


def _shares(rows: pd.DataFrame, marks: dict[str, Style]) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        axes.axhline(1, color=INK, lw=0.8, ls=":")
        for name, shift in plot.side_by_side(marks, 0.08).items():
            mark = marks[name]
            own = rows[(rows.variant == name) & rows.share.notna()]
            line = own.groupby("n").share.mean()
            axes.plot(
                line.index + shift * (line.index > 0),
                line,
                mark.line,
                color=mark.color,
                lw=1.5,
                zorder=2,
            )
            own = own[own.treatment != "base"]
            plot.scatter(axes, own.n + shift, own.share, mark, plot.tips_of(own))
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.95), max(high, 1.02))
        chance = (rows.share / rows.accuracy / rows.classes).mean()
        if chance > low:
            plot.chance(axes, chance, "left")
        axes.set_ylabel("Accuracy as a share of the base's")
        plot.layer_axis(axes, rows.n.max())

    return paint


def _table(networks: pd.DataFrame, depths: Depths) -> pd.DataFrame:
    """Means per variant, kind of split and treatment, and differences from the first variant.

    ``difference`` compares accuracy minus base (for bases: accuracy) between networks of the same
    split, cell and seed, averaged over n. ``dip`` is how much lower BnB lies in the middle (of 8
    layers: n = 4, 5) than around it (1, 2, 7), the paper's sign of co-adaptation. Intervals are
    Student's t over tasks (classes, seed, images per class), as networks of one task start from one
    base and are not independent.
    """
    done = networks[networks.accuracy.notna()]
    names = list(done.variant.unique())
    first = done[done.variant == names[0]]
    rows = []
    for (name, kind, treatment), own in done.groupby(
        ["variant", "split_kind", "treatment"], sort=False
    ):
        values = {
            "networks": len(own),
            "accuracy": own.accuracy.mean(),
            "share of the base's": own.share.mean(),
        }
        by_n = {
            f"share at n={n}": share for n, share in own.groupby("n").share.mean().items() if n > 0
        }
        row = {"variant": name, "splits": kind, "treatment": treatment, **values, **by_n}
        if name != names[0]:
            both = own.merge(first, on=SAME, suffixes=("", "_first"))
            column = "accuracy" if treatment == "base" else "over_base"
            by_task = (
                (both[column] - both[f"{column}_first"])
                .groupby([both[c] for c in TASK], dropna=False)
                .mean()
            )
            row |= {"against": names[0], "tasks": by_task.count()} | difference(
                by_task, 1 if column == "accuracy" else 2
            )
        if (
            treatment == "BnB"
            and depths.around
            and depths.middle
            and {*depths.around, *depths.middle} <= set(own.n)
        ):
            dips = own.pivot_table(
                index=[c for c in TASK if own[c].notna().any()], columns="n", values="accuracy"
            )
            around, middle = (
                dips[part].mean(axis=1, skipna=False) for part in (depths.around, depths.middle)
            )
            found = difference(around - middle)
            row |= {"dip": found["difference"], "dip low": found["low"], "dip high": found["high"]}
        rows.append(row)
    return pd.DataFrame(rows)
