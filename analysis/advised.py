"""The answer of ``experiments.advise``, from the finished networks of a race.

A *strategy* is a cell with a recipe, over all seeds. The best strategy has the highest mean
validation accuracy; its reported accuracy is that on test images, if there are any.
"""

from dataclasses import dataclass

import pandas as pd

from analysis.advice import NO_TEST, SIMULTANEOUS, first
from analysis.advised_figures import ARM
from analysis.page import MARGIN
from analysis.statistics.baseline import Majority
from transferability.study.spec import RunSpec


@dataclass(frozen=True)
class Answer:
    """The answer from the networks that are finished.

    Attributes:
        strategies: a row per strategy, by decreasing validation accuracy, then increasing cost:
            cell, words (a description), n, steps, rate, optimizer, seeds, validation, test
            (accuracy on ``subset``), low, high, behind (the best minus the strategy, on the same
            images), behind_low, behind_high, bound (the upper end of an interval that is
            simultaneous over all strategies that cost less), cost (operations of training, best =
            1), seconds (of training, all seeds), run (of the first seed), probe (whether a linear
            probe).
        interval: 95% interval of the best that covers the choice (``covering_choice``), at least
            as wide as that of the best alone.
        subset: the images of all reported accuracies: test, or validation if there are no others.
        majority: the accuracy of always predicting the most frequent class.
        few: a sentence if the images of ``subset`` are too few; else None.
        confused: the confusion matrix, a row per true class and a column per predicted class; None
            if there are many classes.
        spec: the first seed of the best strategy.
        layers: the number of layers below the classifier.
        depths: a row per depth: n, validation and test accuracy of the linear probe, and
            transferability metrics (``measurements.depths``).
        ended: whether the race was over before the time was up, on all images.
        longest: the most steps of a network in the race.
    """

    strategies: pd.DataFrame
    interval: tuple[float, float]
    subset: str
    majority: Majority
    few: str | None
    confused: pd.DataFrame | None
    spec: RunSpec
    layers: int
    depths: pd.DataFrame
    ended: bool
    longest: int

    @property
    def best(self) -> pd.Series:
        return self.strategies.iloc[0]

    @property
    def leader(self) -> str:
        return f"{name(self.best)}, validation accuracy {self.best.validation:.3f}"

    @property
    def probe(self) -> pd.Series | None:
        """The best linear probe."""
        return first(self.strategies[self.strategies.probe])

    @property
    def scratch(self) -> pd.Series | None:
        """The best network trained from scratch."""
        return first(self.strategies[self.strategies.n == 0])

    @property
    def sentences(self) -> list[str]:
        """The advice with its accuracy, limits, alternatives, and the effect of more time."""
        best, (low, high), count = self.best, self.interval, len(self.strategies)
        what = best.words[0].upper() + best.words[1:]
        chosen = f" and the choice among {count} strategies" if count > 1 else ""
        return [
            f"{what} ({name(best)}). Its {self.subset} accuracy is {best.test:.3f} [{low:.3f}, "
            f"{high:.3f}] (95% interval over images{chosen}; {_seeds(best.seeds)}).",
            self.majority.sentence,
            *self.limits,
            *self.beside,
            self.cheaper,
            self.more_time,
        ]

    @property
    def beside(self) -> list[str]:
        """How far the best strategy is above the best linear probe and training from scratch."""
        said, probe, scratch = list[str](), self.probe, self.scratch
        if probe is not None and probe.run != self.best.run:
            said.append(f"It is {_apart(probe, 'linear probe')} ({name(probe)}: {probe.test:.3f}).")
        if scratch is None:
            return [*said, "Nothing was trained from scratch."]
        if scratch.run == self.best.run:
            return said
        beside = f"{name(scratch)}: {scratch.test:.3f}"
        s = self.strategies
        longest, most = s.steps[s.n == 0].max(), s.steps[~s.probe].max()
        if longest < most:  # the best may be a shorter one
            return [
                *said,
                f"Training from scratch had time for only {longest} steps, of up to {most}: too "
                f"few to compare (at its best, {beside}).",
            ]
        return [*said, f"It is {_apart(scratch, 'training from scratch')} ({beside})."]

    @property
    def limits(self) -> list[str]:
        """Why the answer is less certain than its interval: few images, or none for a test."""
        said = []
        if size := self.spec.images_per_class:
            said.append(
                f"Every network was trained on the first {size} training images of each class, "
                "which is what the time allowed: more minutes use more."
            )
        if self.subset != "test":
            said.append(NO_TEST)
        if self.few:
            said.append(self.few)
        return said

    @property
    def cheaper(self) -> str:
        """A sentence on a strategy that costs less and is as good."""
        behind = f"less than {100 * MARGIN:g} point behind"
        if not (self.strategies.cost < 1).any():
            return "Nothing that was trained is cheaper."
        if (cheap := self.cheapest) is None:
            return f"Nothing cheaper is shown to be as good ({behind})."
        return (
            f"Cheaper and as good ({behind}, {SIMULTANEOUS}): {cheap.words} ({name(cheap)}), at "
            f"{cheap.cost:.0%} of its operations."
        )

    @property
    def cheapest(self) -> pd.Series | None:
        """The cheapest strategy that costs less than the best and is non-inferior."""
        s = self.strategies
        rows = s[(s.bound < MARGIN) & (s.cost < 1)]
        return first(rows.sort_values("cost", kind="stable"))

    @property
    def more_time(self) -> str:
        """A sentence on the probable effect of more time."""
        if self.ended:
            return (
                "More time changes nothing: the race is over, in which no network is trained for "
                f"more than {self.longest} steps."
            )
        raced = self.strategies[~self.strategies.probe & (self.strategies.n > 0)]
        if raced.empty:
            return "With more time, fine-tuned networks are trained and compared with it."
        # the leader of the race has the most steps, not always the highest accuracy
        ahead = raced.sort_values(["steps", "validation"], ascending=False, kind="stable").iloc[0]
        if ahead.steps >= self.longest and not self.spec.images_per_class:
            return (
                "With more time the rest of the race is trained, in which no network has more than "
                f"{self.longest} steps."
            )
        alike = (raced[ARM] == ahead[ARM]).all(axis=1)
        before = raced[alike & (raced.steps < ahead.steps)]
        if before.empty:
            return f"With more time, the best after {ahead.steps} steps are trained for more."
        last = before.sort_values("steps", kind="stable").iloc[-1]
        less = ", which will probably gain less" if ahead.validation > last.validation else ""
        return (
            f"From {last.steps} to {ahead.steps} steps the validation accuracy of {ahead.cell} "
            f"went from {last.validation:.3f} to {ahead.validation:.3f}; with more time it is "
            f"trained for more steps{less}."
        )


def name(row: pd.Series) -> str:
    """The name of a strategy."""
    if row.probe:
        return row.cell
    optimizer = {"sgd": "SGD", "adamw": "AdamW"}[row.optimizer]
    return f"{row.cell}, {optimizer}, {row.steps} steps, rate {row.rate:g}"


def _apart(row: pd.Series, what: str) -> str:
    """How far the best strategy is above or below another."""
    if row.behind >= 0:
        low, high = row.behind_low, row.behind_high
        return f"{row.behind:.3f} [{low:.3f}, {high:.3f}] above the best {what}"
    low, high = -row.behind_high, -row.behind_low
    return f"{-row.behind:.3f} [{low:.3f}, {high:.3f}] below the best {what}"


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"
