"""The paper's figures 2 and 3, from a table of ``analysis.collect``.

python -m analysis.figures figures/figures-procedural.csv

Every mark is one network. Lines join means over the target tasks, splits and seeds; bands are one standard deviation
of what was averaged. A network that is missing from the study is never dropped silently: the title counts it.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.style import DISSIMILAR, RC, TREATMENTS, Mark, save


def figure2(table: pd.DataFrame) -> Figure:
    """Top-1 accuracy against n for every treatment on the random splits (the paper's figure 2)."""
    with plt.rc_context(RC):
        figure, axes = plt.subplots(figsize=(8.2, 5.6), layout="constrained")
        random = table[table.split_kind == "random"]
        for treatment in ("base", "BnB", "BnB+", "AnB", "AnB+"):
            rows = random[random.treatment == treatment]
            mark = TREATMENTS[treatment]
            if treatment == "base":
                rows = rows.assign(n=0)
                _points(axes, rows, mark)
                if rows.top1.notna().any():
                    axes.axhline(rows.top1.mean(), color=mark.colour, lw=0.8, ls=":")
            else:
                _points(axes, rows, mark)
                _mean_line(axes, rows, mark, base=random[random.treatment == "base"].top1.mean())
        _layer_axis(axes, random.n.max())
        axes.set_ylabel("Top-1 accuracy on the validation images of the target task")
        _legend(figure, axes)
        _title(figure, random, "Random split: similar tasks")
    return figure


def figure3(table: pd.DataFrame) -> Figure:
    """Natural/man-made, random filters, and both relative to base beside the random split (the paper's figure 3)."""
    distant = table[table.split_kind == "natural-manmade"]
    near = table[table.split_kind == "random"]
    with plt.rc_context(RC):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.5, 4.8), layout="constrained")
        names = {"A": "to natural (task A)", "B": "to man-made (task B)"}
        for (target, name), style in zip(names.items(), ("-", "--"), strict=True):
            rows = distant[(distant.target == target) & distant.treatment.isin(["base", "AnB"])]
            rows = rows.sort_values("n")
            left.plot(rows.n, rows.top1, style, color=DISSIMILAR.colour, lw=1.4)
            _points(left, rows[rows.treatment == "AnB"], DISSIMILAR)
            _points(left, rows[rows.treatment == "base"], TREATMENTS["base"])
            if rows.top1.notna().any():
                last = rows[rows.top1.notna()].iloc[0]
                left.annotate(name, (last.n, last.top1), (6, 7), textcoords="offset points", fontsize=8)
        left.set_title("Natural ↔ man-made, frozen", fontsize=10)
        left.set_ylabel("Top-1 accuracy")
        random = near[near.treatment == "RnB"]
        _points(middle, random, TREATMENTS["RnB"])
        _mean_line(middle, random, TREATMENTS["RnB"], base=near[near.treatment == "base"].top1.mean())
        _points(middle, near[near.treatment == "base"], TREATMENTS["base"])
        if len(near):
            chance = (1 / near.classes).mean()
            middle.axhline(chance, color="#777777", lw=0.8, ls="--")
            middle.annotate("chance", (0, chance), (0, 3), textcoords="offset points", fontsize=8, color="#555555")
        middle.set_title("Random, untrained layers, frozen", fontsize=10)
        for rows, mark in (
            (near[near.treatment.isin(["base", "AnB"])], TREATMENTS["AnB"]),
            (distant[distant.treatment.isin(["base", "AnB"])], DISSIMILAR),
            (near[near.treatment.isin(["base", "RnB"])], TREATMENTS["RnB"]),
        ):
            relative = _relative_to_base(rows)
            frozen = relative[relative.treatment != "base"]
            _points(right, frozen, mark)
            _mean_line(right, frozen, mark, base=0.0)
        right.axhline(0, color="#222222", lw=0.8, ls=":")
        right.set_title("All three, relative to base", fontsize=10)
        right.set_ylabel("Top-1 accuracy minus base")
        for axes in (left, middle, right):
            _layer_axis(axes, table.n.max())
        drawn = [TREATMENTS["base"], TREATMENTS["AnB"], DISSIMILAR, TREATMENTS["RnB"]]
        figure.legend(handles=[_handle(m) for m in drawn], loc="outside lower center", ncols=4)
        shown = pd.concat([distant, near[near.treatment.isin(["base", "AnB", "RnB"])]])
        _title(figure, shown, "Similar tasks, dissimilar tasks and random filters")
    return figure


def _relative_to_base(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy minus that of the base on the same task, split and seed."""
    same = ["split", "target", "seed"]
    base = rows[rows.treatment == "base"].set_index(same).top1
    keys = pd.MultiIndex.from_frame(rows[same])
    return rows.assign(top1=rows.top1.to_numpy() - base.reindex(keys).to_numpy())


def _points(axes: Axes, rows: pd.DataFrame, mark: Mark) -> None:
    """One mark a network."""
    axes.scatter(
        rows.n + mark.offset,
        rows.top1,
        s=34,
        marker=mark.marker,
        facecolors=mark.colour if mark.filled else "none",
        edgecolors="white" if mark.filled else mark.colour,
        linewidths=0.5 if mark.filled else 1.3,
        zorder=3,
    )


def _mean_line(axes: Axes, rows: pd.DataFrame, mark: Mark, base: float) -> None:
    """The mean for each n, from the base at n = 0, with one standard deviation where there are several networks."""
    grouped = rows.groupby("n").top1
    mean, spread = grouped.mean(), grouped.std(ddof=1).fillna(0.0)
    axes.plot([0, *mean.index], [base, *mean], color=mark.colour, lw=1.4, zorder=2)
    axes.fill_between(mean.index, mean - spread, mean + spread, color=mark.colour, alpha=0.13, lw=0, zorder=1)


def _layer_axis(axes: Axes, last: int) -> None:
    axes.set_xticks(range(int(last) + 1))
    axes.set_xlim(-0.4, last + 0.4)
    axes.set_xlabel("Layer n at which the network is chopped (0: base)")


def _handle(mark: Mark) -> plt.Line2D:
    return plt.Line2D(
        [], [], color=mark.colour, marker=mark.marker, ls="-" if mark.filled else ":", label=mark.label,
        markerfacecolor=mark.colour if mark.filled else "none",
    )  # fmt: skip


def _legend(figure: Figure, axes: Axes) -> None:
    handles = [_handle(TREATMENTS[t]) for t in ("base", "BnB", "BnB+", "AnB", "AnB+")]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _title(figure: Figure, rows: pd.DataFrame, what: str) -> None:
    done, missing = int((rows.state == "done").sum()), int((rows.state == "missing").sum())
    splits, seeds = rows.split.nunique(), rows.seed.nunique()
    data = ", ".join(sorted(rows.dataset.unique()))
    parts = [
        f"{done} networks",
        f"{splits} split{'s' * (splits != 1)}, both directions" if rows.target.nunique() == 2 else f"{splits} split(s)",
        f"{seeds} seed{'s' * (seeds != 1)}",
    ]
    text = (
        f"{what} ({data})\n{', '.join(parts)}; every mark is one network, lines are means, bands ±1 standard deviation"
    )
    if missing:
        text += f"\n{missing} NETWORKS OF THE STUDY ARE MISSING"
    figure.suptitle(text, fontsize=10)


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
