"""Base networks trained on fewer images per class, on linear and logarithmic scales (paper,
supplement).
"""

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes

from analysis.plotting import captions, plot
from analysis.plotting.style import INK, FigureSpec, Panel, Style
from analysis.tables import StudyResults

MARK = Style("base: trained from scratch", INK, "o", filled=False)


def draw(tables: StudyResults) -> FigureSpec | str:
    networks = tables.networks
    rows = networks[(networks.treatment == "base") & networks.images_per_class.notna()]
    rows = rows.sort_values("images_per_class", kind="stable")
    rows = rows.groupby(["task", "seed"]).filter(lambda own: own.images_per_class.nunique() > 1)
    if rows.empty:
        return "no base network at more than one number of images per class"
    measure, shown = tables.measure, ["top1", "top1_mean_best10", tables.metadata["statistic"]]
    stuck = rows[rows.accuracy < 1.5 / rows.classes]
    remark = f" {len(stuck)} of the networks stayed at chance." if len(stuck) else ""
    return FigureSpec(
        "volume",
        f"Base networks trained on a part of the images: {captions.study(tables)}",
        f"{captions.counts(rows)} A mark is one network.{remark} {captions.statistic(tables)}",
        [
            Panel("Linear", _against_images(rows, "linear", measure)),
            Panel("Logarithmic", _against_images(rows, "log", measure)),
        ],
        [MARK],
        rows[["cell", "images_per_class", *dict.fromkeys(shown)]],
        columns=2,
    )


def _against_images(rows: pd.DataFrame, scale: str, measure: str) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        for _, own in rows.groupby(["task", "seed", "recipe"]):
            axes.plot(own.images_per_class, own.accuracy, color=MARK.color, lw=1, zorder=1)
        plot.scatter(axes, rows.images_per_class, rows.accuracy, MARK, plot.tips_of(rows))
        plot.chance(axes, (1 / rows.classes).mean(), "right")
        axes.set_xscale(scale)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_xlabel(f"Training images per class ({scale} scale)")
        axes.set_ylabel(f"{measure.capitalize()} accuracy")

    return paint
