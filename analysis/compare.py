"""Two studies of the same networks that differ in a setting: their curves in one figure, and the difference.

python -m analysis.compare FIRST SECOND OUT      two folders of analysis.collect; OUT/comparison.{csv,pdf,svg,png}

Networks are compared one by one: the same split, cell, seed and images a class in both studies.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from analysis import draw
from analysis.style import INK, TREATMENTS, Drawing, Mark, Panel, compose, save
from analysis.tables import Tables, fail, write_csv
from transferability.errors import UserError
from transferability.store import remove_leftovers

KEYS = ["split", "split_kind", "cell", "treatment", "target", "n", "seed", "images_per_class"]


def pair(first: Tables, second: Tables) -> pd.DataFrame:
    """The networks that are finished in both studies, ``accuracy_1`` and ``accuracy_2``, and their ``difference``.

    Raises:
        UserError: there are none.
    """
    sides = [t.networks[t.networks.accuracy.notna()][[*KEYS, "classes", "accuracy"]] for t in (first, second)]
    both = sides[0].merge(sides[1], on=[*KEYS, "classes"], suffixes=("_1", "_2"))
    if both.empty:
        raise UserError("the two studies have no finished network in common")
    kinds, treatments = ["random", "user", "natural-manmade", "all"], [*TREATMENTS, *sorted(set(both.treatment))]
    both["order"] = both.split_kind.map(kinds.index) * len(treatments) + both.treatment.map(treatments.index)
    both = both.sort_values(["order", "n", "split", "target", "seed"])
    return both.assign(difference=both.accuracy_2 - both.accuracy_1)


def differing(first: Tables, second: Tables) -> tuple[str, str]:
    """What differs in the settings of the two studies, as each has it."""
    words = ([], [])
    for part in ("dataset", "network", "recipe"):
        one, other = first.about[part], second.about[part]
        for key in [k for k in {**one, **other} if k not in ("name", "class_names") and one.get(k) != other.get(k)]:
            for side, values in zip(words, (one, other), strict=True):
                side.append(f"{part}.{key} {values.get(key)}")
    return (", ".join(words[0]) or "first", ", ".join(words[1]) or "second")


def summary(both: pd.DataFrame) -> pd.DataFrame:
    """For each kind of split and treatment: networks, mean difference, its 95% interval, and the spread.

    Student's t over networks. Networks that start from one base share its luck: read a small difference with care.
    """
    rows = []
    for (kind, treatment), own in both.groupby(["split_kind", "treatment"], sort=False):
        mean, spread, count = own.difference.mean(), own.difference.std(), len(own)
        half = stats.t.ppf(0.975, count - 1) * spread / np.sqrt(count) if count > 1 else np.nan
        means = {"mean of the first": own.accuracy_1.mean(), "mean of the second": own.accuracy_2.mean()}
        interval = {"difference": mean, "low": mean - half, "high": mean + half}
        rows.append({"splits": kind, "treatment": treatment, "networks": count, **means, **interval, "sd": spread})
    return pd.DataFrame(rows)


def drawing(first: Tables, second: Tables) -> Drawing:
    """A panel a treatment: both studies against n."""
    both, names = pair(first, second), differing(first, second)
    table = summary(both)
    marks = [Mark(names[0], INK, "o"), Mark(names[1], "#d95f02", "s", filled=False, line="--")]
    low, high = both[["accuracy_1", "accuracy_2"]].min().min(), both[["accuracy_1", "accuracy_2"]].max().max()

    def panel(kind: str, treatment: str) -> Panel:
        rows = both[(both.split_kind == kind) & both.treatment.isin(["base", treatment])]

        def paint(axes: Axes) -> None:
            for column, mark, shift in (("accuracy_1", marks[0], -0.08), ("accuracy_2", marks[1], 0.08)):
                line = rows.groupby("n")[column].mean()
                axes.plot(line.index + shift, line, mark.line, color=mark.colour, lw=1.5, zorder=2)
                draw.scatter(axes, rows.n + shift, rows[column], mark, list(rows.cell))
            draw.layer_axis(axes, both.n.max())
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
            axes.set_ylabel("Top-1 accuracy")

        splits = ", ".join(rows.split.unique())
        return Panel(f"{TREATMENTS[treatment].label if treatment in TREATMENTS else treatment}\n({splits})", paint)

    kinds = both[both.treatment != "base"][["split_kind", "treatment"]].drop_duplicates()
    panels = [panel(*row) for row in kinds.itertuples(index=False)]
    spread = both.difference.std()
    return Drawing(
        "comparison",
        f"{first.about['dataset']['name']}: {names[0]} against {names[1]}",
        f"{len(both)} networks in each study, the same splits, cells and seeds; a mark is one, lines are means, n = 0 "
        f"is the base. Mean difference (second minus first) {both.difference.mean():+.4f}, standard deviation between "
        f"networks {spread:.4f}. Accuracy: {first.about['statistic_label']}.",
        panels,
        marks,
        table,
        columns=3,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, what in (("first", "a folder of analysis.collect"), ("second", "another"), ("out", "where results go")):
        parser.add_argument(name, type=Path, help=what)
    options = parser.parse_args()
    try:
        made = drawing(Tables.read(options.first), Tables.read(options.second))
        options.out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(options.out)
        write_csv(options.out / "comparison.csv", made.table)
        paths = save(compose(made), options.out / made.name)
    except UserError as error:
        fail(error)
    print(made.table.to_string(index=False, float_format="%.4f"))
    for path in paths:
        print(path)


if __name__ == "__main__":
    main()
