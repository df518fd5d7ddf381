"""Styles of all figures: the paper's marks, colors that color-blind readers can distinguish, and
settings that make files reproducible.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb

from transferability.errors import UserError
from transferability.signals import stop_requests

matplotlib.use("Agg")

INK, GRID, PAPER, FAINT = "#222222", "#e6e6e6", "#ffffff", "#767676"
BLUE, LIGHT_BLUE = "#1f4e9c", "#7fb2e5"  # same-task layers: frozen, fine-tuned
RED, LIGHT_RED = "#b2182b", "#ef8a7a"  # other-task layers: frozen, fine-tuned
# layers of a dissimilar task; random layers; a second or third of a kind
ORANGE, OLIVE, GREEN = "#e08214", "#8a9a00", "#1b7837"


@dataclass(frozen=True)
class Style:
    """The marks, line and legend label of one kind of network."""

    label: str
    color: str
    marker: str = ""
    filled: bool = True
    offset: float = 0.0  # shift along the layer axis, so that marks of one layer do not overlap
    line: str = "-"
    size: int = 34  # of the marker, in square points

    @property
    def face(self) -> str:
        return self.color if self.filled else PAPER


TREATMENTS = {
    "base": Style("base: trained from scratch", INK, "o", filled=False, line=":"),
    "BnB": Style("BnB: same-task layers, frozen", BLUE, "o", offset=-0.18),
    "BnB+": Style("BnB+: same-task layers, fine-tuned", LIGHT_BLUE, "P", offset=-0.06, size=60),
    "AnB": Style("AnB: other-task layers, frozen", RED, "D", offset=0.06),
    "AnB+": Style("AnB+: other-task layers, fine-tuned", LIGHT_RED, "P", offset=0.18, size=60),
    "RnB": Style("RnB: random, untrained layers, frozen", OLIVE, "^"),
}
READINGS = {  # the paper's five readings of its figure 2: line, reading, and the line it refers to
    "base": ("1 base", "", "base"),
    "BnB": ("2 BnB", "below 1, co-adaptation is lost", "base"),
    "BnB+": ("3 BnB+", "back at 1, fine-tuning recovers it", "base"),
    "AnB": ("4 AnB", "below 2, features are specific to A", "BnB"),
    "AnB+": ("5 AnB+", "above 3, transfer helps generalization", "BnB+"),
}
DISSIMILAR = Style("AnB between natural and man-made", ORANGE, "h")
PUBLISHED = Style("faint: the paper's means", FAINT, line="--")
KINDS_OF_NETWORK = [  # color, marker, line
    (INK, "o", "-"),
    ("#d95f02", "s", "--"),
    (GREEN, "^", "-"),
    ("#7570b3", "D", "--"),
    ("#a6761d", "v", ":"),
    ("#c51b7d", "X", "-."),
]
# from the lowest n to the highest
BY_LAYER = ["#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#5aa800", "#b8860b"]

# The colors on a dark page; colors without an entry are readable on both.
DARK = {
    INK: "#e8e6e3",
    GRID: "#3a3d42",
    PAPER: "#15171a",
    FAINT: "#9a9a9a",
    BLUE: "#5b8def",
    LIGHT_BLUE: "#bfe0ff",
    RED: "#ee4b5a",
    LIGHT_RED: "#ffc7ba",
    OLIVE: "#b9ca2e",
    "#482878": "#b79be0",
    "#3e4a89": "#8f9be0",
    "#31688e": "#6fb0dc",
    "#26828e": "#4fb9c6",
    "#1f9e89": "#35c4ab",
    "#5aa800": "#8ed63a",
    "#b8860b": "#e5b83c",
}


def layer_colors(count: int) -> dict[str, str]:
    """A color for each n = 1..count, interpolated from BY_LAYER -> its color on a dark page."""
    light, dark = (
        _between(colors, count) for colors in (BY_LAYER, [DARK[color] for color in BY_LAYER])
    )
    return dict(zip(light, dark, strict=True))


def _between(colors: list[str], count: int) -> list[str]:
    """``count`` evenly spaced colors from the first to the last of ``colors``."""
    channels = np.array([to_rgb(color) for color in colors]).T
    places = np.linspace(0, len(colors) - 1, count)
    mixed = np.array([np.interp(places, range(len(colors)), channel) for channel in channels]).T
    return [to_hex(color) for color in mixed]


RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # names of datasets and splits may have dollar signs
    "svg.hashsalt": "transferability",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "savefig.dpi": 150,
}


@contextmanager
def styled(**more: str) -> Iterator[None]:
    """Matplotlib's defaults with RC and ``more``; a user's matplotlibrc is ignored.

    Raises:
        KeyboardInterrupt: at the end of the block, if it was interrupted. Within, matplotlib's C
            code would turn the interrupt into "Invalid affine transformation matrix".
    """
    with stop_requests(second_kills=False), style.context(["default", RC | more]):
        yield


def assign_styles(names: Sequence, looks: Sequence, what: str) -> dict:
    """Assign one of ``looks`` to each of ``names``, in order.

    Raises:
        UserError: there are more names than looks.
    """
    if len(names) > len(looks):
        raise UserError(f"{len(names)} {what}: the figure has room for {len(looks)}; collect fewer")
    return dict(zip(names, looks, strict=False))


@dataclass(frozen=True)
class Panel:
    """One pair of axes, small enough to be read alone on a phone."""

    title: str
    draw: Callable[[Axes], None]
    width: float = 4.6  # inches
    height: float = 3.6
    marks: list[Style] | None = None  # the marks that the panel shows; None: all of the figure's


@dataclass(frozen=True)
class FigureSpec:
    """A figure before layout: on paper its panels share a page, in the report each flows with the
    text.
    """

    name: str  # stem of the files
    title: str
    caption: str  # what is shown, the number of networks and their spread
    panels: list[Panel]
    marks: list[Style] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)  # the numbers behind it
    columns: int = 1


def with_tips(artist: Artist, tips: list[str]) -> None:
    """Attach tooltips for the report to the marks of ``artist`` (a collection), in drawing
    order.
    """
    artist.tips = tips  # type: ignore[attr-defined]  # our attribute, read by the report
