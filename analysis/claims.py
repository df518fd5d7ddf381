"""The paper's claims as statements that a study can support or contradict.

Each claim is one difference between conditions, fixed here and not after a look at a study, and a
threshold that the difference must exceed: 0, or a share of the mean accuracy of the bases in it. A
claim about several layers is about their mean: one test, not one a layer. The verdict is by the 95%
interval of the linear model (``stats``): *supported* if it lies above the threshold, *contradicted*
if below, else *inconclusive*. The model takes treatments to act alike on all tasks; ``above`` says
in how many of the tasks that have all of the difference it is above the threshold, taken alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.depths import Depths, listed
from analysis.stats import BASE, DISTANT, Weights, available, by_task, estimate_jointly, mean, minus

NO_LOSS = 0.03  # of the base's accuracy: a smaller loss counts as none
NEAR_CHANCE = 0.9  # of the base's accuracy: a larger loss counts as a collapse


@dataclass(frozen=True)
class Claim:
    """One claim: ``difference`` > ``threshold`` x mean accuracy of the bases of its tasks.

    The texts name layers as :func:`_words` has them for the network's depth.
    """

    statement: str
    difference: str  # in words
    weights: Callable[["_Study"], Weights | None]
    threshold: float = 0.0


class _Study:
    """What a claim asks of a study: the weights of means and slopes over the layers
    that are there.
    """

    def __init__(self, networks: pd.DataFrame, depths: Depths):
        self.depths = depths
        self._there = {
            t: available(networks, t)
            for t in ("BnB", "BnB+", "AnB", "AnB+", "RnB", DISTANT + "AnB")
        }
        self.used: list[int] = []

    def layers(self, treatment: str, wanted, *others: str) -> list[int]:
        """Those of ``wanted`` for which the treatment, and all ``others``, have a network."""
        found = [n for n in wanted if all(n in self._there[t] for t in (treatment, *others))]
        self.used = sorted({*self.used, *found})
        return found

    def mean(self, treatment: str, wanted, *others: str) -> Weights | None:
        layers = self.layers(treatment, wanted, *others)
        return mean(treatment, layers) if layers else None

    def decline(self, treatment: str) -> Weights | None:
        """The least-squares slope against n, turned round: accuracy lost per layer."""
        layers = self.layers(treatment, self.depths.all)
        if len(layers) < 2:
            return None
        centre = sum(layers) / len(layers)
        squares = sum((n - centre) ** 2 for n in layers)
        return {(treatment, n): -(n - centre) / squares for n in layers}


def _minus(first: Weights | None, second: Weights | None) -> Weights | None:
    return minus(first, second) if first and second else None


_BASE: Weights = {BASE: 1.0}
FAR = DISTANT + "AnB"

CLAIMS = [
    Claim(
        f"{{the_low_transfer}} without loss (less than {NO_LOSS:.0%} of the base's accuracy)",
        "AnB, n = {low}, minus base",
        lambda s: _minus(s.mean("AnB", s.depths.low), _BASE),
        -NO_LOSS,
    ),
    Claim(
        "BnB dips in the middle: {the_middle_are} co-adapted",
        "BnB at n = {around} minus BnB at n = {middle}",
        lambda s: _minus(s.mean("BnB", s.depths.around), s.mean("BnB", s.depths.middle)),
    ),
    Claim(
        "Own layers recover by fine-tuning: BnB+ beats BnB in the middle",
        "BnB+ minus BnB, n = {middle}",
        lambda s: _minus(
            s.mean("BnB+", s.depths.middle, "BnB"), s.mean("BnB", s.depths.middle, "BnB+")
        ),
    ),
    Claim(
        f"BnB+ is back at the base (at most {NO_LOSS:.0%} of the base's accuracy below)",
        "BnB+ minus base, mean over n",
        lambda s: _minus(s.mean("BnB+", s.depths.all), _BASE),
        -NO_LOSS,
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
        NEAR_CHANCE,
    ),
]


def assess(networks: pd.DataFrame, layers: int) -> pd.DataFrame:
    """A row a claim: the statement, its verdict, the difference with its interval,
    and what it rests on.

    A claim that the study has no networks for has the verdict "not tested".

    Args:
        layers: of the networks. What the paper says of layers of its 8 is said of the same parts
            of other depths.
    """
    depths = Depths(layers)
    words = _words(depths)
    return pd.DataFrame([_assess(claim, networks, depths, words) for claim in CLAIMS])


def _words(depths: Depths) -> dict[str, str]:
    """What stands in braces in the texts of claims."""
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


def _assess(claim: Claim, networks: pd.DataFrame, depths: Depths, words: dict[str, str]) -> dict:
    study = _Study(networks, depths)
    weights = claim.weights(study)
    row = {
        "statement": claim.statement.format(**words),
        "difference": claim.difference.format(**words),
    }
    row["verdict"] = "not tested"
    joint = estimate_jointly(networks, [weights]) if weights else None
    if joint is None:
        return row
    (found,), (carriers,) = joint.intervals(0.95), joint.carriers
    alone = by_task(networks, weights)
    threshold = (
        claim.threshold * carriers[carriers.treatment == "base"].accuracy.mean()
        if claim.threshold
        else 0.0
    )
    # equal networks differ by nothing, whatever the last digit of a mean is
    low, high = (round(end - threshold, 12) for end in (found.low, found.high))
    verdict = "supported" if low > 0 else "contradicted" if high < 0 else "inconclusive"
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
    }
