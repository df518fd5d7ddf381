"""Top-1 accuracy against n on random (or the user's) splits: every network,
and the means (paper, figure 2).
"""

import pandas as pd
from matplotlib.axes import Axes

from analysis import captions, plot
from analysis.paper import beside
from analysis.selection import MAIN, finished, mean_line, with_treated
from analysis.style import INK, PUBLISHED, READINGS, TREATMENTS, Drawing, Panel
from analysis.tables import Tables, mixed
from transferability.splits import RANDOM, SIMILAR


def draw(tables: Tables) -> Drawing | str:
    if why := mixed(tables.networks):
        return why
    networks = tables.networks
    rows = with_treated(
        networks[networks.split_kind.isin(SIMILAR) & networks.treatment.isin(["base", *MAIN])]
    )
    there = ["base", *(t for t in MAIN if finished(rows, t))]
    if there == ["base"]:
        return "no network with copied layers on a random split"
    published_means, legend = _published_means(tables, rows)
    marks = [TREATMENTS[t] for t in there]
    if published_means:
        marks.append(PUBLISHED)
    readings = "; ".join(READINGS[t] for t in there)
    caption = (
        f"{captions.counts(rows)} Every network: a mark is one, shifted sideways for clarity. "
        "Means: bars of one standard deviation between networks (of a single network: the 95% "
        f"interval of its validation images). How the paper reads the lines: {readings}.{legend} "
        f"{captions.statistic(tables)}"
    )
    return Drawing(
        "accuracy",
        "What it costs to chop a network at layer n and train the rest again: "
        f"{captions.study(tables)}",
        caption,
        [
            Panel(
                "Every network",
                lambda axes: _every_network(axes, rows, there),
                marks=[TREATMENTS[t] for t in there],
            ),
            Panel("Means", lambda axes: _means(axes, rows, there, published_means)),
        ],
        marks,
        _mean_table(rows, tables),
        columns=2,
    )


def _every_network(axes: Axes, rows: pd.DataFrame, there: list[str]) -> None:
    axes.axhline(rows[rows.treatment == "base"].accuracy.mean(), color=INK, lw=0.8, ls=":")
    for treatment in there:
        plot.points(axes, rows[rows.treatment == treatment], TREATMENTS[treatment])
    plot.layer_axis(axes, rows.n.max())
    axes.set_ylabel("Top-1 accuracy on the target task")


def _means(
    axes: Axes, rows: pd.DataFrame, there: list[str], published_means: dict[str, pd.Series]
) -> None:
    curves = {t: mean_line(rows, t) for t in there}
    for treatment, line in published_means.items():
        axes.plot(
            line.index, line, "--", color=TREATMENTS[treatment].colour, lw=1, alpha=0.45, zorder=1
        )
    plot.shade(axes, curves)
    for treatment, line in curves.items():
        mark = TREATMENTS[treatment]
        if treatment == "base" and len(line):
            axes.axhline(line.iloc[0], color=mark.colour, lw=0.8, ls=":")
        axes.plot(
            line.index + mark.offset / 2 * (line.index > 0),
            line,
            color=mark.colour,
            lw=1.6,
            zorder=2,
        )
        plot.bars(axes, rows[rows.treatment == treatment], mark)
    plot.numbers_at_the_end(axes, curves, rows.n.max())
    plot.layer_axis(axes, rows.n.max(), numbers=True)
    axes.set_ylabel("Mean top-1 accuracy")


def _published_means(tables: Tables, rows: pd.DataFrame) -> tuple[dict[str, pd.Series], str]:
    """The paper's mean lines: as they are for ImageNet,
    else moved so that its base lies at ours.
    """
    theirs = beside(tables)
    if theirs.empty:
        return {}, ""
    theirs = theirs[theirs.split_kind == RANDOM]
    lines = {t: mean_line(theirs, t) for t in MAIN if finished(rows, t)}
    if tables.dataset == "imagenet":
        return lines, " Faint dashed: the paper's means."
    shift = (
        rows[rows.treatment == "base"].accuracy.mean()
        - theirs[theirs.treatment == "base"].accuracy.mean()
    )
    return {t: line + shift for t, line in lines.items()}, (
        " Faint dashed: the paper's means on ImageNet, moved so that its base lies at ours."
    )


def _mean_table(rows: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Mean, standard deviation and number of networks by treatment and n,
    and the paper's mean beside.
    """
    done = rows[rows.accuracy.notna()]
    table = done.groupby(["treatment", "n"]).accuracy.agg(["mean", "std", "size"]).reset_index()
    table.columns = ["treatment", "n", "mean accuracy", "standard deviation", "networks"]
    theirs = beside(tables)
    if len(theirs):
        theirs = theirs[theirs.split_kind == RANDOM].groupby(["treatment", "n"]).accuracy.mean()
        keys = pd.MultiIndex.from_frame(table[["treatment", "n"]])
        table["mean accuracy in the paper"] = theirs.reindex(keys).to_numpy()
    return table
