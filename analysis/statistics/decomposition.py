"""What the paper describes in words, as numbers for each n: what is lost and gained, how much,
how suddenly, where.
"""

from dataclasses import dataclass

import joblib
import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from analysis.statistics.linear_model import (
    BASE,
    BLOCK,
    DISTANT,
    Contrast,
    Estimate,
    available,
    estimate,
    estimate_jointly,
    mean,
    subtract,
)
from analysis.statistics.over_splits import BySplit, OverSplits, over
from transferability.rng import numpy_rng
from transferability.tasks.splits import SIMILAR

# name: (what is subtracted from what, in words)
QUANTITIES = {
    "co-adaptation loss": ("base", "BnB"),
    "specificity loss": ("BnB", "AnB"),
    "transfer loss": ("base", "AnB"),
    "transfer loss, dissimilar tasks": ("base", DISTANT + "AnB"),
    "co-adaptation loss, dissimilar tasks": ("base", DISTANT + "BnB"),
    "specificity loss, dissimilar tasks": (DISTANT + "BnB", DISTANT + "AnB"),
    "gain over control, dissimilar tasks": (DISTANT + "AnB+", DISTANT + "BnB+"),
    "recovery": ("BnB+", "BnB"),
    "gain over control": ("AnB+", "BnB+"),
    "gain over base": ("AnB+", "base"),
    "retraining gain": ("BnB+", "base"),
    "loss of random filters": ("base", "RnB"),
}
SAMPLES = 10_000

# Table 1 of the paper: the mean boost of AnB+ over baseB and over the selffer BnB+, for n = 1..7,
# 3..7 and 5..7.
# above so many quarters of the layers
TABLE1 = {0: (0.016, 0.014), 1: (0.018, 0.014), 2: (0.021, 0.017)}


def decompose(networks: pd.DataFrame) -> pd.DataFrame:
    """A row per quantity and n: the model's value and interval, networks, tasks, what that interval
    covers, and the value and interval over splits.

    The intervals of one quantity are simultaneous: 95% in total (Bonferroni over
    its values of n). Several figures and the report ask for the same: it is kept.
    """
    key = joblib.hash(networks)
    if key not in _kept:
        if len(_kept) > 3:  # the study's own networks, and the paper's beside them
            _kept.clear()
        _kept[key] = _decompose(networks)
    return _kept[key].copy()


_kept: dict[str, pd.DataFrame] = {}  # by the networks' hash


def _decompose(networks: pd.DataFrame) -> pd.DataFrame:
    rows, by_split = [], BySplit(networks)
    for name, (first, second) in QUANTITIES.items():
        layers = _layers(networks, first, second)
        differences = [difference_at(first, second, n) for n in layers]
        found_at = _estimates(networks, differences) if layers else []
        for n, found, weights in zip(layers, found_at, differences, strict=True):
            if found:
                over_splits = by_split.estimate(weights)
                values = {"value": found.value, "low": found.low, "high": found.high}
                counts = {"networks": found.networks, "tasks": found.tasks, "covers": found.covers}
                rows.append(
                    {
                        "quantity": name,
                        "difference": f"{first} - {second}",
                        "n": n,
                        **values,
                        **counts,
                        **(over_splits.columns(1 - 0.05 / len(layers)) if over_splits else {}),
                    }
                )
    columns = ["quantity", "difference", "n", "value", "low", "high", "networks", "tasks", "covers"]
    return pd.DataFrame(rows, columns=[*columns, *OverSplits.COLUMNS])


@dataclass(frozen=True)
class Transition:
    """The paper's three questions about the passage from general to specific,
    each as (value, low, high).

    Attributes:
        total: how much: the specificity loss at the last n, in accuracy.
        half_layer: where: the n, interpolated, at which half of it has happened.
        spread: sudden or spread: over how many of the study's steps of n the loss is spread (the
            inverse of the sum of squared shares of the steps): 1 if it happens between two
            neighboring n.
        largest_step: (n before, n after, share of the total) of the largest rise.
        layers: the values of n, without 0.
        splits: how many splits have all of these n.
        over_splits: total, half_layer and spread as means of what the splits have, each with its
            interval over them; none of one split.
    """

    total: tuple[float, float, float]
    half_layer: tuple[float, float, float]
    spread: tuple[float, float, float]
    largest_step: tuple[int, int, float]
    layers: list[int]
    splits: int
    over_splits: tuple[tuple[float, float, float], ...]


def transition(networks: pd.DataFrame) -> Transition | None:
    """Where specificity arises; None where it is not significantly different from no loss,
    or BnB and AnB are not both there.

    The loss is 0 at n = 0 and is taken to grow with n (isotonic regression). Intervals: 95% of
    values drawn as the linear model leaves them possible (parametric bootstrap, seeded), and
    Student's t over what each split has by itself.
    """
    layers = _layers(networks, "BnB", "AnB")
    if len(layers) < 2:
        return None
    differences = [difference_at("BnB", "AnB", n) for n in layers]
    joint, by_split = estimate_jointly(networks, differences), BySplit(networks)
    if joint is None or joint.intervals(0.95)[-1].low <= 0:
        return None
    last = by_split.estimate(differences[-1])
    if last and last.decides and last.interval()[0] <= 0:
        return None
    splits, over_splits = _over_splits(layers, by_split, differences)
    samples = joint.samples(SAMPLES, numpy_rng(0, "transition"))
    half, spread = zip(*(shape(layers, one) for one in samples if _grown(one)[-1] > 0), strict=True)
    grown = _grown(joint.values)
    steps = np.diff(grown) / grown[-1]
    largest = int(steps.argmax())
    total = joint.intervals(0.95)[-1]
    return Transition(
        total=(total.value, total.low, total.high),
        half_layer=_with_interval(shape(layers, joint.values)[0], half),
        spread=_with_interval(shape(layers, joint.values)[1], spread),
        largest_step=([0, *layers][largest], layers[largest], float(steps[largest])),
        layers=layers,
        splits=splits,
        over_splits=over_splits,
    )


