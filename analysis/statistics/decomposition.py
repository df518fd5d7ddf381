"""The paper's verbal descriptions as numbers for each n: what is lost and gained, how much, how
suddenly and where.
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

# name: (first, second); the quantity is first minus second
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
# 3..7 and 5..7. The keys are the quarters of the layers that are left out at the bottom.
TABLE1 = {0: (0.016, 0.014), 1: (0.018, 0.014), 2: (0.021, 0.017)}


def decompose(networks: pd.DataFrame) -> pd.DataFrame:
    """A row per quantity and n: the model's value and interval, the numbers of networks and tasks,
    what the interval covers, and the value and interval over splits.

    The intervals of one quantity are simultaneous: 95% in total (Bonferroni over its values of n).
    Results are cached, as several figures and the report use them.
    """
    key = joblib.hash(networks)
    if key not in _kept:
        if len(_kept) > 3:  # room for the study's networks and the paper's
            _kept.clear()
        _kept[key] = _decompose(networks)
    return _kept[key].copy()


_kept: dict[str, pd.DataFrame] = {}  # by hash of the networks


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
    """The paper's three questions about the transition from general to specific, each answered by
    (value, low, high).

    Attributes:
        total: how much: the specificity loss at the last n, in accuracy.
        half_layer: where: the interpolated n at which half of the loss has occurred.
        spread: suddenly or spread: over how many steps of n the loss is spread (the inverse of the
            sum of squared shares of the steps); 1 if all of the loss occurs between two
            neighboring n.
        largest_step: (n before, n after, share of the total) of the largest rise.
        layers: the values of n, without 0.
        splits: how many splits have all of these n.
        over_splits: total, half_layer and spread as means over splits, each with its interval over
            splits; empty for fewer than two splits with a loss.
    """

    total: tuple[float, float, float]
    half_layer: tuple[float, float, float]
    spread: tuple[float, float, float]
    largest_step: tuple[int, int, float]
    layers: list[int]
    splits: int
    over_splits: tuple[tuple[float, float, float], ...]


def transition(networks: pd.DataFrame) -> Transition | None:
    """Where specificity arises; None if the loss at the last n is not significantly above 0, or if
    BnB and AnB share fewer than two n.

    The loss is 0 at n = 0 and assumed to grow with n (isotonic regression). The intervals are 95%
    of a seeded parametric bootstrap of the linear model, and Student's t over the values of
    splits.
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
    """The number of splits with all differences, and total, half layer and spread over splits."""
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
    """The paper's table 1: how much higher AnB+ is than base and BnB+ (the control), averaged over
    ranges of n.

    The ranges, in networks with ``layers`` layers, are all n, n above the lowest quarter, and n in
    the upper half.

    ``difference of means``: the paper's method, over all networks, whatever their tasks.
    ``within tasks``: the linear model's difference over the n that both treatments have, with its
    95% interval. The model compares networks of one task or, if no task has both treatments, each
    network with its base. ``over splits``: the same over the splits that have all of these n.
    ``their bases``, ``bases of controls``: mean accuracy of the bases of the tasks on which the
    AnB+ networks, or the controls, were trained. If the two differ, the difference of means
    includes a difference between tasks.
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
    """Mean accuracy of the bases of the tasks of ``networks``, with a base counted once per
    network.
    """
    return networks[BLOCK].merge(bases, on=BLOCK).accuracy.mean()


def _estimates(networks: pd.DataFrame, differences: list[Contrast]) -> list[Estimate | None]:
    """Each difference with simultaneous intervals; estimated jointly if all are estimable."""
    confidence = 1 - 0.05 / len(differences)
    if joint := estimate_jointly(networks, differences):
        return list(joint.intervals(confidence))
    return [estimate(networks, difference, confidence) for difference in differences]


def _layers(networks: pd.DataFrame, *treatments: str) -> list[int]:
    """The values of n that all treatments have; the base has every n."""
    sets = [set(available(networks, t)) for t in treatments if t != "base"]
    return sorted(set.intersection(*sets))


def difference_at(first: str, second: str, n: int) -> Contrast:
    """The first treatment minus the second at n; "base" means the bases at any n."""

    def one(treatment: str) -> Contrast:
        return {BASE: 1.0} if treatment == "base" else mean(treatment, [n])

    return subtract(one(first), one(second))


def _grown(losses: np.ndarray) -> np.ndarray:
    """The losses after a leading 0, made nondecreasing and at least 0."""
    return np.concatenate([[0.0], np.maximum(isotonic_regression(losses).x, 0.0)])


def shape(layers: list[int], losses: np.ndarray) -> tuple[float, float]:
    """(layer at which half of the loss has occurred, number of steps over which it is spread).

    The loss is 0 at n = 0, is assumed to grow with n, and must be above 0 at some n.
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
