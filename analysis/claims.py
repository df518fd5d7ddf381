"""The paper's claims as statements that a study can support or contradict.

Each claim is one difference between conditions, fixed here and not after a look at a study, and a threshold that the
difference must exceed: 0, or a share of the mean accuracy of the bases in it. A claim about several layers is about
their mean: one test, not one a layer. The verdict is by the 95% interval of the linear model (``stats``): *supported*
if it lies above the threshold, *contradicted* if below, else *inconclusive*. The model takes treatments to act alike on
all tasks; ``above`` says in how many of the tasks that have all of the difference it is above the threshold, taken
alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.stats import BASE, DISTANT, Weights, available, by_task, estimate_jointly, mean, minus

ALL = range(1, 8)
NO_LOSS = 0.03  # of the base's accuracy: a smaller loss counts as none
NEAR_CHANCE = 0.9  # of the base's accuracy: a larger loss counts as a collapse
AROUND, MIDDLE = (1, 2, 7), (4, 5)  # the layers between which the paper sees BnB dip

Layers = Callable[[str, range | tuple], list[int]]  # the values of n in a range for which a treatment is there


@dataclass(frozen=True)
class Claim:
    """One claim: ``difference`` > ``threshold`` x mean accuracy of the bases of its tasks."""

    statement: str
    difference: str  # in words
    weights: Callable[["_Study"], Weights | None]
    threshold: float = 0.0


class _Study:
    """What a claim asks of a study: the weights of means and slopes over the layers that are there."""

    def __init__(self, networks: pd.DataFrame):
        self._there = {t: available(networks, t) for t in ("BnB", "BnB+", "AnB", "AnB+", "RnB", DISTANT + "AnB")}
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
        layers = self.layers(treatment, ALL)
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
        f"Layers 1 and 2 transfer without loss (less than {NO_LOSS:.0%} of the base's accuracy)",
        "AnB, n = 1, 2, minus base",
        lambda s: _minus(s.mean("AnB", (1, 2)), _BASE),
        -NO_LOSS,
    ),
    Claim(
        "BnB dips in the middle: layers 4 and 5 are co-adapted",
        "BnB at n = 1, 2, 7 minus BnB at n = 4, 5",
        lambda s: _minus(s.mean("BnB", AROUND), s.mean("BnB", MIDDLE)),
    ),
    Claim(
        "Own layers recover by fine-tuning: BnB+ beats BnB in the middle",
        "BnB+ minus BnB, n = 4, 5",
        lambda s: _minus(s.mean("BnB+", MIDDLE, "BnB"), s.mean("BnB", MIDDLE, "BnB+")),
    ),
    Claim(
        f"BnB+ is back at the base (at most {NO_LOSS:.0%} of the base's accuracy below)",
        "BnB+ minus base, mean over n",
        lambda s: _minus(s.mean("BnB+", ALL), _BASE),
        -NO_LOSS,
    ),
    Claim("AnB declines with n", "accuracy of AnB lost per layer", lambda s: s.decline("AnB")),
    Claim(
        "AnB falls most at layers 6 and 7",
        "AnB at n = 3, 4, 5 minus AnB at n = 6, 7",
        lambda s: _minus(s.mean("AnB", (3, 4, 5)), s.mean("AnB", (6, 7))),
    ),
    Claim(
        "What AnB loses at layers 6 and 7 is specificity: BnB loses less",
        "BnB minus AnB, n = 6, 7",
        lambda s: _minus(s.mean("BnB", (6, 7), "AnB"), s.mean("AnB", (6, 7), "BnB")),
    ),
    Claim(
        "Transfer and fine-tuning beat the base",
        "AnB+ minus base, mean over n",
        lambda s: _minus(s.mean("AnB+", ALL), _BASE),
    ),
    Claim(
        "That gain is not only one of longer training: AnB+ beats BnB+",
        "AnB+ minus BnB+, mean over n",
        lambda s: _minus(s.mean("AnB+", ALL, "BnB+"), s.mean("BnB+", ALL, "AnB+")),
    ),
    Claim(
        "Dissimilar tasks transfer worse",
        "AnB on random splits minus AnB on natural/man-made, each relative to its base, mean over n",
        lambda s: _minus(s.mean("AnB", ALL, FAR), s.mean(FAR, ALL, "AnB")),
    ),
    Claim(
        "Dissimilarity costs the more, the higher the layer",
        "accuracy lost per layer on natural/man-made minus that on random splits",
        lambda s: _minus(s.decline(FAR), s.decline("AnB")),
    ),
    Claim(
        "Even features of a distant task beat random ones",
        "AnB on natural/man-made minus random filters, each relative to its base, mean over n",
        lambda s: _minus(s.mean(FAR, ALL, "RnB"), s.mean("RnB", ALL, FAR)),
    ),
    Claim("Random filters lose accuracy with depth", "accuracy lost per layer", lambda s: s.decline("RnB")),
    Claim(
        f"Random filters collapse from layer 3 on (more than {NEAR_CHANCE:.0%} of the base's accuracy is lost)",
        "base minus random filters, mean over n = 3 to 7",
        lambda s: _minus(_BASE, s.mean("RnB", range(3, 8))),
        NEAR_CHANCE,
    ),
]


def assess(networks: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: the statement, its verdict, the difference with its interval, and what it rests on.

    A claim that the study has no networks for has the verdict "not tested".
    """
    return pd.DataFrame([_assess(claim, networks) for claim in CLAIMS])


def _assess(claim: Claim, networks: pd.DataFrame) -> dict:
    study = _Study(networks)
    weights = claim.weights(study)
    row = {"statement": claim.statement, "difference": claim.difference, "verdict": "not tested"}
    joint = estimate_jointly(networks, [weights]) if weights else None
    if joint is None:
        return row
    (found,), (carriers,) = joint.intervals(0.95), joint.carriers
    alone = by_task(networks, weights)
    threshold = claim.threshold * carriers[carriers.treatment == "base"].accuracy.mean() if claim.threshold else 0.0
    verdict = "supported" if found.low > threshold else "contradicted" if found.high < threshold else "inconclusive"
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
