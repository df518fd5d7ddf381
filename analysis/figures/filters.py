"""Images of the first-layer filters of the bases and of an untrained network."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.plotting import captions
from analysis.plotting.style import FigureSpec, Panel
from analysis.tables import StudyResults

TITLES = {
    "baseA": "Base A",
    "baseB": "Base B",
    "baseall": "Base, all classes",
    "untrained": "Untrained",
}


def draw(tables: StudyResults) -> FigureSpec | str:
    if tables.filters.empty:
        return (
            "no filters were collected, as no base network is finished, "
            "or its weights are not published"
        )
    panels = []
    for name, rows in tables.filters.groupby("network", sort=True):
        picture = mosaic(_weights(rows))
        height, width = picture.shape[:2]
        panels.append(Panel(TITLES[name], _picture(picture), 3.4, 3.4 * height / width + 0.1))
    first = tables.filters.iloc[0]
    count = tables.filters["filter"].nunique()
    return FigureSpec(
        "filters",
        f"The filters of layer 1: {captions.study(tables)}",
        f"All {count} filters of one network each, split {first.split}, seed {first.seed}. Each "
        "filter is scaled by its own largest weight; gray is 0. On natural images such filters "
        "come to look like edges and colors whatever the task, "
        "which is what the paper set out to explain.",
        panels,
        columns=3,
    )


def _picture(picture: np.ndarray) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        axes.imshow(picture, interpolation="nearest")
        axes.set_axis_off()

    return paint


def _weights(rows: pd.DataFrame) -> np.ndarray:
    """The filters of one network, (filters, side, side, 3)."""
    count, side = rows["filter"].max() + 1, rows["row"].max() + 1
    weights = rows.sort_values(["filter", "row", "column"])[["red", "green", "blue"]].to_numpy()
    return weights.reshape(count, side, side, 3)


def mosaic(weights: np.ndarray) -> np.ndarray:
    """Arrange filters, (filters, side, side, 3), in one RGBA image, (height, width, 4) in 0..1.

    Each filter is scaled by its largest absolute weight; gray is weight 0.
    """
    count, side = weights.shape[:2]
    weights = weights / np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    across = int(np.ceil(np.sqrt(count)))
    down = int(np.ceil(count / across))
    # the gaps between filters are transparent
    picture = np.zeros((down * (side + 1) + 1, across * (side + 1) + 1, 4))
    for i, scaled in enumerate(weights):
        row, column = divmod(i, across)
        top, left = row * (side + 1) + 1, column * (side + 1) + 1
        picture[top : top + side, left : left + side, :3] = 0.5 + scaled / 2
        picture[top : top + side, left : left + side, 3] = 1
    return picture
