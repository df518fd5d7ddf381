"""How every figure looks: the paper's marks, colors that color-blind readers can distinguish, and
files that are equal for equal tables.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
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

matplotlib.use("Agg")

INK, GRID, PAPER, FAINT = "#222222", "#e6e6e6", "#ffffff", "#767676"
BLUE, LIGHT_BLUE = "#1f4e9c", "#7fb2e5"  # own layers: frozen, fine-tuned
RED, LIGHT_RED = "#b2182b", "#ef8a7a"  # the other task's
# a dissimilar task's; random ones; a second or third of a kind
ORANGE, OLIVE, GREEN = "#e08214", "#8a9a00", "#1b7837"


@dataclass(frozen=True)
class Style:
    """How one kind of network is drawn and what the legend says of it."""

    label: str
    color: str
    marker: str = ""
    filled: bool = True
    offset: float = 0.0  # shift along the layer axis, so that marks of one layer stand side by side
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
READINGS = {  # the paper's five readings of its figure 2, as conditions
    "base": "1 base",
    "BnB": "2 BnB: below 1, co-adaptation is lost",
    "BnB+": "3 BnB+: back at 1, fine-tuning recovers it",
    "AnB": "4 AnB: below 2, features are specific to A",
    "AnB+": "5 AnB+: above 3, transfer helps generalization",
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
# from the lowest n on
BY_LAYER = ["#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#5aa800", "#b8860b"]

# The same colors on a dark page; what is not here is readable on both.
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
    """A color for each n = 1..count, in their order, and the same on a dark page: BY_LAYER,
    or between these.
    """
    light, dark = (
        _between(colors, count) for colors in (BY_LAYER, [DARK[color] for color in BY_LAYER])
    )
    return dict(zip(light, dark, strict=True))


def _between(colors: list[str], count: int) -> list[str]:
    """``count`` colors from the first to the last of ``colors``, evenly."""
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


def styled(**more: str) -> AbstractContextManager[None]:
    """Matplotlib's own defaults with RC, and ``more``: a user's matplotlibrc has no say."""
    return style.context(["default", RC | more])


def assign_styles(names: Sequence, looks: Sequence, what: str) -> dict:
    """A look for each of ``names``, in their order.

    Raises:
        UserError: there are more of them than looks.
    """
    if len(names) > len(looks):
        raise UserError(f"{len(names)} {what}: the figure has room for {len(looks)}; collect fewer")
    return dict(zip(names, looks, strict=False))


@dataclass(frozen=True)
class Panel:
    """One pair of axes; small enough to be read on a phone when it stands alone."""

    title: str
    draw: Callable[[Axes], None]
    width: float = 4.6  # inches
    height: float = 3.6
    marks: list[Style] | None = None  # those of the drawing that it shows; None: all


@dataclass(frozen=True)
class FigureSpec:
    """A figure before it is laid out: on paper its panels share a page,
    in the report each flows with the text.
    """

    name: str  # of its files
    title: str
    caption: str  # what it shows, how many networks, what their spread is
    panels: list[Panel]
    marks: list[Style] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)  # the numbers behind it
    columns: int = 1


def with_tips(artist: Artist, tips: list[str]) -> None:
    """What the report says of each mark of ``artist`` (a collection, in drawing order)
    under the pointer.
    """
    artist.tips = tips  # type: ignore[attr-defined]  # ours, which the report reads