def _over_splits(
    layers: list[int], by_split: BySplit, differences: list[Contrast]
) -> tuple[int, tuple[tuple[float, float, float], ...]]:
    """How many splits have all of the differences, and total, half layer and spread over them."""
    at_each = [dict(zip(*by_split.values(w)[0], strict=True)) for w in differences]
    names = set.intersection(*map(set, at_each))
    losses = [np.array([values[name] for values in at_each]) for name in sorted(names)]
    found = [(own[-1], *shape(layers, own)) for own in losses if _grown(own)[-1] > 0]
    if len(found) < 2:
        return len(names), ()
    value, error, df = over(np.array(found))
    intervals = [
        OverSplits(float(v), float(e), df, (len(found),)) for v, e in zip(value, error, strict=True)
    ]
    return len(names), tuple((o.value, *o.interval()) for o in intervals)


def boosts(networks: pd.DataFrame, layers: int) -> pd.DataFrame:
    """The paper's table 1: how much higher AnB+ is than base and BnB+ (the control),
    averaged over ranges of n.

    Of networks of ``layers`` layers: all n, those above the lowest quarter,
    those in the upper half.

    ``difference of means``: the paper's way, over the networks there are, whatever their tasks.
    ``within tasks``: the same by the linear model, which compares networks of one task (or, where
    no task has both, each with its base) over the n that both have, with its 95% interval; the same
    ``over splits``, those that have all of these n.
    ``bases``: mean accuracy of the bases of the tasks on which the AnB+ networks, and the controls,
    were trained: where they differ, a difference of means contains the difference between tasks.
    """
    done = networks[networks.accuracy.notna() & networks.split_kind.isin(SIMILAR)]
    by_split = BySplit(done)
    bases = done[done.treatment == "base"]
    rows = []
    for control in ("base", "BnB+"):
        for quarters, printed in TABLE1.items():
            first, last = quarters * layers // 4 + 1, layers - 1
            here = done[done.n.between(first, last)]
            transfer = here[here.treatment == "AnB+"]
            controls = bases if control == "base" else here[here.treatment == control]
            both = sorted(
                set(transfer.n) if control == "base" else set(transfer.n) & set(controls.n)
            )
            weights = {BASE: 1.0} if control == "base" else mean(control, both)
            possible = len(both) and len(controls)
            weights = subtract(mean("AnB+", both), weights) if possible else {}
            found = estimate(networks, weights) if possible else None
            over_splits = by_split.estimate(weights) if found else None
            rows.append(
                {
                    "over": control,
                    "n": f"{first}–{last}",
                    "AnB+ networks": len(transfer),
                    "their bases": _bases_of(transfer, bases),
                    "controls": len(controls),
                    "bases of controls": _bases_of(controls, bases),
                    "difference of means": transfer.accuracy.mean() - controls.accuracy.mean(),
                    "printed in the paper": printed[control == "BnB+"],
                    "within tasks": found.value if found else np.nan,
                    "low": found.low if found else np.nan,
                    "high": found.high if found else np.nan,
                    **(over_splits.columns() if over_splits else {}),
                }
            )
    return pd.DataFrame(rows)


def _bases_of(networks: pd.DataFrame, bases: pd.DataFrame) -> float:
    """Mean accuracy of the bases on the tasks of ``networks``, a base counted once a network."""
    return networks[BLOCK].merge(bases, on=BLOCK).accuracy.mean()


def _estimates(networks: pd.DataFrame, differences: list[Contrast]) -> list[Estimate | None]:
    """Each difference, with simultaneous intervals;
    all at once where the study can tell all of them.
    """
    confidence = 1 - 0.05 / len(differences)
    if joint := estimate_jointly(networks, differences):
        return list(joint.intervals(confidence))
    return [estimate(networks, difference, confidence) for difference in differences]


def _layers(networks: pd.DataFrame, *treatments: str) -> list[int]:
    """The values of n that all of the treatments have (base: any)."""
    sets = [set(available(networks, t)) for t in treatments if t != "base"]
    return sorted(set.intersection(*sets))


def difference_at(first: str, second: str, n: int) -> Contrast:
    """Treatment minus treatment at n; of "base" the bases."""

    def one(treatment: str) -> Contrast:
        return {BASE: 1.0} if treatment == "base" else mean(treatment, [n])

    return subtract(one(first), one(second))


def _grown(losses: np.ndarray) -> np.ndarray:
    """The losses with 0 before them, never falling and never below 0."""
    return np.concatenate([[0.0], np.maximum(isotonic_regression(losses).x, 0.0)])


def shape(layers: list[int], losses: np.ndarray) -> tuple[float, float]:
    """(layer at which half of the loss has happened, number of steps over which it is spread).

    The loss is 0 at n = 0, is taken to grow with n, and must be above 0 somewhere.
    """
    grown = _grown(losses)
    half = grown[-1] / 2
    after = int(np.searchsorted(grown, half))
    before = after - 1
    n = [0, *layers]
    part = (half - grown[before]) / (grown[after] - grown[before])
    shares = np.diff(grown) / grown[-1]
    return n[before] + part * (n[after] - n[before]), float(1 / (shares**2).sum())


def _with_interval(value: float, samples: tuple[float, ...]) -> tuple[float, float, float]:
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(value), float(low), float(high)
