"""The paper's figures 2 and 3, from a table of ``analysis.collect``.

python -m analysis.figures figures/figures-procedural.csv

Every mark is one network; a thin line joins the networks of one split, direction and seed; a thick line is their
mean. A network that is missing from the study is never dropped silently: the title counts it.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.style import DISSIMILAR, RC, TREATMENTS, Mark, save

NEAR = ("random", "user")  # kinds of split that figure 2 shows
SAME_TASK = ["split", "target", "seed"]  # what a network and the base it is compared with have in common


def figure2(table: pd.DataFrame) -> Figure | None:
    """Top-1 accuracy against n for every treatment on random (or the user's) splits (the paper's figure 2).

    None where the study has no such network.
    """
    table = table[table.in_study]  # bases that only lend their layers, of another task or volume, are no baseline
    rows = table[table.split_kind.isin(NEAR) & (table.treatment != "RnB")]
    if not (rows.treatment != "base").any():
        return None
    base = rows[rows.treatment == "base"]
    with plt.rc_context(RC):
        figure, axes = plt.subplots(figsize=(8.2, 5.8), layout="constrained")
        axes.axhline(base.top1.mean(), color=TREATMENTS["base"].colour, lw=0.8, ls=":")
        for treatment in ("BnB", "BnB+", "AnB", "AnB+"):
            _curve(axes, pd.concat([base, rows[rows.treatment == treatment]]), TREATMENTS[treatment])
        _points(axes, base, TREATMENTS["base"])
        _layer_axis(axes, table.n.max())
        axes.set_ylabel("Top-1 accuracy, validation images of the target task")
        _legend(figure, [TREATMENTS[t] for t in ("base", "BnB", "BnB+", "AnB", "AnB+")], columns=3)
        _title(figure, rows, "Transfer from task A to task B, and the reverse")
    return figure


def figure3(table: pd.DataFrame) -> Figure | None:
    """Natural/man-made, random filters, and both relative to base beside the other split (the paper's figure 3).

    A panel without a network is left out; None where only the last would remain.
    """
    table = table[table.in_study]
    near, distant, random = (
        table[table.split_kind.isin(kinds) & table.treatment.isin(["base", treatment])]
        for kinds, treatment in ((NEAR, "AnB"), (("natural-manmade",), "AnB"), (NEAR, "RnB"))
    )
    curves = [(near, TREATMENTS["AnB"]), (distant, DISSIMILAR), (random, TREATMENTS["RnB"])]
    curves = [(rows, mark) for rows, mark in curves if (rows.treatment != "base").any()]
    marks = [mark for _, mark in curves]
    panels = [(_distant_panel, distant)] * (DISSIMILAR in marks)
    panels += [(_random_panel, random)] * (TREATMENTS["RnB"] in marks)
    if not panels:
        return None
    with plt.rc_context(RC):
        width = 4.2 * (len(panels) + 1)
        figure, axes = plt.subplots(1, len(panels) + 1, figsize=(width, 5.0), layout="constrained")
        for panel, (draw, rows) in zip(axes, panels, strict=False):
            draw(panel, rows)
        axes[0].set_ylabel("Top-1 accuracy, validation images of the target task")
        axes[-1].axhline(0, color=TREATMENTS["base"].colour, lw=0.8, ls=":")
        for rows, mark in curves:
            _curve(axes[-1], _relative_to_base(rows), mark)
        axes[-1].set_title("Relative to base", fontsize=10)
        axes[-1].set_ylabel("Top-1 accuracy minus base of the same task")
        for panel in axes:
            _layer_axis(panel, table.n.max())
        _legend(figure, [TREATMENTS["base"], *marks], columns=2 if len(panels) == 1 else 4)
        _title(figure, pd.concat([rows for rows, _ in curves]).drop_duplicates("run"), "Frozen layers")
    return figure


def _distant_panel(axes: Axes, rows: pd.DataFrame) -> None:
    for target, name, style in (("A", "natural (task A)", "-"), ("B", "man-made (task B)", "--")):
        own = rows[rows.target == target]
        _curve(axes, own, DISSIMILAR, style)
        _points(axes, own[own.treatment == "base"], TREATMENTS["base"])
        axes.plot([], [], style, color=DISSIMILAR.colour, label=f"target: {name}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8)
    axes.set_title("Dissimilar tasks: natural ↔ man-made", fontsize=10)


def _random_panel(axes: Axes, rows: pd.DataFrame) -> None:
    _curve(axes, rows, TREATMENTS["RnB"])
    _points(axes, rows[rows.treatment == "base"], TREATMENTS["base"])
    chance = (1 / rows.classes).mean()
    axes.axhline(chance, color="#777777", lw=0.8, ls="--")
    axes.annotate("chance", (0, chance), (0, 3), textcoords="offset points", fontsize=8, color="#555555")
    axes.set_title("Random, untrained layers", fontsize=10)


def _relative_to_base(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy minus that of the base on the same task, split and seed."""
    base = rows[rows.treatment == "base"].set_index(SAME_TASK).top1
    keys = pd.MultiIndex.from_frame(rows[SAME_TASK])
    return rows.assign(top1=rows.top1.to_numpy() - base.reindex(keys).to_numpy())


def _curve(axes: Axes, rows: pd.DataFrame, mark: Mark, style: str = "-") -> None:
    """One treatment and its base at n = 0: marks, thin lines, and the mean where there are several networks."""
    treated = rows[rows.treatment != "base"]
    if treated.top1.notna().sum() == 0:
        return
    groups = list(rows.groupby(SAME_TASK))
    for _, own in groups:
        own = own.sort_values("n").assign(n=lambda r: r.n + mark.offset * (r.n > 0))
        thin = len(groups) > 1
        axes.plot(
            own.n, own.top1, style, color=mark.colour, lw=0.6 if thin else 1.6, alpha=0.5 if thin else 1, zorder=1
        )
    mean = rows.groupby("n").top1.mean()
    if len(groups) > 1:
        axes.plot(mean.index, mean, style, color=mark.colour, lw=1.8, zorder=2)
    _points(axes, treated, mark)


def _points(axes: Axes, rows: pd.DataFrame, mark: Mark) -> None:
    """One mark a network."""
    axes.scatter(
        rows.n + mark.offset,
        rows.top1,
        s=34,
        marker=mark.marker,
        facecolors=mark.colour if mark.filled else "white",
        edgecolors="white" if mark.filled else mark.colour,
        linewidths=0.5 if mark.filled else 1.3,
        zorder=3,
    )


def _layer_axis(axes: Axes, last: int) -> None:
    axes.set_xticks(range(int(last) + 1))
    axes.set_xlim(-0.4, last + 0.4)
    axes.set_xlabel("Layer n at which the network is chopped (0: base)")


def _legend(figure: Figure, marks: list[Mark], columns: int) -> None:
    handles = [
        plt.Line2D(
            [],
            [],
            color=m.colour,
            marker=m.marker,
            ls="-" if m.filled else ":",
            label=m.label,
            markerfacecolor=m.colour if m.filled else "white",
        )
        for m in marks
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def _title(figure: Figure, rows: pd.DataFrame, what: str) -> None:
    done, missing = int((rows.state == "done").sum()), int((rows.state == "missing").sum())

    def count(column: str, one: str, many: str) -> str:
        number = rows[column].nunique()
        return f"{number} {one if number == 1 else many}"

    data = ", ".join(sorted(rows.dataset.unique()))
    if rows.images_per_class.notna().any():
        data += f", {rows.images_per_class.max():.0f} images a class"
    counts = [f"{done} networks", ", ".join(rows.split.unique())]
    counts += [count("target", "target task each", "directions"), count("seed", "seed", "seeds")]
    text = f"{what}: {data}; {', '.join(counts)}"
    text += "\nA mark is one network, thin lines join one split, direction and seed, thick lines are their means"
    if missing:
        text += f"\n{missing} NETWORKS OF THE STUDY ARE MISSING HERE"
    figure.suptitle(text, fontsize=9.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="a CSV of analysis.collect")
    parser.add_argument("--out", type=Path, help="folder of the figures; by default that of the table")
    options = parser.parse_args()
    if not options.table.exists():
        sys.exit(f"error: {options.table} does not exist: run `python -m analysis.collect` first")
    table = pd.read_csv(options.table)
    if not (table.state == "done").any():
        sys.exit(f"error: no network in {options.table} is finished: there is nothing to draw")
    out = options.out or options.table.parent
    for name, draw in (("figure2", figure2), ("figure3", figure3)):
        figure = draw(table)
        if figure is None:
            print(f"{name}: not drawn, the study has no network for it")
            continue
        for path in save(figure, out / f"{options.table.stem}-{name}"):
            print(path)


if __name__ == "__main__":
    main()
