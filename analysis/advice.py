"""How many layers to keep, freeze and fine-tune: chosen on validation images, reported on test
images.

A *way* to train is a cell with its recipe: what all seeds have in common. Own and random layers are
the paper's controls, and no ways. The best is the one with the highest mean validation accuracy, so
its validation accuracy flatters it; what is said of it comes of test images, which no choice has
seen.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.paired import crossed
from analysis.tables import Tables

WAY = ["cell", "recipe"]


@dataclass(frozen=True)
class Advice:
    """What a study of a given base says.

    Attributes:
        ways: a row a way: its WAY, what it is in words, whether it is a linear probe, cost
            (operations of training, best = 1), seeds, validation and test (mean accuracies; of
            ``part``), behind, low, high (how far it is behind the best on the same images), apart
            (whether the interval leaves 0 out), run (of its first seed). By validation accuracy,
            the best first.
        unfinished: how many more ways lack a network, and are left out.
        part: the images that it is reported on: test, or validation where there are no others.
        interval: of the accuracy of the best.
        optimism: by how much more the best falls from validation to test than all ways do on
            average: what picking the best by validation flatters it by.
    """

    ways: pd.DataFrame
    unfinished: int
    part: str
    interval: tuple[float, float, float]
    optimism: float

    @property
    def sentences(self) -> list[str]:
        """What to do, what it is worth, and what would serve as well."""
        best, (value, low, high) = self.best, self.interval
        covers = "images and seeds" if best.seeds > 1 else "images only: one seed"
        said = [
            f"Of {len(self.ways)} ways to train, chosen on validation images: {best.words} "
            f"({best.cell}, recipe {best.recipe}). It has {value:.3f} [{low:.3f}, {high:.3f}] of "
            f"the {self.part} images right (95%, over {covers})."
        ]
        if self.unfinished:
            said.append(f"{self.unfinished} more lack a network, and are left out.")
        beside = {"training from scratch": self.scratch, "a linear probe": self.probe}
        for name, other in beside.items():
            if other is not None and other.cell != best.cell:
                said.append(
                    f"It is {_points(other)} above {name} at its best ({other.words}; "
                    f"{other.cell}, {other.test:.3f})."
                )
        if len(cheap := self.as_good_and_cheaper):
            row = cheap.iloc[0]
            said.append(
                f"Cheaper, and not to be told apart from it: {len(cheap)} of them. The "
                f"cheapest takes {row.cost:.0%} of its operations: {row.words} ({row.cell}, recipe "
                f"{row.recipe}), {_points(row)} behind."
            )
        else:
            said.append("Nothing cheaper is as good: each can be told apart from it.")
        if self.part == "test":
            said.append(
                "What choosing it by its validation accuracy flatters it by: "
                f"{self.optimism:+.3f} (its fall from validation to test, beyond the mean of all "
                "ways)."
            )
        else:
            said.append(
                "There are no test images (dataset.test_fraction): it is reported on the images "
                "that it was chosen on, which flatters it."
            )
        return said

    @property
    def best(self) -> pd.Series:
        return self.ways.iloc[0]

    @property
    def as_good_and_cheaper(self) -> pd.DataFrame:
        """The ways that cannot be told apart from the best and cost less, the cheapest first."""
        rows = self.ways[~self.ways.apart & (self.ways.cost < 1)]
        return rows.sort_values("cost", kind="stable")

    @property
    def scratch(self) -> pd.Series | None:
        """The best way to train from scratch."""
        return _first(self.ways[self.ways.cell.str.startswith("base")])

    @property
    def probe(self) -> pd.Series | None:
        """The best linear classifier on frozen layers."""
        return _first(self.ways[self.ways.probe])


def _first(ways: pd.DataFrame) -> pd.Series | None:
    return None if ways.empty else ways.iloc[0]


def _points(way: pd.Series) -> str:
    return f"{way.behind:.3f} [{way.low:.3f}, {way.high:.3f}]"


def advise(tables: Tables) -> Advice | None:
    """The advice of a study of a given base for one task; None of any other study, or where
    predictions of its networks were not kept.
    """
    networks = tables.networks
    if "given" not in tables.about or "right" not in networks or networks.task.nunique() > 1:
        return None
    asked = networks[(networks.treatment == "base") | (networks.source == "A")]
    whole = asked.images_per_class.isna()  # of a study of little data the networks that had all
    asked = asked[whole] if whole.any() else asked
    seeds = asked.seed.nunique()
    finished = asked.groupby(WAY).right.transform("count") == seeds
    done = asked[finished]
    if done.treatment.nunique() < 2:
        return None
    part = "test" if "test_top1" in done and done.test_top1.notna().all() else "validation"
    ways = []
    for _, rows in done.groupby(WAY, dropna=False, sort=False):
        right = {
            row.seed: tables.right(row.run, row.task, part).astype(float)
            for row in rows.itertuples()
        }
        ways.append((_described(rows, right, tables), right))
    ways.sort(key=lambda way: -way[0]["validation"])  # stable: of equals the first of the study
    of_best = ways[0][1]
    for row, right in ways:
        pairs = np.stack([of_best[seed] - right[seed] for seed in of_best])
        row["behind"], row["low"], row["high"] = crossed(pairs)
        row["apart"] = not row["low"] <= 0 <= row["high"]
    frame = pd.DataFrame([row for row, _ in ways])
    frame["cost"] /= frame.cost[0]
    falls = frame.validation - frame.test
    interval = crossed(np.stack(list(of_best.values())))
    left = len(asked[~finished].drop_duplicates(WAY))
    return Advice(frame, left, part, interval, float(falls[0] - falls.mean()))


def _described(rows: pd.DataFrame, right: dict[int, np.ndarray], tables: Tables) -> dict:
    """A way's row, before it is compared."""
    first = rows.iloc[0]
    costs, short = tables.about["layer_costs"], "." in first.cell
    top = first.n if short else len(costs)
    trained = range(first.frozen, top)
    return {
        **first[WAY],
        "words": _words(first, short, len(costs) - 1),
        "probe": bool(short and first.frozen),
        "cost": first.images * (sum(costs[:top]) + 2 * sum(costs[i] for i in trained)),
        "seeds": len(right),
        "validation": rows.accuracy.mean(),
        "test": float(np.mean([own.mean() for own in right.values()])),
        "run": first.run,
    }


def _words(row: pd.Series, short: bool, top: int) -> str:
    """What a way does, as one would tell a colleague."""
    if row.treatment == "base":
        return "train from scratch"
    base = "layers of the given network"
    if short:
        then = (
            "frozen, and a linear classifier" if row.frozen else "and a classifier, fine-tune all"
        )
        return f"keep {row.n} {base}, {then}"
    kept = f"copy all {top} {base}" if row.copied == top else f"copy {row.copied} {base}"
    frozen = f"freeze {row.frozen}" if row.frozen else "freeze none"
    rest = "" if row.copied == top else ", the others fresh"
    return f"{kept}, {frozen}{rest}"
