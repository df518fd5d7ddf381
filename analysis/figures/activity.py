"""How far random filters preserve differences between images, and dead units in the layers above
them.
"""

import pandas as pd
from matplotlib.axes import Axes

from analysis.plotting import captions, plot
from analysis.plotting.style import FAINT, KINDS_OF_NETWORK, FigureSpec, Panel, Style, assign_styles
from analysis.statistics.linear_model import BLOCK
from analysis.tables import StudyResults, kinds

MEASURED = ["cosine of layer n", "silent", "train_loss", "accuracy"]


def draw(tables: StudyResults) -> FigureSpec | str:
    if tables.activity.empty:
        return (
            "not collected, as no network with random filters is finished, "
            "or its weights are not published"
        )
    networks = tables.networks.drop(columns="images")
    rows = tables.activity.merge(networks.assign(kind=kinds(networks)), on="run")
    each = _each_network(rows)
    looks = assign_styles(rows.kind.unique(), KINDS_OF_NETWORK, "kinds of network")
    if len(looks) > 1:
        marks = {kind: Style(kind, color, marker) for kind, (color, marker, _) in looks.items()}
        what = f"{len(marks)} kinds of network ({tables.dataset})"
    else:
        marks = {
            kind: Style("random filters", color, marker)
            for kind, (color, marker, _) in looks.items()
        }
        what = captions.study(tables)
    return FigureSpec(
        "activity",
        f"What random filters leave for the layers above: {what}",
        "Left: the outputs of random layers for two different images, as the cosine between them "
        "(1: a layer gives all images one direction), a mean over pairs of "
        f"{int(rows.images.max())} validation images of the task; a mark is the random layers of "
        "one task and seed (the same for all kinds with one initialization and normalization), a "
        "solid line their mean, a dashed line that of the trained bases. Right: the share of "
        "values of a trained hidden layer that are 0 for every one of these images, in the layer "
        f"where it is largest; a mark is one network. Above {tables.layers - 1} random layers "
        "there is only the classifier, which has no dead units.",
        [
            Panel(
                "How similar are the outputs of random layers for different images?",
                lambda axes: _alike(axes, rows, marks),
            ),
            Panel(
                "Does what is trained above them respond?",
                lambda axes: _silent(axes, each, marks, tables.measure),
            ),
        ],
        [*marks.values(), Style("dashed: the trained bases", FAINT, line="--")],
        pd.concat(
            [
                each[each.kind == kind].groupby(["kind", "n"])[MEASURED].mean().reset_index()
                for kind in marks
            ]
        ),
        columns=2,
    )


def _each_network(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per network: the mean cosine between images in layer n, and the largest share of dead
    units in a trained layer.
    """
    each = rows.drop_duplicates("run").set_index("run").drop(columns=["layer", "cosine", "images"])
    each["silent"] = rows[rows.layer > rows.n].groupby("run").silent.max()
    each["cosine of layer n"] = rows[rows.layer == rows.n].set_index("run").cosine
    return each


def _alike(axes: Axes, rows: pd.DataFrame, marks: dict[str, Style]) -> None:
    random = rows[(rows.treatment == "RnB") & (rows.layer <= rows.n)].sort_values(
        "n", kind="stable"
    )
    # a task's random layers are the same for every n
    random = random.drop_duplicates([*BLOCK, "layer"], keep="last")
    for kind, shift in plot.side_by_side(marks, 0.08).items():
        mark = marks[kind]
        own = random[random.kind == kind]
        bases = rows[(rows.kind == kind) & (rows.treatment == "base")]
        for part, line in ((own, "-"), (bases, "--")):
            mean = part.groupby("layer").cosine.mean()
            axes.plot(mean.index + shift, mean, line, color=mark.color, lw=1.3, zorder=2)
        tips = [
            f"{r.kind}, {r.split}, task {r.target}, seed {r.seed}, layer {r.layer}: {r.cosine:.3f}"
            for r in own.itertuples()
        ]
        plot.scatter(axes, own.layer + shift, own.cosine, mark, tips)
    plot.layer_axis(axes, rows.layer.max(), first=1)
    axes.set_xlabel("Layer")
    axes.set_ylabel("Mean cosine between two images' outputs")


def _silent(axes: Axes, each: pd.DataFrame, marks: dict[str, Style], measure: str) -> None:
    for kind, shift in plot.side_by_side(marks, 0.08).items():
        mark = marks[kind]
        own = each[(each.kind == kind) & each.silent.notna()]
        mean = own.groupby("n").silent.mean()
        axes.plot(mean.index + shift, mean, color=mark.color, lw=1.3, zorder=2)
        tips = [
            (
                f"{r.cell}, {r.kind}, {r.split}, seed {r.seed}: "
                f"{r.silent:.3f} silent, {measure} {r.accuracy:.3f}"
            )
            for r in own.itertuples()
        ]
        plot.scatter(axes, own.n + shift, own.silent, mark, tips)
    axes.set_ylim(-0.03, 1.03)
    plot.layer_axis(axes, each.n.max())
    axes.set_xlabel("Random layers below (0: base)")
    axes.set_ylabel("Silent share of the most silent trained layer")
