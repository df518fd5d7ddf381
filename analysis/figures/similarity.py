"""Linear CKA similarity of the bases' representations, compared with the measured specificity."""

import pandas as pd
from matplotlib.axes import Axes

from analysis.plotting import captions, plot
from analysis.plotting.style import BLUE, INK, OLIVE, ORANGE, RED, FigureSpec, Panel, Style
from analysis.statistics.decomposition import decompose
from analysis.tables import StudyResults
from transferability.tasks.splits import NATURAL_MANMADE

LOOKS = {  # (pair, whether between natural and man-made)
    ("bases", False): Style("base A and base B, similar tasks", RED, "D", offset=-0.06),
    ("bases", True): Style("base A and base B, natural/man-made", ORANGE, "h", offset=0.06),
    ("other seed", False): Style("one task, two seeds, similar tasks", BLUE, "s"),
    ("other seed", True): Style(
        "one task, two seeds, natural/man-made", BLUE, "o", filled=False, line="--"
    ),
    ("untrained", False): Style("two untrained networks, similar tasks", OLIVE, "^"),
    ("untrained", True): Style(
        "two untrained networks, natural/man-made", OLIVE, "v", filled=False, line="--"
    ),
}
LOSSES = {
    "transfer loss": LOOKS["bases", False],
    "transfer loss, dissimilar tasks": LOOKS["bases", True],
}


def draw(tables: StudyResults) -> FigureSpec | str:
    if tables.similarity.empty:
        return (
            "not collected, as no split has both of its bases finished, "
            "or their weights are not published"
        )
    pairs = tables.similarity.assign(distant=tables.similarity.split == NATURAL_MANMADE)
    parts, last = decompose(tables.networks), int(pairs.layer.max())
    panels = [
        Panel(
            "How similar two networks' representations of the same images are",
            lambda axes: _alike(axes, pairs, last),
        )
    ]
    if parts.quantity.isin(LOSSES).any():
        panels.append(
            Panel("What transfer of layers 1 to n loses", lambda axes: _specific(axes, parts, last))
        )
    return FigureSpec(
        "similarity",
        f"Do layers transfer where the two networks are similar? {captions.study(tables)}",
        "Similarity: debiased linear CKA (Kornblith et al. 2019) of two networks' outputs of a "
        "layer on "
        f"{int(pairs.images.max())} validation images of both tasks; a mark is one pair of "
        "networks. Untrained networks show how much the images alone make networks similar. Right: "
        "what AnB loses between the same tasks, with simultaneous intervals with 95%.",
        panels,
        [LOOKS[key] for key in pairs.groupby(["pair", "distant"]).groups],
        pairs.drop(columns=["distant", "run_a", "run_b"]),
        columns=2,
    )


def _alike(axes: Axes, pairs: pd.DataFrame, last: int) -> None:
    for key, rows in pairs.groupby(["pair", "distant"]):
        mark = LOOKS[key]
        mean = rows.groupby("layer").cka.mean()
        axes.plot(mean.index, mean, mark.line, color=mark.color, lw=1.4, zorder=1)
        tips = [
            f"{r.a} and {r.b}, {r.split}, layer {r.layer}: CKA {r.cka:.3f}"
            for r in rows.itertuples()
        ]
        plot.scatter(axes, rows.layer + mark.offset, rows.cka, mark, tips)
    axes.set_ylim(min(0, pairs.cka.min() - 0.03), 1.02)
    plot.layer_axis(axes, last, first=1)
    axes.set_xlabel("Layer")
    axes.set_ylabel("Linear CKA (1: equal up to rotation)")


def _specific(axes: Axes, parts: pd.DataFrame, last: int) -> None:
    axes.axhline(0, color=INK, lw=0.8)
    for quantity, mark in LOSSES.items():
        plot.estimates(axes, parts[parts.quantity == quantity], mark)
    plot.layer_axis(axes, last, first=1)
    axes.set_ylabel("Transfer loss: base − AnB")
