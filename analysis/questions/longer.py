"""Base networks with a longer recipe, compared with AnB+ and BnB+ (study=longer).

Is the boost of transfer only due to longer training?
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.plotting import captions, plot
from analysis.plotting.style import GREEN, INK, TREATMENTS, FigureSpec, Panel, Style, assign_styles
from analysis.statistics.intervals import difference, within
from analysis.statistics.over_images import margins, with_binomial_images
from analysis.tables import VARIANT, StudyResults
from transferability.errors import UserError

TUNED = ("BnB+", "AnB+")
RECIPES = [(INK, "o", ":"), ("#8a5a00", "s", "--"), (GREEN, "^", "-.")]  # color, marker, line


def asked(networks: pd.DataFrame) -> bool:
    base = networks.treatment == "base"
    return not base.all() and len(networks[base][VARIANT].drop_duplicates()) > 1


def draw(tables: StudyResults) -> FigureSpec:
    """Draw bases of several recipes at n = 0, and AnB+ and BnB+ against n, with a panel per
    task.
    """
    networks = with_binomial_images(tables)
    networks = networks[networks.accuracy.notna()]
    tuned = networks[networks.treatment.isin(TUNED)]
    if tuned.empty:
        raise UserError(
            "bases of several recipes, but neither BnB+ nor AnB+ is finished, "
            "which they are compared with"
        )
    usual = tuned.recipe.iloc[0]
    bases = networks[networks.treatment == "base"]
    recipes = [usual, *[r for r in bases.recipe.unique() if r != usual]]
    looks = assign_styles(recipes, RECIPES, "recipes")
    marks = {
        r: Style(f"base, recipe: {r}", c, m, False, line=style)
        for r, (c, m, style) in looks.items()
    }
    below, above = margins(bases.accuracy, bases.binomial_images)
    ends = [(bases.accuracy - below).clip(lower=0), (bases.accuracy + above).clip(upper=1)]
    shown = pd.concat([tuned.accuracy, *ends])
    limits, last = (shown.min() - 0.01, shown.max() + 0.01), networks.n.max()
    panels, measure = [], tables.measure
    for row in tuned.drop_duplicates("task").itertuples():
        own = networks[networks.task == row.task].assign(below=below, above=above)
        panels.append(
            Panel(
                f"{row.split}, target {row.target}", _task(own, marks, limits, last, measure), 5.4
            )
        )
    return FigureSpec(
        "longer",
        f"Fine-tuned transfer against base networks that are trained longer ({tables.dataset})",
        f"{captions.counts(tables.networks)} A mark is one network, lines are means; bars: 95% "
        "intervals of each base from its validation images"
        f"{captions.without_interval(bases)}. AnB+ and BnB+ start from bases of the "
        f"recipe {usual} and train as long again. {captions.statistic(tables)}",
        panels,
        [*marks.values(), *(TREATMENTS[t] for t in TUNED)],
        _table(tuned, bases, recipes),
        columns=2,
    )


def _task(
    networks: pd.DataFrame,
    marks: dict[str, Style],
    limits: tuple[float, float],
    last: int,
    measure: str,
) -> Callable[[Axes], None]:
    """Draw the networks of one task; ``below`` and ``above`` are margins of bases."""

    def paint(axes: Axes) -> None:
        for recipe, shift in plot.side_by_side(marks, 0.2).items():
            mark = marks[recipe]
            own = networks[(networks.treatment == "base") & (networks.recipe == recipe)]
            x = shift + 0.06 * (own.seed - own.seed.mean())
            axes.axhline(own.accuracy.mean(), color=mark.color, lw=1.2, ls=mark.line)
            bars = [np.minimum(own.below, own.accuracy), np.minimum(own.above, 1 - own.accuracy)]
            axes.errorbar(x, own.accuracy, bars, color=mark.color, fmt="none", lw=1)
            plot.scatter(axes, x, own.accuracy, mark, plot.tips_of(own))
        for treatment in TUNED:
            own = networks[networks.treatment == treatment]
            line = own.groupby("n").accuracy.mean()
            axes.plot(
                line.index + TREATMENTS[treatment].offset,
                line,
                color=TREATMENTS[treatment].color,
                lw=1.5,
            )
            plot.points(axes, own, TREATMENTS[treatment])
        plot.layer_axis(axes, last)
        axes.set_ylim(*limits)
        axes.set_ylabel(f"{measure.capitalize()} accuracy on the target task")

    return paint


def _table(tuned: pd.DataFrame, bases: pd.DataFrame, recipes: list[str]) -> pd.DataFrame:
    """The mean over n of AnB+ and BnB+ minus each base, and the longer bases minus the usual one.

    The interval is Student's t over tasks (classes, seed), or, with a single task, binomial over
    validation images; of balanced accuracy, NaN if predictions were not kept.
    """
    above = {treatment: tuned[tuned.treatment == treatment] for treatment in TUNED}
    above |= {f"base, {recipe}": bases[bases.recipe == recipe] for recipe in recipes[1:]}
    rows = []
    for name, own in above.items():
        of_task = own.assign(one=1 / own.binomial_images).groupby(["task", "seed"])
        means = of_task.accuracy.agg(["mean", "size"])
        means["images"] = 1 / of_task.one.agg(lambda parts: parts.mean(skipna=False))
        for recipe in recipes[: 1 if name.startswith("base") else None]:
            base = bases[bases.recipe == recipe].set_index(["task", "seed"])
            both = means.join(base[["accuracy", "binomial_images"]], how="inner")
            found = difference(both["mean"] - both.accuracy)
            covers = "tasks" if len(both) > 1 else "validation images only"
            if len(both) == 1:
                below, above = margins(both["mean"], both.images)
                below_base, above_base = margins(both.accuracy, both.binomial_images)
                middle = found["difference"]
                low = middle - np.hypot(below, above_base).iloc[0]
                high = middle + np.hypot(above, below_base).iloc[0]
                found |= dict(zip(("low", "high"), within((middle, low, high))[1:], strict=True))
                covers = covers if low == low else "nothing: no predictions"
            rows.append(
                {"treatment": name, "over the base of recipe": recipe, "tasks": len(both)}
                | {
                    "networks": int(both["size"].sum()),
                    "mean": both["mean"].mean(),
                    "base": both.accuracy.mean(),
                }
                | found
                | {"covers": covers}
            )
    return pd.DataFrame(rows)
