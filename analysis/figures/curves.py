"""Training and validation curves of every treatment, with one line per n."""

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes

from analysis.plotting import captions
from analysis.plotting.selection import MAIN
from analysis.plotting.style import INK, FigureSpec, Panel, Style, layer_colors, with_tips
from analysis.statistics.linear_model import DISTANT
from analysis.tables import StudyResults, varied_in
from transferability.tasks.splits import NATURAL_MANMADE

ORDER = [near + treatment for near in ("", DISTANT) for treatment in ("base", *MAIN, "RnB")]
# how a panel says what a study varies, where not by its name
NAMED = {
    "images_per_class": lambda images: f", {images:.0f} images per class" if images > 0 else ""
}
LOSSES = {"train_loss": "-", "val_loss": "--"}


def draw(tables: StudyResults) -> FigureSpec | str:
    if tables.curves.empty:
        return "not collected, as no network is finished, or its evaluations are not published"
    varied = varied_in(tables.networks)
    told = tables.networks[["run", "treatment", "n", "split_kind", "cell", *varied]]
    rows = tables.curves.merge(told, on="run")
    distant = (rows.split_kind == NATURAL_MANMADE).map({True: DISTANT, False: ""})
    rows["group"] = distant + rows.treatment
    for column in varied:
        rows["group"] += rows[column].map(NAMED.get(column, ", {}".format))
    once = rows.groupby("group").step.transform("nunique") == 1
    if once.all():
        return "not drawn, as every network was evaluated once"
    apart = f" {rows[once].run.nunique()} evaluated once have no curve." if once.any() else ""
    rows = rows[~once]
    marks, panels = _marks(tables.layers), []
    for name in sorted(set(rows.group), key=_place):
        own = rows[rows.group == name]
        title = (
            f"{name.removeprefix(DISTANT)}, natural/man-made" if name.startswith(DISTANT) else name
        )
        if varied:  # long names
            title = title.replace(", ", "\n", 1)
        accuracy, losses = (
            _lines(own, marks, {"val_top1": "-"}, "Validation top-1"),
            _lines(own, marks, LOSSES, "Loss (dashed: validation)"),
        )
        panels += [
            Panel(f"{title}: accuracy", accuracy, 4.2, 2.9),
            Panel(f"{title}: loss", losses, 4.2, 2.9),
        ]
    measured = ["train_loss", "val_loss", "val_top1"]
    return FigureSpec(
        "curves",
        f"Training and validation as they went: {captions.study(tables)}",
        f"{captions.counts(tables.networks)}{apart} A line is the mean over splits, directions "
        "and seeds for one n. The training loss is the mean since the evaluation before; it is "
        "that of the network in training (with dropout, if any).",
        panels,
        [marks[n] for n in sorted(set(rows.n))],
        rows.groupby(["group", "n", "step"], sort=False)[measured].mean().reset_index(),
        columns=4,
    )


def _place(group: str) -> tuple[int, str]:
    """The sort key of a treatment: its place in ORDER; other treatments follow by name."""
    kind = group.partition(", ")[0]
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), group)


def _lines(
    rows: pd.DataFrame, marks: dict[int, Style], columns: dict[str, str], label: str
) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        for n, own in rows.groupby("n"):
            mark = marks[n]
            for column, style in columns.items():
                mean = own.groupby("step")[column].mean()
                axes.plot(mean.index, mean, style, color=mark.color, lw=1.3)
                tips = [
                    f"n = {n}, step {step}: {column} {value:.3f}" for step, value in mean.items()
                ]
                dots = axes.scatter(mean.index, mean, s=9, color=mark.color)
                with_tips(dots, tips)
        axes.set_xlabel("Training step")
        axes.set_ylabel(label)
        axes.set_ylim(0, None)

    return paint


def _marks(layers: int) -> dict[int, Style]:
    """A mark for each n of networks with this number of layers."""
    colors = enumerate(layer_colors(layers - 1), start=1)
    return {0: Style("base", INK, "o")} | {n: Style(f"n = {n}", color, "o") for n, color in colors}
