"""The paper's claims as statements that a study can support or contradict.

Each claim is one difference between conditions, fixed here rather than after a look at a study, and
a threshold that the difference must exceed: 0; minus a margin, if the claim is that nothing is lost
(non-inferiority); or a share of the mean accuracy of the bases involved. A claim about several
layers is about their mean: one test, not one per layer. There are two 95% intervals: of the linear
model (``linear_model``) and over splits (``over_splits``). The verdict follows the interval over
splits if there are at least three splits. Otherwise it follows the model's, and holds for these
splits alone. It is *supported* if the interval lies above the threshold, *contradicted* if below,
else *inconclusive*. ``corrected`` is the verdict after Holm's correction for all claims. ``above``
counts the tasks in which the difference, estimated within the task, is above the threshold, among
the tasks with all conditions of the difference.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.page import MARGIN
from analysis.statistics.depths import Depths, listed
from analysis.statistics.intervals import holm, p_value
from analysis.statistics.linear_model import (
    BASE,
    DISTANT,
    Contrast,
    by_task,
    estimate_jointly,
    mean,
    subtract,
)
from analysis.statistics.over_splits import LEAST, BySplit, splits_of

NEAR_CHANCE = 0.9  # share of the base's accuracy; a larger loss counts as a collapse


@dataclass(frozen=True)
class Claim:
    """One claim: ``difference`` > 0, or > minus the margin, or > ``share`` x mean accuracy of the
    bases of its tasks.

    The texts are format strings; :func:`_words` gives the layers for the network's depth.
    """

    statement: str
    difference: str  # in words
    weights: Callable[["_Study"], Contrast | None]
    no_loss: bool = False
    share: float = 0.0


class _Study:
    """Weights of means and slopes over the layers that a study has, from which claims are built."""

    def __init__(self, by_split: BySplit, depths: Depths):
        self.depths = depths
        treatments = ("BnB", "BnB+", "AnB", "AnB+", "RnB", FAR)
        there = {t: by_split.layers(t) for t in treatments}
        blocks = {
            t: [own for split in splits.values() for own in split] for t, splits in there.items()
        }
        self._there = {t: set().union(*own) for t, own in blocks.items()}
        self._everywhere = {
            t: set.intersection(*own) for t, own in blocks.items() if len(there[t]) >= LEAST
        }
        self.used: list[int] = []

    def layers(self, treatment: str, wanted, *others: str, least: int = 1) -> list[int]:
        """The values of ``wanted`` at which the treatment and all ``others`` have networks.

        If enough splits for an interval over splits have the treatment, a value counts only if all
        of them have it. If fewer than ``least`` values remain, one network at a value is enough.
        """
        for there in (self._there | self._everywhere, self._there):
            found = [n for n in wanted if all(n in there[t] for t in (treatment, *others))]
            if len(found) >= least:
                break
        self.used = sorted({*self.used, *found})
        return found

    def mean(self, treatment: str, wanted, *others: str) -> Contrast | None:
        layers = self.layers(treatment, wanted, *others)
        return mean(treatment, layers) if layers else None

    def decline(self, treatment: str) -> Contrast | None:
        """The negative least-squares slope against n: accuracy lost per layer."""
        layers = self.layers(treatment, self.depths.all, least=2)
        if len(layers) < 2:
            return None
        center = sum(layers) / len(layers)
        squares = sum((n - center) ** 2 for n in layers)
        return {(treatment, n): -(n - center) / squares for n in layers}


def _minus(first: Contrast | None, second: Contrast | None) -> Contrast | None:
    return subtract(first, second) if first and second else None


_BASE: Contrast = {BASE: 1.0}
FAR = DISTANT + "AnB"

CLAIMS = [
    Claim(
        "{the_low_transfer} without loss (of {margin} or more)",
        "AnB, n = {low}, minus base",
        lambda s: _minus(s.mean("AnB", s.depths.low), _BASE),
        no_loss=True,
    ),
    Claim(
        "BnB dips in the middle: {the_middle_are} co-adapted",
        "BnB at n = {around} minus BnB at n = {middle}",
        lambda s: _minus(s.mean("BnB", s.depths.around), s.mean("BnB", s.depths.middle)),
    ),
    Claim(
        "Same-task layers recover by fine-tuning: BnB+ beats BnB in the middle",
        "BnB+ minus BnB, n = {middle}",
        lambda s: _minus(
            s.mean("BnB+", s.depths.middle, "BnB"), s.mean("BnB", s.depths.middle, "BnB+")
        ),
    ),
    Claim(
        "BnB+ is back at the base (less than {margin} below)",
        "BnB+ minus base, mean over n",
        lambda s: _minus(s.mean("BnB+", s.depths.all), _BASE),
        no_loss=True,
    ),
    Claim("AnB declines with n", "accuracy of AnB lost per layer", lambda s: s.decline("AnB")),
    Claim(
        "AnB falls most at {the_high}",
        "AnB at n = {below_high} minus AnB at n = {high}",
        lambda s: _minus(s.mean("AnB", s.depths.below_high), s.mean("AnB", s.depths.high)),
    ),
    Claim(
        "What AnB loses at {the_high} is specificity: BnB loses less",
        "BnB minus AnB, n = {high}",
        lambda s: _minus(s.mean("BnB", s.depths.high, "AnB"), s.mean("AnB", s.depths.high, "BnB")),
    ),
    Claim(
        "Transfer and fine-tuning beat the base",
        "AnB+ minus base, mean over n",
        lambda s: _minus(s.mean("AnB+", s.depths.all), _BASE),
    ),
    Claim(
        "That gain is not only one of longer training: AnB+ beats BnB+",
        "AnB+ minus BnB+, mean over n",
        lambda s: _minus(
            s.mean("AnB+", s.depths.all, "BnB+"), s.mean("BnB+", s.depths.all, "AnB+")
        ),
    ),
    Claim(
        "Dissimilar tasks transfer worse",
        "AnB on random splits minus AnB on natural/man-made, "
        "each relative to its base, mean over n",
        lambda s: _minus(s.mean("AnB", s.depths.all, FAR), s.mean(FAR, s.depths.all, "AnB")),
    ),
    Claim(
        "Dissimilarity costs the more, the higher the layer",
        "accuracy lost per layer on natural/man-made minus that on random splits",
        lambda s: _minus(s.decline(FAR), s.decline("AnB")),
    ),
    Claim(
        "Even features of a distant task beat random ones",
        "AnB on natural/man-made minus random filters, each relative to its base, mean over n",
        lambda s: _minus(s.mean(FAR, s.depths.all, "RnB"), s.mean("RnB", s.depths.all, FAR)),
    ),
    Claim(
        "Random filters lose accuracy with depth",
        "accuracy lost per layer",
        lambda s: s.decline("RnB"),
    ),
    Claim(
        "Random filters collapse from layer {first_above_low} on "
        f"(more than {NEAR_CHANCE:.0%} of the base's accuracy is lost)",
        "base minus random filters, mean over n = {above_low}",
        lambda s: _minus(_BASE, s.mean("RnB", s.depths.above_low)),
        share=NEAR_CHANCE,
    ),
]


def assess(networks: pd.DataFrame, layers: int, margin: float = MARGIN) -> pd.DataFrame:
    """A row per claim: the statement, its verdict, the difference with both intervals, and the
    networks, tasks and layers that carry it.

    A claim for which the study has no networks has the verdict "not tested".

    Args:
        layers: the number of layers. The paper's claims about its 8 layers are scaled to the same
            parts of other depths.
        margin: a loss of accuracy that counts as none.
    """
    depths, by_split = Depths(layers), BySplit(networks)
    words = _words(depths) | {
        "margin": f"{100 * margin:g} {'point' if margin == 0.01 else 'points'}"
    }
    table = pd.DataFrame(
        [_assess(claim, networks, by_split, depths, words, margin) for claim in CLAIMS]
    )
    if "p" not in table:
        return table
    corrected = holm(table.p)
    kept = table.verdict.where(~(corrected >= 0.05), "inconclusive")
    return table.assign(**{"p corrected": corrected, "corrected": kept})


def _words(depths: Depths) -> dict[str, str]:
    """The values of the placeholders in the texts of claims."""
    one_low, one_middle, one_high = (
        len(part) == 1 for part in (depths.low, depths.middle, depths.high)
    )
    low, middle, high = (listed(part, " and ") for part in (depths.low, depths.middle, depths.high))
    return {name: listed(part) for name, part in vars(depths).items()} | {
        "the_low_transfer": f"Layer {low} transfers" if one_low else f"Layers {low} transfer",
        "the_middle_are": f"layer {middle} is" if one_middle else f"layers {middle} are",
        "the_high": f"layer {high}" if one_high else f"layers {high}",
        "first_above_low": str(depths.above_low[0]),
    }


def _assess(
    claim: Claim,
    networks: pd.DataFrame,
    by_split: BySplit,
    depths: Depths,
    words: dict[str, str],
    margin: float,
) -> dict:
    study = _Study(by_split, depths)
    weights = claim.weights(study)
    row = {
        "statement": claim.statement.format(**words),
        "difference": claim.difference.format(**words),
    }
    row["verdict"] = "not tested"
    joint = estimate_jointly(networks, [weights]) if weights else None
    if joint is None or weights is None:
        return row
    (found,), (carriers,) = joint.intervals(0.95), joint.carriers
    over, alone = by_split.estimate(weights), by_task(networks, weights)
    threshold = -margin if claim.no_loss else 0.0
    if claim.share:
        threshold = claim.share * carriers[carriers.treatment == "base"].accuracy.mean()
    decisive = over if over and over.decides else found
    interval = decisive.interval() if decisive is over else (found.low, found.high)
    # so that rounding errors of means do not make equal networks differ
    low, high = (round(end - threshold, 12) for end in interval)
    verdict = "supported" if low > 0 else "contradicted" if high < 0 else "inconclusive"
    one = splits_of(carriers).nunique() == 1
    return {
        **row,
        "effect": found.value,
        "low": found.low,
        "high": found.high,
        "threshold": threshold,
        "above": f"{sum(value > threshold for value in alone)} of {len(alone)} tasks",
        "layers": " ".join(map(str, study.used)),
        "networks": found.networks,
        "tasks": found.tasks,
        "covers": found.covers,
        "verdict": verdict,
        **(over.columns() if over else {}),
        "holds for": "other splits, too"
        if decisive is over
        else "this split"
        if one
        else "these splits",
        "p": p_value(decisive.value - threshold, decisive.error, decisive.df),
    }
