"""Advice within a time limit, compared with other tools: tables, and accuracy against time.

python -m analysis.tools FOLDER    prints the tables and answers of FOLDER/tools.csv,
                                   which experiments.benchmarks.advice writes, and
                                   draws FOLDER/tools.{pdf,svg,png}
"""

from analysis.command import command

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(command(__spec__.name, __doc__, draws=True))

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.page import Page
from analysis.plotting import plot
from analysis.plotting.layout import write
from analysis.plotting.style import KINDS_OF_NETWORK, FigureSpec, Panel, Style
from analysis.statistics.over_images import accuracy_interval, difference_interval
from transferability.errors import UserError
from transferability.files import remove_leftovers

FILE = "tools.csv"
OWN = "experiments.advise"
LABELS = {  # tool -> its label in the figure
    OWN: "experiments.advise",
    "tutorial, head then all": "tutorials' script: new head, then all layers",
    "tutorial, head": "tutorials' script: new head only",
    "fastai": "fastai's fine_tune at its default rate",
    "fastai, base_lr=1e-2": "fastai's fine_tune at 1e-2",
    "fastai, lr_find": "fastai's fine_tune at lr_find's rate",
}
PROBLEM = ["name", "images", "weights", "pixels"]  # results with equal values are comparable


def read(path: Path) -> pd.DataFrame:
    """The stored results, a row per tool, time and seed; empty if there is no file. The column
    ``right`` has a 1 or 0 per test image.
    """
    texts = {key: str for key in ("images", "weights", "right")}
    return pd.read_csv(path, dtype=texts) if path.exists() else pd.DataFrame()


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """A row per dataset, time and tool: ``accuracy`` on test images, and ``behind``, the accuracy
    of ``experiments.advise`` minus it on the same images and seeds. Each has the ends ``low`` and
    ``high`` of its 95% interval over test images and, if there are several, seeds.
    """
    rows = []
    for key, one in results.groupby([*PROBLEM, "minutes"], sort=False):
        right = {tool: _right(own) for tool, own in one.groupby("tool")}
        for tool in filter(right.__contains__, LABELS):
            own = right[tool]
            accuracy, low, high = accuracy_interval(own.to_numpy())
            row = dict(zip([*PROBLEM, "minutes"], key, strict=True))
            row |= {"tool": tool, "accuracy": accuracy, "low": low, "high": high}
            row |= {"seeds": len(own), "test images": own.shape[1]}
            row["seconds"] = one[one.tool == tool].seconds.mean()
            shared = own.index.intersection(right.get(OWN, own[:0]).index)
            if tool != OWN and len(shared):
                pairs = (right[OWN].loc[shared] - own.loc[shared]).to_numpy()
                names = ("behind", "behind low", "behind high")
                row |= dict(zip(names, difference_interval(pairs), strict=True))
            rows.append(row)
    return pd.DataFrame(rows).sort_values([*PROBLEM, "minutes"], kind="stable", ignore_index=True)


def _right(rows: pd.DataFrame) -> pd.DataFrame:
    """Correct predictions by seed and test image, 1.0 or 0.0."""
    return pd.DataFrame([list(map(float, r)) for r in rows.right], index=rows.seed)


def print_tables(table: pd.DataFrame) -> None:
    """Print one table per dataset and time."""
    for (name, *_, minutes), rows in table.groupby([*PROBLEM, "minutes"], sort=False):
        print(f"\n{name}: {minutes:g} minutes, {rows['test images'].iloc[0]} test images")
        said = {
            "": rows.tool,
            "right": _said(rows, ["accuracy", "low", "high"], ""),
            "behind ours": _said(rows, ["behind", "behind low", "behind high"], "+"),
            "seeds": rows.seeds,
            "s": rows.seconds.round().astype(int),
        }
        print(pd.DataFrame(said).to_string(index=False))
    print(
        "\nBrackets: 95%, over test images, and over seeds where there are several. Behind ours: "
        "on the same images and seeds."
    )


def print_answers(results: pd.DataFrame) -> None:
    """Print the answer of ``experiments.advise`` for each dataset, time and seed."""
    own = results[results.tool == OWN].sort_values([*PROBLEM, "minutes", "seed"])
    if own.empty:
        return
    accuracies = _right(own).mean(axis=1).to_numpy()
    answers = own[["name", "minutes", "seed", "seconds", "did", "validation"]]
    print(f"\nThe answers of {OWN}:")
    print(answers.assign(test=accuracies.round(4)).to_string(index=False))


def _said(rows: pd.DataFrame, columns: list[str], sign: str) -> list[str]:
    """The text of each row's value and interval; empty if the value is missing."""
    return [
        "" if np.isnan(value) else f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
        for value, low, high in rows.reindex(columns=columns).to_numpy(dtype=float)
    ]


def drawing(table: pd.DataFrame) -> FigureSpec:
    looks = {
        tool: Style(LABELS[tool], color, marker, line=line, size=40 if tool == OWN else 26)
        for tool, (color, marker, line) in zip(LABELS, KINDS_OF_NETWORK, strict=True)
        if (table.tool == tool).any()
    }
    times = sorted(set(table.minutes))
    panels = [
        Panel(
            f"{name}: {rows['test images'].iloc[0]} test images",
            partial(_curves, rows=rows, looks=looks, times=times),
        )
        for (name, *_), rows in table.groupby(PROBLEM, sort=False)
    ]
    seeds = sorted(set(table.seeds))
    several = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    caption = (
        f"Test accuracy after equal processor time on one thread; a minute is 100 s. The same "
        f"weights, images and input size for every tool. Means of {several} seeds (open marks: one "
        "seed). Bars: 95%, over test images and, where there are several, seeds; not corrected for "
        "their number. Marks of one time stand side by side."
    )
    title = "Advice within a time, and what users pick instead"
    return FigureSpec("tools", title, caption, panels, [*looks.values()], table, columns=3)


def _curves(axes: Axes, rows: pd.DataFrame, looks: dict[str, Style], times: list[float]) -> None:
    for tool, shift in plot.side_by_side(looks, 0.05).items():
        own, mark = rows[rows.tool == tool], looks[tool]
        x = own.minutes * np.exp(shift)  # on a logarithmic axis
        axes.plot(x, own.accuracy, mark.line, color=mark.color, lw=1.8 if tool == OWN else 1.1)
        axes.vlines(x, own.low, own.high, color=mark.color, lw=1, zorder=2)
        for filled, some in own.groupby(own.seeds > 1):
            tips = [
                f"{tool}, {r.minutes:g} minutes: {r.accuracy:.3f} [{r.low:.3f}, {r.high:.3f}], "
                f"{r.seeds} seeds"
                for r in some.itertuples()
            ]
            style = Style("", mark.color, mark.marker, bool(filled), size=mark.size)
            plot.scatter(axes, x[some.index], some.accuracy, style, tips)
    axes.set_xscale("log")
    axes.set_xlim(times[0] * 0.75, times[-1] * 1.33)
    axes.set_xticks(times, [f"{minutes:g}" for minutes in times])
    axes.minorticks_off()
    axes.set_xlabel("Minutes")
    axes.set_ylabel("Top-1 accuracy on test images")


def main(folder: Path, page: Page) -> None:
    results = read(folder / FILE)
    if results.empty:
        raise UserError(f"{folder} has no {FILE}, which experiments.benchmarks.advice writes")
    table = summary(results)
    print_tables(table)
    print_answers(results)
    remove_leftovers(folder)
    for path in write(drawing(table), folder, page):
        print(path)
