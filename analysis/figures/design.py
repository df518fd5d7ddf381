"""The experimental design as an image: the layers that a network copies, freezes and trains (the
paper's figure 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Arc, FancyArrowPatch, Rectangle
from matplotlib.text import Text

from analysis.plotting.style import INK, PAPER, FigureSpec, Panel

# text on filled boxes: white in every theme, unlike PAPER, which turns dark on a dark page
LETTER = "#fefefe"
FILLS = {"A": "#b3192c", "B": "#205099", "R": "#7f8e00"}
# units of the drawing are inches on a figure of 5.2 x 5.6, for up to 8 layers
WIDTH, HEIGHT = 5.08, 5.52
SIZE = 9.5  # points of the smallest text
# left edge of the first box, distance between boxes, width and height of a box
LEFT, PITCH, BOX, TALL = 0.6, 0.315, 0.265, 0.38
MOST = 12  # columns; of a deeper network, the lowest layers and the last are drawn
BASES = {"A": 4.84, "B": 4.3}  # y of the row of each base
LANES = {"A": 0.22, "B": 0.46}  # x of the line of copies from each base


def draw(layers: int) -> FigureSpec:
    """Draw a row per network and a column per layer."""
    sketch = _Sketch(layers)
    wider = max(0, len(sketch.columns) - 8) * PITCH
    return FigureSpec(
        "design",
        "The networks of the study",
        "Task A and task B are two halves of the classes. Two base networks are trained; then the "
        f"lowest n layers (here {sketch.chop}) of one of them are copied into a new network, whose "
        "upper layers start at random, and which is trained on B. "
        "The same with A and B exchanged, and for every n.",
        [Panel("", lambda axes: _paint(axes, sketch, wider), 5.2 + wider, 5.6)],
    )


@dataclass(frozen=True)
class _Sketch:
    """The drawn columns, the example n and positions for networks with this number of layers."""

    layers: int

    @property
    def columns(self) -> Sequence[int | None]:
        """The layers from left to right; None stands for omitted layers."""
        every = range(1, self.layers + 1)
        return every if len(every) <= MOST else [*every[: MOST - 2], None, self.layers]

    @property
    def chop(self) -> int:
        """The n of the example."""
        return min(3, self.layers - 1)

    @property
    def chopped(self) -> str:
        return f"1–{self.chop}" if self.chop > 1 else "1"

    @property
    def names(self) -> float:
        """The x at which the text of a row starts."""
        return LEFT + (len(self.columns) - 1) * PITCH + BOX + 0.09


def _paint(axes: Axes, sketch: _Sketch, wider: float) -> None:
    axes.set(xlim=(0, WIDTH + wider), ylim=(0, HEIGHT))
    axes.axis("off")
    for column, layer in enumerate(sketch.columns):
        _text(axes, LEFT + column * PITCH + BOX / 2, 5.43, str(layer or "…"), ha="center")
    _text(axes, LEFT - 0.04, 5.43, "image →", ha="right")
    _text(axes, sketch.names, 5.43, f"→ class   (layers 1–{sketch.layers})")

    _named(axes, LEFT, 5.18, "base:", "the accuracy to compare with")
    for task, y in BASES.items():
        _network(axes, sketch, y, task * sketch.layers, f"base{task}", f"trained on {task}")

    n = sketch.chop
    _text(
        axes,
        LEFT,
        3.83,
        f"Chop after layer n (here {n}), add random layers, train on B:",
        style="italic",
    )
    _named(axes, LEFT, 3.56, "BnB:", "do layers that grew up together need each")
    _text(axes, LEFT, 3.39, "other? (co-adaptation)")
    _copies(axes, sketch, "B", frozen=3.1, tuned=2.66)
    _named(axes, LEFT, 2.31, "AnB:", "are A's features of use to B? (specificity)")
    _copies(axes, sketch, "A", frozen=2.02, tuned=1.58)
    _named(axes, LEFT, 1.23, "RnB:", "how far do untrained features go?")
    _network(axes, sketch, 0.94, "R" * n, f"R{n}B", "untrained, frozen", frozen=True)

    key = {
        "random,\ntrained on B": "fresh",
        "frozen,\nnever changes": "frozen",
        "fine-tuned,\ntrained on B": "",
    }
    for x, (words, state) in zip((LEFT, 2.08, 3.62), key.items(), strict=True):
        _box(axes, x, 0.32, frozen=state == "frozen", fresh=state == "fresh")
        _text(axes, x + BOX + 0.08, 0.32, words)


def _copies(axes: Axes, sketch: _Sketch, source: str, frozen: float, tuned: float) -> None:
    """Draw the networks that start from the lowest layers of a base, and the lines that show the
    copying.
    """
    n, letters = sketch.chop, source * sketch.chop
    _network(
        axes, sketch, frozen, letters, f"{source}{n}B", f"{sketch.chopped} frozen", frozen=True
    )
    _network(axes, sketch, tuned, letters, f"{source}{n}B+", f"{sketch.chopped} fine-tuned")
    lane, bracket = LANES[source], BASES[source] - TALL / 2 - 0.08
    last = LEFT + (n - 1) * PITCH + BOX
    line: dict[str, Any] = {"color": INK, "lw": 1.3}
    line |= {"solid_capstyle": "butt", "solid_joinstyle": "miter"}
    axes.plot([last, last, lane, lane], [bracket + 0.045, bracket, bracket, tuned], **line)
    axes.plot([LEFT, LEFT], [bracket + 0.045, bracket], **line)
    for y in (frozen, tuned):
        arrow: dict[str, Any] = {
            "arrowstyle": "-|>",
            "color": INK,
            "lw": 1.3,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 9,
        }
        axes.add_patch(FancyArrowPatch((lane, y), (LEFT - 0.02, y), **arrow))
    _text(
        axes, lane - 0.1, (bracket + tuned) / 2, f"copy of base{source}", ha="center", rotation=90
    )


def _network(
    axes: Axes, sketch: _Sketch, y: float, letters: str, name: str, words: str, frozen: bool = False
) -> None:
    """Draw one row with a box per layer, filled by the source in ``letters``; higher layers are
    randomly initialized.
    """
    for column, layer in enumerate(sketch.columns):
        x = LEFT + column * PITCH
        if layer is None:
            _text(axes, x + BOX / 2, y, "…", ha="center")
        else:
            letter = letters[layer - 1 : layer]
            _box(axes, x, y, letter, frozen=frozen and letter != "", fresh=not letter)
    _named(axes, sketch.names, y, name, words)


def _box(
    axes: Axes, x: float, y: float, letter: str = "", frozen: bool = False, fresh: bool = False
) -> None:
    """Draw one layer centered at height ``y``: a frozen layer has a thick border and a lock, a
    randomly initialized one (``fresh``) a dashed border.
    """
    style = (0, (2, 1.5)) if fresh else "-"
    fill, ink = (FILLS[letter], LETTER) if letter else (PAPER, INK)
    edge: dict[str, Any] = {"edgecolor": INK, "lw": 2.2 if frozen else 0.9, "ls": style}
    axes.add_patch(Rectangle((x, y - TALL / 2), BOX, TALL, facecolor=fill, **edge))
    middle = x + BOX / 2
    if letter:
        _text(
            axes,
            middle,
            y + 0.065 * frozen,
            letter,
            ha="center",
            color=ink,
            weight="bold",
            fontsize=11,
        )
    if frozen:
        low = y - 0.145 if letter else y - 0.065
        axes.add_patch(Rectangle((middle - 0.05, low), 0.1, 0.07, facecolor=ink, edgecolor="none"))
        axes.add_patch(Arc((middle, low + 0.07), 0.06, 0.08, theta2=180, edgecolor=ink, lw=1.2))


def _named(axes: Axes, x: float, y: float, name: str, words: str) -> None:
    """Draw a name in bold, followed by ``words``."""
    bold = _text(axes, x, y, name, weight="bold")
    how: dict[str, Any] = {"color": INK, "fontsize": SIZE, "va": "center"}
    axes.annotate(words, (1, 0.5), (4, 0), xycoords=bold, textcoords="offset points", **how)


def _text(axes: Axes, x: float, y: float, words: str, **how) -> Text:
    return axes.text(x, y, words, **{"color": INK, "fontsize": SIZE, "va": "center", **how})
