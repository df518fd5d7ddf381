"""How many layers to keep, freeze and fine-tune: chosen on validation images, reported on test
images.

A *strategy* is a cell with its recipe: what all seeds have in common. Own and random layers are the
paper's controls, and no strategies. The best is the one with the highest mean validation accuracy,
so selection on validation makes it optimistic; its reported accuracy is on test images, which no
choice has seen.
"""

from dataclasses import dataclass

import pandas as pd

from analysis.page import MARGIN
from analysis.statistics.baseline import (
    ACCURACY,
    BALANCED,
    Majority,
)
from transferability.study.expand import RATE

BALANCES = ("balanced", "balanced_low", "balanced_high")
# columns that the tables of before do not have
LATER = ("validation_balanced", *BALANCES, "bound")
NO_TEST = (
    "There are no test images (dataset.test_fraction): accuracy is reported on the images that the "
    "best was chosen on, which is optimistic."
)
SIMULTANEOUS = "95% for all cheaper ones together"
# The four questions, a family of ways each: what it is for every n.
FAMILIES = {
    "base": "trained from scratch",
    "An.B": "linear classifier on n frozen layers, nothing above",
    "AnB": "n layers copied and frozen, the others random",
    "AnB+": "n layers copied, the others random, all fine-tuned",
    "AnB++": "the network AnB or An.B, trained, then all of it fine-tuned",
    "AnB~all": "all layers copied, the first n frozen",
}


