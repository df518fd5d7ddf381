"""How many layers to keep, freeze and fine-tune: chosen on validation images, reported on test
images.

A *strategy* is a cell with its recipe, shared by all seeds. Same-task layers and random filters are
the paper's controls, not strategies. The best strategy has the highest mean validation accuracy,
which is therefore optimistic. Its reported accuracy is on test images, which no choice uses.
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
# columns that older tables lack
LATER = ("validation_balanced", *BALANCES, "bound")
NO_TEST = (
    "There are no test images (dataset.test_fraction): accuracy is reported on the images that the "
    "best was chosen on, which is optimistic."
)
SIMULTANEOUS = "95% for all cheaper ones together"
# families of strategies: what a strategy is at each n
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
    """The advice of a study of a pretrained base, for one training-set size.

    Attributes:
        strategies: one row per strategy: cell, recipe, words (a description), n, copied, frozen,
            short (only a classifier above layer n), steps, longer (training length relative to most
            strategies), cost (training operations, best = 1), seeds, validation (mean accuracy),
            test with test_low and test_high (accuracy on ``subset`` with its interval), behind,
            low, high (how far it is behind the best on the same images, in ``chosen_by``), bound
            (the upper end of the simultaneous interval of behind), apart (whether the interval from
            low to high excludes 0), run (of its first seed), validation_balanced, balanced,
            balanced_low, balanced_high (balanced accuracies). Sorted by ``chosen_by`` on validation
            images, the best first; ties go to the cheapest.
        unfinished: the number of strategies that lack a network and are left out.
        subset: the images of the reported accuracy: test, or validation without test images.
        optimism: the fall of the best from validation to test minus the mean fall of all
            strategies: the optimism of choosing on validation images.
        images_per_class: training images per class; None: all.
        top: the number of layers below the classifier.
        chosen_by: accuracy or balanced accuracy, the measure of "best" and "behind".
        majority: always predicting the most frequent class; None if there is a single class.
        few: a sentence if the images of ``subset`` are too few.
        margin: how far behind the best a strategy may be and still count as good.
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
        """The best strategy, its accuracy, and cheaper strategies that are as good."""
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
        """The settings for training the best strategy on all images, in addition to dataset,
        network, recipe and weights.
        """
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
        """The column of the measure that was chosen by."""
        return "balanced" if self.chosen_by == BALANCED else "test"

    @property
    def as_good_and_cheaper(self) -> pd.DataFrame:
        """The strategies that cost less and are not inferior, the cheapest first.

        The interval, simultaneous over all that cost less, excludes being behind the best by the
        margin or more.
        """
        rows = self.strategies[(self.strategies.bound < self.margin) & (self.strategies.cost < 1)]
        return rows.sort_values("cost", kind="stable")

    @property
    def open_and_cheaper(self) -> pd.DataFrame:
        """The strategies that cost less, without evidence that they are as good or worse, the
        cheapest first.
        """
        w = self.strategies
        return w[~w.apart & (w.bound >= self.margin) & (w.cost < 1)].sort_values(
            "cost", kind="stable"
        )

    @property
    def scratch(self) -> pd.Series | None:
        """The best strategy that trains from scratch."""
        return first(self.family("base"))

    @property
    def probe(self) -> pd.Series | None:
        """The best linear classifier on frozen layers."""
        return first(self.family("An.B"))

    def family(self, name: str) -> pd.DataFrame:
        """The strategies of one of FAMILIES, the best on validation first. Those at the ends of
        AnB~all belong to two families.
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
        """The best strategy of a family on validation at each n, by n; only those of the most
        common training length.
        """
        rows = self.family(name)
        return rows[rows.longer == 1].drop_duplicates("n").sort_values("n", kind="stable")


def first(ways: pd.DataFrame) -> pd.Series | None:
    """The first row; None if there is none."""
    return None if ways.empty else ways.iloc[0]


def _points(way: pd.Series) -> str:
    return f"{way.behind:.3f} [{way.low:.3f}, {way.high:.3f}]"


def words(row: pd.Series, short: bool, top: int) -> str:
    """A description of a strategy in plain words."""
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
