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

SAME_TASK = ["split", "target", "seed"]  # what a network and the base it is compared with have in common


def figure2(table: pd.DataFrame) -> Figure:
    """Top-1 accuracy against n for every treatment on the random splits (the paper's figure 2)."""
    rows = table[(table.split_kind == "random") & (table.treatment != "RnB")]
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
        _title(figure, rows, "Transfer between similar tasks: random split")
    return figure


def figure3(table: pd.DataFrame) -> Figure:
    """Natural/man-made, random filters, and both relative to base beside the random split (the paper's figure 3)."""
    distant = table[(table.split_kind == "natural-manmade") & table.treatment.isin(["base", "AnB"])]
    near = table[(table.split_kind == "random") & table.treatment.isin(["base", "AnB"])]
    random = table[(table.split_kind == "random") & table.treatment.isin(["base", "RnB"])]
    with plt.rc_context(RC):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.5, 5.0), layout="constrained")
        for target, name, style in (("A", "natural (task A)", "-"), ("B", "man-made (task B)", "--")):
            rows = distant[distant.target == target]
            _curve(left, rows, DISSIMILAR, style)
            _points(left, rows[rows.treatment == "base"], TREATMENTS["base"])
            left.plot([], [], style, color=DISSIMILAR.colour, label=f"target: {name}")
        left.legend(loc="lower left", fontsize=8)
        left.set_title("Dissimilar tasks: natural ↔ man-made", fontsize=10)
        left.set_ylabel("Top-1 accuracy, validation images of the target task")
        _curve(middle, random, TREATMENTS["RnB"])
        _points(middle, random[random.treatment == "base"], TREATMENTS["base"])
        chance = (1 / random.classes).mean()
        middle.axhline(chance, color="#777777", lw=0.8, ls="--")
        middle.annotate("chance", (0, chance), (0, 3), textcoords="offset points", fontsize=8, color="#555555")
        middle.set_title("Random, untrained layers", fontsize=10)
        middle.set_ylabel("Top-1 accuracy")
        right.axhline(0, color=TREATMENTS["base"].colour, lw=0.8, ls=":")
        for rows, mark in ((near, TREATMENTS["AnB"]), (distant, DISSIMILAR), (random, TREATMENTS["RnB"])):
            _curve(right, _relative_to_base(rows), mark)
        right.set_title("All three, relative to base", fontsize=10)
        right.set_ylabel("Top-1 accuracy minus base of the same task")
        for axes in (left, middle, right):
            _layer_axis(axes, table.n.max())
        _legend(figure, [TREATMENTS["base"], TREATMENTS["AnB"], DISSIMILAR, TREATMENTS["RnB"]], columns=4)
        _title(figure, pd.concat([distant, near, random[random.treatment != "base"]]), "Frozen layers of three origins")
    return figure


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
    counts = [count("split", "split", "splits"), count("target", "target task each", "directions")]
    counts.append(count("seed", "seed", "seeds"))
    text = f"{what} ({data}: {done} networks, {', '.join(counts)})"
    text += "\nA mark is one network; thin lines join one split, direction and seed; thick lines are means"
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
        for path in save(draw(table), out / f"{options.table.stem}-{name}"):
            print(path)


if __name__ == "__main__":
    main()