@dataclass(frozen=True)
class Advice:
    """What a study of a pretrained base says, for one number of training images.

    Attributes:
        strategies: one row per strategy: its WAY, what it is in words, n, copied, frozen, short
            (nothing but a classifier above layer n), steps, longer (times as many as most),
            cost (operations of training, best = 1), seeds, validation (mean accuracy), test with
            test_low and test_high (of ``subset``, with its interval), behind, low, high (how far it
            is behind the best on the same images, by what was chosen by), apart (whether that
            interval leaves 0 out), run (of its first seed), validation_balanced, balanced,
            balanced_low, balanced_high (means over classes). By validation, the best first, of
            equals the cheapest.
        unfinished: how many more ways lack a network, and are left out.
        subset: the images that it is reported on: test, or validation where there are no others.
        optimism: by how much more the best falls from validation to test than all strategies do on
            average: the optimism of picking the best by validation.
        images_per_class: training images per class; None: all that there are.
        top: the layers below the classifier.
        chosen_by: accuracy or balanced accuracy: what "best" and "behind" are of.
        majority: the accuracy of always predicting the most frequent class; None of a single class.
        few: a sentence where the images of ``subset`` are too few.
        margin: how far behind the best a way may be and still count as good.
    """

    strategies: pd.DataFrame
    unfinished: int
    subset: str
    optimism: float
    images_per_class: int | None
    top: int
    chosen_by: str = ACCURACY
    majority: Majority | None = None
    few: str | None = None
    margin: float = MARGIN

    @property
    def sentences(self) -> list[str]:
        """What to do, what it is worth, and what would serve as well."""
        best = self.best
        covers = "images and seeds" if best.seeds > 1 else "images only: one seed"
        how = " by balanced accuracy" if self.chosen_by == BALANCED else ""
        said = [
            f"Of {len(self.strategies)} strategies, chosen on validation images{how}: "
            f"{best.words} ({best.cell}, recipe {best.recipe}). Its {self.subset} accuracy is "
            f"{best.test:.3f} [{best.test_low:.3f}, {best.test_high:.3f}] (95% interval over "
            f"{covers})."
        ]
        if self.majority:
            said.append(
                f"Its balanced accuracy, the mean over classes, is {best.balanced:.3f} "
                f"[{best.balanced_low:.3f}, {best.balanced_high:.3f}]. {self.majority.sentence}"
            )
        if self.few:
            said.append(self.few)
        if self.unfinished:
            said.append(f"{self.unfinished} more lack a network, and are left out.")
        beside = {"training from scratch": self.scratch, "a linear probe": self.probe}
        for name, other in beside.items():
            if other is not None and other.cell != best.cell:
                said.append(
                    f"It is {_points(other)} above {name} at its best ({other.words}; "
                    f"{other.cell}, {other[self.shown]:.3f})."
                )
        points = f"{100 * self.margin:g} {'point' if self.margin == 0.01 else 'points'}"
        if len(cheap := self.as_good_and_cheaper):
            row = cheap.iloc[0]
            said.append(
                f"Cheaper and as good (less than {points} behind, {SIMULTANEOUS}): {len(cheap)} of "
                f"them. The cheapest takes {row.cost:.0%} of its operations: {row.words} "
                f"({row.cell}, recipe {row.recipe}), {_points(row)} behind."
            )
        elif (self.strategies.cost < 1).any():
            said.append(f"Nothing cheaper is shown to be as good (less than {points} behind).")
        else:
            said.append("Nothing that was trained is cheaper.")
        if len(cheap := self.open_and_cheaper):
            row = cheap.iloc[0]
            said.append(
                f"Cheaper, with no evidence that they are as good or worse: {len(cheap)} of them. "
                f"The cheapest takes {row.cost:.0%} of its operations: {row.words} ({row.cell}, "
                f"recipe {row.recipe}), {_points(row)} behind."
            )
        if self.subset == "test":
            said.append(
                "Estimated optimism from selecting on validation accuracy: "
                f"{self.optimism:+.3f} (its fall from validation to test, beyond the mean of all "
                "strategies)."
            )
        else:
            said.append(NO_TEST)
        return said

    @property
    def settings(self) -> list[str]:
        """What trains the best way on all images, beside dataset, network, recipe and weights."""
        *_, rate = self.best.recipe.partition(RATE)
        return [
            "study=pretrained",
            "all_images=true",
            f"cell={self.best.cell}",
            f"recipe.steps={self.best.steps}",
            *([f"recipe.lr={rate}"] if rate else []),
            "seed=0",
        ]

    @property
    def best(self) -> pd.Series:
        return self.strategies.iloc[0]

    @property
    def shown(self) -> str:
        """The column of what was chosen by."""
        return "balanced" if self.chosen_by == BALANCED else "test"

    @property
    def as_good_and_cheaper(self) -> pd.DataFrame:
        """The ways that cost less and are not inferior: the interval, simultaneous over all that
        cost less, excludes that they are as much as the margin behind the best. The cheapest first.
        """
        rows = self.strategies[(self.strategies.bound < self.margin) & (self.strategies.cost < 1)]
        return rows.sort_values("cost", kind="stable")

    @property
    def open_and_cheaper(self) -> pd.DataFrame:
        """The strategies that cost less, with no evidence that they are as good or that they are
        worse. The cheapest first.
        """
        w = self.strategies
        return w[~w.apart & (w.bound >= self.margin) & (w.cost < 1)].sort_values(
            "cost", kind="stable"
        )

    @property
    def scratch(self) -> pd.Series | None:
        """The best way to train from scratch."""
        return first(self.family("base"))

    @property
    def probe(self) -> pd.Series | None:
        """The best linear classifier on frozen layers."""
        return first(self.family("An.B"))

    def family(self, name: str) -> pd.DataFrame:
        """The ways of one of FAMILIES, the best on validation first; the networks at the ends of
        AnB~all are of two.
        """
        w = self.strategies
        again = w.cell.str.endswith("++")
        chosen = {
            "base": w.copied + w.frozen == 0,
            "An.B": w.short & (w.frozen > 0),
            "AnB": ~w.short & (w.frozen > 0) & (w.frozen == w.copied),
            "AnB+": ~w.short & (w.copied > 0) & (w.frozen == 0) & ~again,
            "AnB++": again,
            "AnB~all": ~w.short & (w.copied == self.top) & ~again,
        }[name]
        n = w.frozen if name == "AnB~all" else w.n
        return w[chosen].assign(n=n[chosen])

    def curve(self, name: str) -> pd.DataFrame:
        """Of a family the best on validation at each n, by n; without what trained longer."""
        rows = self.family(name)
        return rows[rows.longer == 1].drop_duplicates("n").sort_values("n", kind="stable")


def first(ways: pd.DataFrame) -> pd.Series | None:
    """The first row; None of none."""
    return None if ways.empty else ways.iloc[0]


def _points(way: pd.Series) -> str:
    return f"{way.behind:.3f} [{way.low:.3f}, {way.high:.3f}]"


def words(row: pd.Series, short: bool, top: int) -> str:
    """What a way does, as one would tell a colleague."""
    if row.treatment == "base":
        return "train from scratch"
    base = f"{'layer' if row.copied == 1 else 'layers'} of the pretrained network"
    if row.cell.endswith("++"):
        above = "a linear classifier" if short else "randomly initialized layers"
        above = "a randomly initialized head" if not short and row.copied == top else above
        return f"keep {row.n} {base}, train {above} on them, then fine-tune all"
    if short:
        then = (
            "frozen, and a linear classifier" if row.frozen else "and a classifier, fine-tune all"
        )
        return f"keep {row.n} {base}, {then}"
    kept = f"copy all {top} {base}" if row.copied == top else f"copy {row.copied} {base}"
    frozen = f"freeze {row.frozen}" if row.frozen else "freeze none"
    rest = "" if row.copied == top else ", the others random"
    return f"{kept}, {frozen}{rest}"
