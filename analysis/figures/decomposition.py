"""The two losses and the gains of fine-tuning for each n (paper, section 4.1, in numbers)."""

from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.paper import beside
from analysis.plotting import captions, plot
from analysis.plotting.style import (
    BLUE,
    INK,
    LIGHT_BLUE,
    LIGHT_RED,
    PUBLISHED,
    RED,
    FigureSpec,
    Panel,
    Style,
)
from analysis.statistics.decomposition import decompose
from analysis.statistics.over_splits import LEAST
from analysis.tables import StudyResults, mixed
from transferability.tasks.splits import ALL, NATURAL_MANMADE

LOSSES = {
    "co-adaptation loss": Style("co-adaptation loss: base − BnB", BLUE, "o", offset=-0.1),
    "specificity loss": Style("specificity loss: BnB − AnB", RED, "D", offset=0.1),
}
GAINS = {
    "recovery": Style("recovery: BnB+ − BnB", LIGHT_BLUE, "P", offset=-0.18),
    "gain over control": Style("gain over control: AnB+ − BnB+", RED, "v", offset=0.18),
    "gain over base": Style("gain over base: AnB+ − base", LIGHT_RED, "P", offset=0.06),
    "retraining gain": Style("retraining gain: BnB+ − base", BLUE, "s", offset=-0.06),
}
LOOKS = LOSSES | GAINS


def draw(tables: StudyResults) -> FigureSpec | str:
    networks = tables.networks
    if why := mixed(networks):
        return why
    parts = decompose(networks)
    losses, gains = ([q for q in group if (parts.quantity == q).any()] for group in (LOSSES, GAINS))
    if not losses and not gains:
        return "neither BnB nor AnB with a base of the same task"
    theirs = decompose(beside(tables))
    panels, last, measure = [], parts.n.max(), tables.measure
    if losses:
        panels.append(
            Panel("What freezing costs", _differences(parts, theirs, losses, last, measure))
        )
    if gains:
        panels.append(
            Panel("What fine-tuning gives", _differences(parts, theirs, gains, last, measure))
        )
    marks, legend = [LOOKS[q] for q in losses + gains], ""
    if len(theirs):
        marks.append(PUBLISHED)
        legend = " Faint dashed: the same for the paper's published numbers."
    apart = networks.split_kind.isin([NATURAL_MANMADE, ALL]) | (networks.treatment == "RnB")
    shown = networks[~apart]
    spread = (parts[parts.quantity.isin(losses + gains)].covers == "networks").all()
    covered = captions.MODEL_COVERS if spread else "validation images only"
    over_splits = (
        f" Wide pale bars: the same over splits where there are at least {LEAST}; they cover "
        f"{captions.SPLITS_COVER}."
        if _enough(parts[parts.quantity.isin(losses + gains)]).any()
        else ""
    )
    return FigureSpec(
        "decomposition",
        "Two reasons why frozen layers cost accuracy, and what fine-tuning gives: "
        f"{captions.study(tables)}",
        f"{captions.counts(shown)} Differences within tasks by a linear model (an effect for each "
        "task, and one for each treatment and n; where no task has both sides, relative to bases). "
        f"Bars: 95% intervals that cover {covered}, simultaneous for all of one quantity."
        f"{over_splits}{legend}",
        panels,
        marks,
        parts,
        columns=2,
    )


def _differences(
    parts: pd.DataFrame, theirs: pd.DataFrame, quantities: list[str], last: int, measure: str
) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        axes.axhline(0, color=INK, lw=0.8)
        for quantity in quantities:
            other = theirs[theirs.quantity == quantity]
            axes.plot(
                other.n, other.value, "--", color=LOOKS[quantity].color, lw=1, alpha=0.45, zorder=1
            )
            own, mark = parts[parts.quantity == quantity], LOOKS[quantity]
            wide = own[_enough(own)]
            look: dict[str, Any] = {"color": mark.color, "lw": 4, "alpha": 0.25, "zorder": 1}
            axes.vlines(wide.n + mark.offset, wide["splits low"], wide["splits high"], **look)
            plot.estimates(axes, own, mark)
        plot.layer_axis(axes, last, first=1)
        axes.set_ylabel(f"Difference in {measure} accuracy")

    return paint


def _enough(parts: pd.DataFrame) -> pd.Series:
    """Which rows have an interval over enough splits to decide."""
    return pd.to_numeric(parts.splits, errors="coerce") >= LEAST
