"""The answer of ``experiments.advise``: what finished networks of a race say.

A *strategy* is a cell with its steps and rate: what all seeds have in common. The best is the one
with the highest mean validation accuracy; what is said of it comes of test images.
"""

from dataclasses import dataclass

import pandas as pd

from analysis.advice import NO_TEST, SIMULTANEOUS, first
from analysis.advised_figures import ARM
from analysis.page import MARGIN
from analysis.statistics.baseline import Majority
from experiments.race import EPOCHS
from transferability.study.spec import RunSpec


@dataclass(frozen=True)
class Answer:
    """What is known so far.

    Attributes:
        strategies: a row per strategy, the best on validation first, of equals the cheapest: cell,
            words (what it does), n, steps, rate, optimizer, seeds, validation, test, low, high,
            behind (the best minus it, on the same images), behind_low, behind_high, bound (the
            upper end of an interval that is simultaneous over all that cost less), cost
            (operations of training, best = 1), seconds (of training, all seeds), run (of its first
            seed), probe (whether a fitted linear classifier).
        interval: of the best, covering the choice (``covering_choice``); no narrower than that of
            the best alone.
        subset: the images that it is reported on: test, or validation where there are no others.
        majority: the accuracy of always predicting the most frequent class.
        few: a sentence where the images of ``subset`` are too few.
        confused: a row per class that is shown, a column per predicted class; None of many.
        spec: of the best.
        layers: below the classifier.
        depths: a row per depth: n, validation and test of its linear classifier, and what features
            say without a fit (``measurements.depths``).
        ended: whether the race is over before the time was up, with all images.
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

    @property
    def best(self) -> pd.Series:
        return self.strategies.iloc[0]

    @property
    def leader(self) -> str:
        return f"{name(self.best)}, validation accuracy {self.best.validation:.3f}"

    @property
    def probe(self) -> pd.Series | None:
        """The best linear classifier."""
        return first(self.strategies[self.strategies.probe])

    @property
    def scratch(self) -> pd.Series | None:
        """The best network that starts from nothing."""
        return first(self.strategies[self.strategies.n == 0])

    @property
    def sentences(self) -> list[str]:
        """What to do, what it is worth, what would serve as well, and what more time may change."""
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
        """How far it is above the best linear probe, and above training from scratch."""
        said, probe, scratch = list[str](), self.probe, self.scratch
        if probe is not None and probe.run != self.best.run:
            said.append(f"It is {_apart(probe, 'linear probe')} ({name(probe)}: {probe.test:.3f}).")
        if scratch is None or scratch.run == self.best.run:
            return said
        beside = f"({name(scratch)}: {scratch.test:.3f})"
        most = self.strategies.steps[~self.strategies.probe].max()
        if scratch.steps < most:
            return [
                *said,
                f"Training from scratch had time for only {scratch.steps} steps, of up to {most}: "
                f"too few to compare {beside}.",
            ]
        return [*said, f"It is {_apart(scratch, 'training from scratch')} {beside}."]

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
        """What costs less and is as good."""
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
        """Of the strategies that cost less and are not inferior the cheapest."""
        s = self.strategies
        rows = s[(s.bound < MARGIN) & (s.cost < 1)]
        return first(rows.sort_values("cost", kind="stable"))

    @property
    def more_time(self) -> str:
        """What more time would probably change."""
        if self.ended:
            return (
                "More time changes nothing: the race is over, in which no network sees its images "
                f"more than {EPOCHS} times."
            )
        raced = self.strategies[~self.strategies.probe & (self.strategies.n > 0)]
        if raced.empty:
            return "With more time, fine-tuned networks are trained and compared with it."
        # who is ahead in the race has the most steps, not always the highest accuracy
        ahead = raced.sort_values(["steps", "validation"], ascending=False, kind="stable").iloc[0]
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
    """A strategy as it is called."""
    if row.probe:
        return row.cell
    optimizer = {"sgd": "SGD", "adamw": "AdamW"}[row.optimizer]
    return f"{row.cell}, {optimizer}, {row.steps} steps, rate {row.rate:g}"


def _apart(row: pd.Series, what: str) -> str:
    """How far the best is above or below a row."""
    if row.behind >= 0:
        low, high = row.behind_low, row.behind_high
        return f"{row.behind:.3f} [{low:.3f}, {high:.3f}] above the best {what}"
    low, high = -row.behind_high, -row.behind_low
    return f"{-row.behind:.3f} [{low:.3f}, {high:.3f}] below the best {what}"


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"
