"""Transferability metrics of a pretrained base, compared with measured accuracy."""

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.plotting import captions, plot
from analysis.plotting.style import BLUE, GREEN, ORANGE, TREATMENTS, FigureSpec, Panel, Style
from analysis.statistics.intervals import rank_correlation
from analysis.tables import StudyResults

LOOKS = {
    "k nearest neighbours": Style("k nearest neighbors: accuracy", BLUE, "s"),
    "LogME": Style("LogME: log evidence an image", GREEN, "^"),
    "regularized H-score": Style("regularized H-score", ORANGE, "v"),
}


def draw(tables: StudyResults) -> FigureSpec | str:
    if tables.predictors.empty:
        return "the study has no pretrained base"
    measured = tables.networks[tables.networks.treatment == "AnB"].dropna(subset="accuracy")
    measured = measured[measured.images_per_class.isna()]
    if measured.n.nunique() < 3:
        return (
            "networks with frozen layers of the pretrained base are finished at fewer than three n"
        )
    accuracy = measured.groupby(["n", "recipe"]).accuracy.mean().groupby("n").max()
    measure = tables.measure
    most = tables.predictors[tables.predictors.images == tables.predictors.images.max()]
    told = most.groupby(["predictor", "n"]).value.mean()
    table = pd.DataFrame(
        {"predictor": name} | _correlated(told[name], accuracy) for name in LOOKS if name in told
    )
    leep = f" LEEP of the whole base: {told['LEEP'].iloc[0]:.3f}." if "LEEP" in told else ""
    return FigureSpec(
        "predictors",
        f"Transferability metrics (computed without training) against measured accuracy: "
        f"{captions.study(tables)}",
        "Each predictor looks at the pooled output of layer n of the pretrained base, for "
        f"{int(most.images.max())} training images of the task (k nearest neighbors "
        "also for its validation images); more is better. Red, on the right-hand scale: the "
        f"measured {measure} accuracy of AnB, at each n with the recipe that is best, "
        f"{len(measured)} networks. In the titles Spearman's rank correlation over the "
        f"{len(accuracy)} measured n, with its 95% interval.{leep}",
        [
            Panel(
                _title(row),
                partial(
                    _beside, told=told[row.predictor], accuracy=accuracy, row=row, measure=measure
                ),
            )
            for row in table.itertuples()
        ],
        [*(LOOKS[name] for name in table.predictor), TREATMENTS["AnB"]],
        table,
        columns=3,
    )


def _correlated(told: pd.Series, accuracy: pd.Series) -> dict[str, float]:
    both = told.index.intersection(accuracy.index)
    rho, low, high = rank_correlation(told[both].to_numpy(), accuracy[both].to_numpy())
    return {"layers": len(both), "rank correlation": rho, "low": low, "high": high}


def _title(row: Any) -> str:
    rho, low, high = row[3:6]
    if rho != rho:
        return f"{row.predictor}: no rank correlation"
    interval = f" [{low:.2f}, {high:.2f}]" if low == low else ""
    return f"{row.predictor}: {rho:.2f}{interval}"


def _beside(axes: Axes, told: pd.Series, accuracy: pd.Series, row: Any, measure: str) -> None:
    mark, theirs = LOOKS[row.predictor], TREATMENTS["AnB"]
    axes.plot(told.index, told, color=mark.color, lw=1.3, zorder=2)
    tips = [f"{row.predictor}, n = {n}: {value:.3f}" for n, value in told.items()]
    plot.scatter(axes, told.index, told, mark, tips)
    right = axes.twinx()
    right.plot(accuracy.index, accuracy, color=theirs.color, lw=1.3, zorder=2)
    tips = [f"AnB, n = {n}: {value:.3f}" for n, value in accuracy.items()]
    plot.scatter(right, accuracy.index, accuracy, theirs, tips)
    right.grid(False)
    right.set_ylabel(f"Measured {measure} accuracy")
    axes.set_ylabel(row.predictor)
    plot.layer_axis(axes, told.index.max(), first=1)
    axes.set_xlabel("Layer n")
