"""Top-1 accuracy against n on random (or the user's) splits: all networks, and means (paper,
figure 2).
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.paper import beside
from analysis.plotting import captions, plot
from analysis.plotting.selection import MAIN, finished, mean_line, with_treated
from analysis.plotting.style import INK, PUBLISHED, READINGS, TREATMENTS, FigureSpec, Panel, Style
from analysis.statistics.intervals import t_interval
from analysis.statistics.over_splits import LEAST, splits_of
from analysis.tables import StudyResults, mixed
from transferability.tasks.splits import RANDOM, SIMILAR


def draw(tables: StudyResults) -> FigureSpec | str:
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
    several = {t: table for t in there if (table := _by_split(rows, t)).shape[1] >= LEAST}
    kind = _kind_of_bars(rows, several, tables.measure == "balanced")
    marks, measure = [TREATMENTS[t] for t in there], tables.measure
    if published_means:
        marks.append(PUBLISHED)
    readings = "; ".join(_reading(t, there) for t in there)
    caption = (
        f"{captions.counts(rows)} Every network: a mark is one, shifted sideways for clarity. "
        f"{_bars(several, kind)} How the paper reads the lines: {readings}.{legend} "
        f"{captions.statistic(tables)}"
    )
    return FigureSpec(
        "accuracy",
        "Accuracy after copying the first n layers and retraining the rest: "
        f"{captions.study(tables)}",
        caption,
        [
            Panel(
                "Every network",
                lambda axes: _every_network(axes, rows, there, measure),
                marks=[TREATMENTS[t] for t in there],
            ),
            Panel(
                "Means",
                lambda axes: _means(axes, rows, there, published_means, several, kind, measure),
            ),
        ],
        marks,
        _mean_table(rows, tables, several),
        columns=2,
    )


def _reading(treatment: str, there: list[str]) -> str:
    line, reading, other = READINGS[treatment]
    return f"{line}: {reading}" if reading and other in there else line


def _every_network(axes: Axes, rows: pd.DataFrame, there: list[str], measure: str) -> None:
    axes.axhline(rows[rows.treatment == "base"].accuracy.mean(), color=INK, lw=0.8, ls=":")
    for treatment in there:
        plot.points(axes, rows[rows.treatment == treatment], TREATMENTS[treatment])
    plot.layer_axis(axes, rows.n.max())
    axes.set_ylabel(f"{measure.capitalize()} accuracy on the target task")


def _by_split(rows: pd.DataFrame, treatment: str) -> pd.DataFrame:
    """Mean accuracy by n and split, for splits with the treatment, starting at their bases; NaN if
    a split lacks the n, or a direction that another split has.
    """
    done = rows[rows.accuracy.notna() & rows.treatment.isin(["base", treatment])]
    done = done.assign(split=splits_of(done))
    done = done[done.split.isin(done[done.treatment == treatment].split)]
    by_split = done.groupby(["n", "split", "task"]).accuracy.mean().groupby(["n", "split"])
    directions = by_split.size()
    whole = directions == directions[directions.index.get_level_values("n") > 0].max()
    table = by_split.mean().where(whole | (directions.index.get_level_values("n") == 0)).unstack()
    of_study = {0, *rows[rows.treatment == treatment].n}  # including unfinished networks
    return table.dropna(axis=1, how="all").reindex(sorted(of_study))


def _kind_of_bars(
    rows: pd.DataFrame, several: dict[str, pd.DataFrame], balanced: bool
) -> str | None:
    """The kind of bars of the panel: None for bars over splits, else between networks if there are
    several, else over images. Balanced accuracy, which is not binomial, has none over images.
    """
    if several:
        return None
    networks = rows[rows.accuracy.notna()].groupby(["treatment", "n"]).size()
    return "networks" if balanced or (networks > 1).any() else "images"


def _bars(several: dict[str, pd.DataFrame], kind: str | None) -> str:
    """Describe the bars of the means."""
    if kind == "images":
        return "Means: of one network each, with bars of the 95% interval of its validation images."
    if kind:
        return (
            "Means: bars of one standard deviation between networks, none where there is but one."
        )
    counts = sorted({table.shape[1] for table in several.values()})
    others = f"; means of fewer than {LEAST} splits have no bars"
    return (
        f"Means: thin lines are {' or '.join(map(str, counts))} splits, thick ones their means at "
        "n that all of them have, with bars of the 95% interval over splits (Student's t), which "
        f"covers {captions.SPLITS_COVER}{others}."
    )


def _means(
    axes: Axes,
    rows: pd.DataFrame,
    there: list[str],
    published_means: dict[str, pd.Series],
    several: dict[str, pd.DataFrame],
    kind: str | None,
    measure: str,
) -> None:
    curves = {t: mean_line(rows, t) for t in there}
    curves |= {t: table.mean(axis=1, skipna=False) for t, table in several.items()}
    for treatment, line in published_means.items():
        axes.plot(
            line.index, line, "--", color=TREATMENTS[treatment].color, lw=1, alpha=0.45, zorder=1
        )
    plot.shade(axes, curves)
    for treatment, line in curves.items():
        mark = TREATMENTS[treatment]
        if treatment == "base" and len(line):
            axes.axhline(line.iloc[0], color=mark.color, lw=0.8, ls=":")
        axes.plot(
            line.index + mark.offset / 2 * (line.index > 0),
            line,
            color=mark.color,
            lw=1.6,
            zorder=2,
        )
        if treatment in several:
            _splits(axes, several[treatment], mark)
        else:
            plot.bars(axes, rows[rows.treatment == treatment], mark, kind)
    plot.numbers_at_the_end(axes, curves, rows.n.max())
    plot.layer_axis(axes, rows.n.max(), numbers=True)
    axes.set_ylabel(f"Mean {measure} accuracy")


def _splits(axes: Axes, table: pd.DataFrame, mark: Style) -> None:
    """Draw every split faintly, and the mean with its interval over splits at n that all have."""
    shift = mark.offset / 2
    x = table.index + shift * (table.index > 0)
    for _, own in table.items():
        axes.plot(x, own, ".-", color=mark.color, lw=0.7, ms=3, alpha=0.35, zorder=1)
    for n, values in table.dropna().iterrows():
        if n == 0 and len(table) > 1:
            continue  # the bases have a separate mark
        center, low, high = t_interval(values, 0, 1)
        bar = [[center - low], [high - center]]
        axes.errorbar([n + shift], [center], bar, color=mark.color, lw=1, capsize=2, zorder=2)
        tip = f"n = {n}: {center:.3f} [{low:.3f}, {high:.3f}] over {len(values)} splits"
        plot.scatter(axes, [n + shift], [center], mark, [f"{mark.label.split(':')[0]}, {tip}"])


def _published_means(tables: StudyResults, rows: pd.DataFrame) -> tuple[dict[str, pd.Series], str]:
    """The paper's mean lines: unchanged for ImageNet, else shifted so that its base lies at the
    study's.
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


def _mean_table(
    rows: pd.DataFrame, tables: StudyResults, several: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """Mean, standard deviation and number of networks by treatment and n; if there are enough
    splits, also their mean with its interval; and the paper's mean.
    """
    done = rows[rows.accuracy.notna()]
    table = done.groupby(["treatment", "n"]).accuracy.agg(["mean", "std", "size"]).reset_index()
    table.columns = ["treatment", "n", "mean accuracy", "standard deviation", "networks"]
    found = {
        (t, n): t_interval(values, 0, 1)
        for t, splits in several.items()
        for n, values in splits.dropna().iterrows()
    }
    if found:
        names = ["mean over splits", "splits low", "splits high"]
        keys = zip(table.treatment, table.n, strict=True)
        table[names] = [found.get(key, (np.nan,) * 3) for key in keys]
    theirs = beside(tables)
    if len(theirs):
        theirs = theirs[theirs.split_kind == RANDOM].groupby(["treatment", "n"]).accuracy.mean()
        keys = pd.MultiIndex.from_frame(table[["treatment", "n"]])
        table["mean accuracy in the paper"] = theirs.reindex(keys).to_numpy()
    return table
