"""The experimental design as a picture: which layers a network copies, freezes and trains (the paper's figure 1)."""

from matplotlib.axes import Axes
from matplotlib.patches import Arc, FancyArrowPatch, Rectangle
from matplotlib.text import Text

from analysis.style import INK, PAPER, Drawing, Panel

LETTER = "#fefefe"  # on a filled box: white in every theme, so not PAPER, which turns dark on a dark page
FILLS = {"A": "#b3192c", "B": "#205099", "R": "#7f8e00"}
WIDTH, HEIGHT = 5.08, 5.52  # the drawing's units are inches on a figure of 5.2 x 5.6
SIZE = 9.5  # points, the smallest text
LEFT, PITCH, BOX, TALL = 0.6, 0.315, 0.265, 0.38  # first box's left edge, box to box, a box's width and height
NAMES = LEFT + 7 * PITCH + BOX + 0.09  # where the words beside a row start
CHOP = 3  # n, the example
BASES = {"A": 4.84, "B": 4.3}  # the height of a base's row
LANES = {"A": 0.22, "B": 0.46}  # where the line of copies from a base runs down


def draw() -> Drawing:
    return Drawing(
        "design",
        "The networks of the study",
        "Task A and task B are two halves of the classes. Two base networks are trained; then the lowest n layers "
        f"(here {CHOP}) of one of them are copied into a new network, whose upper layers start fresh, and which is "
        "trained on B. The same with A and B exchanged, and for every n.",
        [Panel("", _paint, 5.2, 5.6)],
    )


def _paint(axes: Axes) -> None:
    """Rows are networks and columns their layers; meant for a figure of about 5.2 x 5.6 inches."""
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")
    for layer in range(8):
        _text(axes, LEFT + layer * PITCH + BOX / 2, 5.43, str(layer + 1), ha="center")
    _text(axes, LEFT - 0.04, 5.43, "image →", ha="right")
    _text(axes, NAMES, 5.43, "→ class   (layers 1–8)")

    _named(axes, LEFT, 5.18, "base:", "the accuracy to compare with")
    for task, y in BASES.items():
        _network(axes, y, task * 8, f"base{task}", f"trained on {task}")

    _text(axes, LEFT, 3.83, f"Chop after layer n (here {CHOP}), add fresh layers, train on B:", style="italic")
    _named(axes, LEFT, 3.56, "BnB:", "do layers that grew up together need each")
    _text(axes, LEFT, 3.39, "other? (co-adaptation)")
    _chopped(axes, "B", frozen=3.1, tuned=2.66)
    _named(axes, LEFT, 2.31, "AnB:", "are A's features of use to B? (specificity)")
    _chopped(axes, "A", frozen=2.02, tuned=1.58)
    _named(axes, LEFT, 1.23, "RnB:", "how far do untrained features go?")
    _network(axes, 0.94, "R" * CHOP, f"R{CHOP}B", "untrained, frozen", frozen=True)

    key = {"fresh,\ntrained on B": "fresh", "frozen,\nnever changes": "frozen", "fine-tuned,\ntrained on B": ""}
    for x, (words, state) in zip((LEFT, 2.08, 3.62), key.items(), strict=True):
        _box(axes, x, 0.32, frozen=state == "frozen", fresh=state == "fresh")
        _text(axes, x + BOX + 0.08, 0.32, words)


def _chopped(axes: Axes, source: str, frozen: float, tuned: float) -> None:
    """The networks that start from a base's lowest layers, and the lines along which these are copied."""
    _network(axes, frozen, source * CHOP, f"{source}{CHOP}B", f"1–{CHOP} frozen", frozen=True)
    _network(axes, tuned, source * CHOP, f"{source}{CHOP}B+", f"1–{CHOP} fine-tuned")
    lane, bracket = LANES[source], BASES[source] - TALL / 2 - 0.08
    last = LEFT + (CHOP - 1) * PITCH + BOX
    line = {"color": INK, "lw": 1.3, "solid_capstyle": "butt", "solid_joinstyle": "miter"}
    axes.plot([last, last, lane, lane], [bracket + 0.045, bracket, bracket, tuned], **line)
    axes.plot([LEFT, LEFT], [bracket + 0.045, bracket], **line)
    for y in (frozen, tuned):
        arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.3, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
        axes.add_patch(FancyArrowPatch((lane, y), (LEFT - 0.02, y), **arrow))
    _text(axes, lane - 0.1, (bracket + tuned) / 2, f"copy of base{source}", ha="center", rotation=90)


def _network(axes: Axes, y: float, letters: str, name: str, words: str, frozen: bool = False) -> None:
    """One row: a box a layer, filled where ``letters`` says whose weights it starts with, and fresh above."""
    for layer in range(8):
        letter = letters[layer : layer + 1]
        _box(axes, LEFT + layer * PITCH, y, letter, frozen=frozen and letter != "", fresh=not letter)
    _named(axes, NAMES, y, name, words)


def _box(axes: Axes, x: float, y: float, letter: str = "", frozen: bool = False, fresh: bool = False) -> None:
    """One layer, ``y`` its middle: a frozen one has a thick border and a lock, a fresh one is dashed."""
    style = (0, (2, 1.5)) if fresh else "-"
    fill, ink = (FILLS[letter], LETTER) if letter else (PAPER, INK)
    edge = {"edgecolor": INK, "lw": 2.2 if frozen else 0.9, "ls": style}
    axes.add_patch(Rectangle((x, y - TALL / 2), BOX, TALL, facecolor=fill, **edge))
    middle = x + BOX / 2
    if letter:
        _text(axes, middle, y + 0.065 * frozen, letter, ha="center", color=ink, weight="bold", fontsize=11)
    if frozen:
        low = y - 0.145 if letter else y - 0.065
        axes.add_patch(Rectangle((middle - 0.05, low), 0.1, 0.07, facecolor=ink, edgecolor="none"))
        axes.add_patch(Arc((middle, low + 0.07), 0.06, 0.08, theta2=180, edgecolor=ink, lw=1.2))


def _named(axes: Axes, x: float, y: float, name: str, words: str) -> None:
    """A name in bold and the words that follow it."""
    bold = _text(axes, x, y, name, weight="bold")
    how = {"textcoords": "offset points", "color": INK, "fontsize": SIZE, "va": "center"}
    axes.annotate(words, (1, 0.5), (4, 0), xycoords=bold, **how)


def _text(axes: Axes, x: float, y: float, words: str, **how) -> Text:
    return axes.text(x, y, words, **{"color": INK, "fontsize": SIZE, "va": "center"} | how)
