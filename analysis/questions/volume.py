"""Images per class: train the target from scratch, freeze n, or fine-tune n? (study=reduced)."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analysis.plotting import captions, plot
from analysis.plotting.selection import with_share
from analysis.plotting.style import (
    BLUE,
    INK,
    OLIVE,
    ORANGE,
    PAPER,
    RED,
    FigureSpec,
    Panel,
    Style,
    assign_styles,
)
from analysis.statistics.intervals import within
from analysis.statistics.over_images import margins, with_binomial_images
from analysis.tables import VARIANT, StudyResults
from transferability.errors import UserError
from transferability.tasks.splits import ALL, NATURAL_MANMADE, RANDOM, USER

KINDS = {
    RANDOM: "similar tasks",
    USER: "two tasks",
    NATURAL_MANMADE: "dissimilar tasks",
    ALL: "all classes",
}
ARRANGEMENTS = {"base": "scratch", "AnB": "freeze {}", "AnB+": "fine-tune {}"}
KINDS_OF_SPLIT = [(RED, "D", "-"), (ORANGE, "h", "--"), (BLUE, "s", "-"), (OLIVE, "^", "--")]


def asked(networks: pd.DataFrame) -> bool:
    known = with_share(networks[networks.split_kind.isin(KINDS)])
    treated = known.treatment.isin(["AnB", "AnB+"]) & known.share.notna()
    return known[treated].images_per_class.nunique() > 1


def draw(tables: StudyResults) -> FigureSpec:
    """Draw a grid per kind of split, and freezing minus fine-tuning, averaged over n.

    Raises:
        UserError: networks with one training-set size differ in settings that are not shown.
    """
    networks = with_binomial_images(tables)
    _check_one_kind(networks)
    table = _table(networks)
    either = _freeze_minus_fine_tune(table)
    # keeps text and frames readable on the strongest color
    limit = 1.4 * table["minus scratch"].abs().max()
    shown = [kind for kind in KINDS if (table.splits == kind).any()]
    looks = assign_styles(shown, KINDS_OF_SPLIT, "kinds of split")
    marks = {
        k: Style(KINDS[k], color, marker, line=line) for k, (color, marker, line) in looks.items()
    }
    # inches, so that neighboring accuracies do not overlap
    width = max(8.4, 0.5 * table.arrangement.nunique())
    panels = []
    for kind in shown:
        splits = ", ".join(sorted(set(networks[networks.split_kind == kind].split)))
        grid = _grid(table[table.splits == kind], limit)
        panels.append(Panel(f"{KINDS[kind].capitalize()} ({splits})", grid, width, 2.9))
    if len(either):
        panels.append(
            Panel(
                "Freeze or fine-tune?",
                lambda axes: _freeze_or_tune(axes, either, marks),
                width,
                2.9,
            )
        )
    limited = networks.images_per_class.notna() & networks.treatment.isin(ARRANGEMENTS)
    apart, done = "", networks[limited & networks.accuracy.notna()]
    if table.networks.sum() < len(done):
        apart = " Tasks that lack a network of a row are left out of it."
    return FigureSpec(
        "volume",
        "Little data: train from scratch, freeze n copied layers, or fine-tune them? "
        f"{tables.dataset}",
        f"{captions.counts(networks)}{apart} Numbers: {tables.measure} "
        "accuracy. Color: better (orange) or worse (violet) than from scratch on the same images. "
        "Framed: the best of a row; *: not significantly worse (95% interval of the validation "
        f"images, not corrected for choosing the best{captions.without_interval(done)}). Last: "
        "above 0 it is better to freeze the "
        "copied layers, below to fine-tune them (mean over n; the 95% interval is as wide as that "
        f"of a single n, as all n share the validation images). {captions.statistic(tables)}",
        panels,
        list(marks.values()),
        pd.concat([table.drop(columns=["order", "treatment", "binomial_images"]), either]),
    )


def _check_one_kind(networks: pd.DataFrame) -> None:
    """Each number of images, and each arrangement, may have a recipe of its own, but no more."""
    shown = networks[networks.treatment.isin(ARRANGEMENTS) & networks.accuracy.notna()]
    for (_, images, *_), own in shown.groupby(["split_kind", "images_per_class", "treatment", "n"]):
        if varied := [column for column in VARIANT if own[column].nunique() > 1]:
            raise UserError(
                f"the networks with {images:.0f} images per class differ in "
                f"{' and '.join(varied)}, whose means say nothing: collect one of them into a "
                "folder of its own, for example without study.rates"
            )


def _grid(rows: pd.DataFrame, limit: float) -> Callable[[Axes], None]:
    """Draw the accuracy of every arrangement (columns) at every number of images (rows)."""
    rows = rows.rename(columns={"images a class": "images", "minus scratch": "above"})
    columns = list(dict.fromkeys(rows.sort_values(["order", "n"]).arrangement))
    volumes = sorted(set(rows.images), reverse=True)

    def paint(axes: Axes) -> None:
        axes.grid(False)
        shown = rows.pivot(index="images", columns="arrangement", values="above")
        axes.imshow(
            shown.loc[volumes, columns], cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto"
        )
        for row in rows.itertuples():
            x, y = columns.index(row.arrangement), volumes.index(row.images)
            text = f"{row.accuracy:.3f}".removeprefix("0") + (
                "*" if row.among_the_best and not row.best else ""
            )
            color = PAPER if abs(row.above) > 0.6 * limit else INK
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color=color)
            if row.best:
                axes.add_patch(
                    Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, fill=False, ec=INK, lw=2)
                )
        axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
        axes.set_yticks(range(len(volumes)), [str(v) for v in volumes])
        axes.set_ylabel("Images per class")

    return paint


def _freeze_or_tune(axes: Axes, either: pd.DataFrame, marks: dict[str, Style]) -> None:
    volumes = sorted(set(either["images a class"]))
    axes.axhline(0, color=INK, lw=0.8)
    for place, (kind, mark) in enumerate(marks.items()):
        own = either[either.splits == kind]
        x = own["images a class"].map(volumes.index) + 0.08 * place
        axes.plot(x, own.difference, mark.line, color=mark.color, lw=1.3, zorder=2)
        axes.vlines(x, own.low, own.high, color=mark.color, lw=1, zorder=2)
        tips = [
            f"{KINDS[kind]}: {r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}]"
            for r in own.itertuples()
        ]
        plot.scatter(axes, x, own.difference, mark, tips)
    axes.set_xticks(range(len(volumes)), [str(v) for v in volumes])
    axes.set_xlim(-0.4, len(volumes) - 0.6)
    axes.set_xlabel("Images per class")
    axes.set_ylabel("Frozen minus fine-tuned")


def _table(networks: pd.DataFrame) -> pd.DataFrame:
    """A row per kind of split, training-set size and arrangement: mean accuracy, difference from
    scratch, whether it is the best, and whether it is not significantly worse than the best.

    Of the tasks and seeds of a size, those with the same and most networks are kept: arrangements
    are compared by their mean accuracy, which would be that of different tasks.
    """
    done = with_share(networks[networks.accuracy.notna() & networks.images_per_class.notna()])
    done = done[done.treatment.isin(ARRANGEMENTS)]
    size = ["split_kind", "images_per_class"]
    own = [*size, "task", "seed"]
    named = done.treatment + " " + done.n.astype(str)
    lists = named.groupby([done[column] for column in own]).agg(
        lambda names: ", ".join(sorted(set(names)))  # splits may share a task
    )
    lists = lists.reset_index(name="networks")
    kept = lists[lists.networks == lists.groupby(size).networks.transform(_longest)]
    done = done.merge(kept[own])
    keys = ["split_kind", "images_per_class", "treatment", "n"]
    table = done.groupby(keys).agg(accuracy=("accuracy", "mean"), networks=("accuracy", "size"))
    table["binomial_images"] = _images(done, keys)
    table["minus scratch"] = done.groupby(keys).over_base.mean()
    table = table.reset_index().rename(
        columns={"split_kind": "splits", "images_per_class": "images a class"}
    )
    table["images a class"] = table["images a class"].astype(int)
    table["order"] = table.treatment.map(list(ARRANGEMENTS).index)
    table.insert(
        2,
        "arrangement",
        [ARRANGEMENTS[t].format(n) for t, n in zip(table.treatment, table.n, strict=True)],
    )
    parts = []
    for _, row in table.groupby(["splits", "images a class"]):
        top = row.accuracy.max()
        best = row.accuracy == top
        below, above = margins(row.accuracy, row.binomial_images)
        equal = top - row.accuracy <= np.hypot(below[best].max(), above)
        parts.append(row.assign(best=best, among_the_best=equal))
    return pd.concat(parts)


def _images(done: pd.DataFrame, keys: list[str]) -> pd.Series:
    """The number of images on which a mean accuracy over tasks has the binomial variance: tasks
    weigh equally, so that of few images decides. Seeds share images.
    """
    one = (1 / done.binomial_images).groupby([done[column] for column in [*keys, "task"]])
    tasks = one.agg(lambda parts: parts.mean(skipna=False)).groupby(keys)
    return tasks.size() / tasks.agg(lambda parts: parts.mean(skipna=False))


def _longest(lists: pd.Series) -> str:
    """The longest of several lists; of equally long ones the most common, then the first."""
    counts = lists.value_counts()
    return min(counts.index, key=lambda own: (-own.count(","), -counts[own], own))


def _freeze_minus_fine_tune(table: pd.DataFrame) -> pd.DataFrame:
    """A row per kind of split and training-set size: AnB minus AnB+, averaged over n, with the
    interval of a single n.

    The networks of one task share its validation images, so the mean over n may be no more precise
    than a single n.
    """
    below, above = margins(table.accuracy, table.binomial_images)
    done = table.assign(below=below, above=above)
    rows = []
    for (kind, images), own in done.groupby(["splits", "images a class"]):
        frozen, tuned = (own[own.treatment == treatment] for treatment in ("AnB", "AnB+"))
        both = frozen.merge(tuned, on="n", suffixes=("", "_tuned"))
        difference = (both.accuracy - both.accuracy_tuned).mean()
        lower = (both.below**2 + both.above_tuned**2).mean(skipna=False) ** 0.5
        upper = (both.above**2 + both.below_tuned**2).mean(skipna=False) ** 0.5
        row = {
            "splits": kind,
            "images a class": images,
            "arrangement": "freeze - fine-tune, mean over n",
        }
        row |= {
            "networks": (both.networks + both.networks_tuned).sum(),
            "best": False,
            "among_the_best": False,
        }
        _, low, high = within((difference, difference - lower, difference + upper))
        rows.append(row | {"difference": difference, "low": low, "high": high})
    return pd.DataFrame(rows).dropna(subset="difference")
