"""Differences between networks, with intervals: one linear model for every figure, table and claim.

The accuracy of a network is an effect of its task plus an effect of its condition (treatment and n)
plus noise: a two-way analysis of variance without interaction. A task is identified by its classes,
seed, training-set size, kind of network and recipe, and is called a *block*. Differences between
conditions are therefore differences within tasks, even if the study is incomplete (or, if no task
has all conditions, differences relative to bases). The noise is pooled over all networks.
Conditions between dissimilar tasks (natural/man-made) have separate effects.

Without residual degrees of freedom, as when every condition was trained once, the spread between
networks is unknown. The interval then covers the error of the validation images only, and the
estimate says so. If predictions were kept, networks of one task are compared on the same images.
Otherwise the error is binomial, as if each network had separate images. This is conservative:
shared images make differences more precise. Equal predictions of few images do not show that
networks are equal: no error is below :func:`least_error`.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.intervals import indicators, within
from transferability.tasks.splits import NATURAL_MANMADE

BLOCK = ["task", "seed", "images_per_class", "network", "recipe"]
DISTANT = "distant "  # prefix of the treatment of networks between dissimilar tasks

# a treatment, with or without the prefix DISTANT, and n; ("base", 0) is every base
Condition = tuple[str, int]
Contrast = dict[Condition, float]  # a weight for each condition; the weights sum to 0

BASE: Condition = ("base", 0)


@dataclass(frozen=True)
class Estimate:
    """A difference in accuracy with its interval.

    Attributes:
        networks: the number of networks in its conditions.
        tasks: the number of blocks (target task, seed) of these networks.
        df: degrees of freedom of the noise; 0: the interval covers validation images only.
        error: the standard error.
    """

    value: float
    low: float
    high: float
    networks: int
    tasks: int
    df: int
    error: float

    @property
    def covers(self) -> str:
        return "networks" if self.df else "validation images only"


@dataclass(frozen=True)
class JointEstimate:
    """Several differences estimated together: values (k,), their covariance (k, k),
    degrees of freedom.
    """

    values: np.ndarray
    covariance: np.ndarray
    df: int
    carriers: list[pd.DataFrame]  # the networks of each difference
    limits: list[float]  # (k,) the largest possible value of each difference

    def intervals(self, confidence: float) -> list[Estimate]:
        """Each difference with an interval of this confidence: Student's t, or normal without
        ``df``; clipped to the possible values.
        """
        out = []
        for value, variance, rows, limit in zip(
            self.values, np.diag(self.covariance), self.carriers, self.limits, strict=True
        ):
            error = np.sqrt(variance) or np.finfo(float).tiny
            spread = stats.t(self.df, value, error) if self.df else stats.norm(value, error)
            interval = within((value, *spread.interval(confidence)), -limit, limit)
            tasks = len(rows[BLOCK].drop_duplicates())
            out.append(Estimate(*interval, len(rows), tasks, self.df, float(error)))
        return out

    def samples(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Draw (count, k) values from the multivariate Student's t distribution of the estimate,
        or the normal one without ``df``.
        """
        if not self.df:
            return generator.multivariate_normal(self.values, self.covariance, count)
        return stats.multivariate_t(self.values, self.covariance, df=self.df).rvs(
            count, random_state=generator
        )


def base_accuracy(networks: pd.DataFrame) -> np.ndarray:
    """The accuracy of the base of each network's block; NaN if there is none."""
    base = networks[networks.treatment == "base"].groupby(BLOCK, dropna=False).accuracy.mean()
    return base.reindex(pd.MultiIndex.from_frame(networks[BLOCK])).to_numpy()


def least_error(networks: pd.DataFrame) -> float:
    """The standard error of a difference that no validation image shows: with two more images, of
    which one differs (Agresti & Min 2005), of balanced accuracy in each class; NaN if the number of
    images is unknown.
    """
    tasks = networks.drop_duplicates("task")
    if "weights" in tasks and tasks.weights.notna().all():  # of balanced accuracy
        variance = 0.0
        for weights, classes in zip(tasks.weights, tasks.classes, strict=True):
            images = len(weights) / (classes * weights)  # of the class of each image
            variance += (1 / (images**2 * (images + 2))).sum() / classes**2
        return float(np.sqrt(variance) / len(tasks))
    images = tasks.val_images.sum(min_count=1)
    return float(1 / np.sqrt(images * (images + 2)))


def limit_of(weights: Contrast) -> float:
    """The largest possible value of a difference, as accuracies are between 0 and 1."""
    return sum(weight for weight in weights.values() if weight > 0)


def blocks_of(networks: pd.DataFrame) -> pd.Series:
    """The block of each network."""
    return networks[BLOCK].astype(object).fillna("all").agg(tuple, axis=1)


def conditions_of(networks: pd.DataFrame) -> pd.Series:
    """The condition of each network: (treatment, n), with the prefix DISTANT for treatments between
    dissimilar tasks.
    """
    distant = (networks.split_kind == NATURAL_MANMADE) & (networks.treatment != "base")
    treatment = networks.treatment.where(~distant, DISTANT + networks.treatment)
    return pd.Series(list(zip(treatment, networks.n, strict=True)), index=networks.index)


def available(networks: pd.DataFrame, treatment: str) -> list[int]:
    """The values of n at which a network of the treatment is finished."""
    done = networks[networks.accuracy.notna()]
    return sorted(n for name, n in set(conditions_of(done)) if name == treatment)


def mean(treatment: str, layers: list[int]) -> Contrast:
    """The mean of a treatment over ``layers``."""
    return {(treatment, n): 1 / len(layers) for n in layers}


def subtract(first: Contrast, second: Contrast) -> Contrast:
    return {c: first.get(c, 0.0) - second.get(c, 0.0) for c in {**first, **second}}


def estimate(
    networks: pd.DataFrame, weights: Contrast, confidence: float = 0.95
) -> Estimate | None:
    """Estimate one difference; None if a condition has no network, or conditions share no task."""
    joint = estimate_jointly(networks, [weights])
    return joint.intervals(confidence)[0] if joint else None


def estimate_jointly(networks: pd.DataFrame, contrasts: list[Contrast]) -> JointEstimate | None:
    """Estimate differences between conditions by least squares on block and condition.

    All networks except those with random filters, whose spread differs, determine the effects of
    tasks. In two cases only the bases and the treatments in the contrasts do: if a contrast has
    random filters, and if no task has all conditions of a difference. In the second case, tasks are
    compared relative to their bases, and the losses of other treatments may differ between tasks.

    Args:
        networks: with the columns of ``tables.RESULTS`` and ``accuracy``; unfinished networks are
            left out.
        contrasts: the weights of each sum to 0.
    """
    rows = networks[networks.accuracy.notna()]
    conditions = conditions_of(rows)
    if not {c for contrast in contrasts for c in contrast} <= set(conditions):
        return None
    blocks = blocks_of(rows)
    used = _informative(conditions, blocks, contrasts)
    rows, conditions, blocks = rows[used], conditions[used], blocks[used]
    design, inverse, rank = _model(tuple(blocks), tuple(conditions))
    wanted = np.array([[weights.get(c, 0.0) for c in design.columns] for weights in contrasts])
    if not np.allclose(wanted @ inverse @ design.to_numpy(), wanted, atol=1e-8):
        # the difference is not estimable: no task, nor a chain of tasks, connects the two sides
        return None
    accuracy = rows.accuracy.to_numpy(float)
    carried = wanted @ inverse  # (k, networks): every difference is a weighted sum of accuracies
    df = len(rows) - rank
    if df:
        residuals = accuracy - design.to_numpy() @ (inverse @ accuracy)
        covariance = residuals @ residuals / df * carried @ carried.T
    else:
        covariance = carried @ _of_images(rows) @ carried.T
    limits = [limit_of(w) for w in contrasts]
    least = (np.array(limits) * least_error(rows)) ** 2
    covariance += np.diag(np.fmax(least - np.diag(covariance), 0))
    return JointEstimate(
        carried @ accuracy,
        covariance,
        df,
        [_carriers(rows, conditions, blocks, w) for w in contrasts],
        limits,
    )


def _informative(conditions: pd.Series, blocks: pd.Series, contrasts: list[Contrast]) -> list[bool]:
    """Which networks determine the effects of tasks; see :func:`estimate_jointly`."""
    contrasted = {treatment for contrast in contrasts for treatment, _ in contrast} | {"base"}
    conditions_by_task = [set(own) for _, own in conditions.groupby(blocks)]
    testable_within_tasks = all(
        any({c for c in contrast if contrast[c]} <= own for own in conditions_by_task)
        for contrast in contrasts
    )
    if not testable_within_tasks or any(_is_random(treatment) for treatment in contrasted):
        return [treatment in contrasted for treatment, _ in conditions]
    return [not _is_random(treatment) for treatment, _ in conditions]


def _is_random(treatment: str) -> bool:
    """Whether the frozen filters of a treatment are random."""
    return treatment.endswith("RnB")


def _of_images(rows: pd.DataFrame) -> np.ndarray:
    """The covariance of accuracies due to sampled validation images, (networks, networks)."""
    accuracy, images = rows.accuracy.to_numpy(float), rows.val_images.to_numpy(float)
    covariance = np.diag(accuracy * (1 - accuracy) / images)
    if "right" not in rows or rows.right.isna().any():
        return covariance
    for task in set(rows.task):
        here = np.flatnonzero(rows.task == task)
        right = np.stack([rows.right.iloc[i] for i in here]).astype(float)
        if "weights" in rows:  # of balanced accuracy
            right *= rows.weights.iloc[here[0]]
        covariance[np.ix_(here, here)] = np.cov(right, bias=True) / right.shape[1]
    return covariance


@lru_cache(maxsize=16)
def _model(blocks: tuple, conditions: tuple) -> tuple[pd.DataFrame, np.ndarray, int]:
    """The design matrix of these networks, its pseudoinverse and its rank; cached, as many
    differences of a study share them.
    """
    design = pd.concat([indicators(blocks), indicators(conditions)], axis=1)
    return design, np.linalg.pinv(design.to_numpy()), int(np.linalg.matrix_rank(design.to_numpy()))


def by_task(networks: pd.DataFrame, weights: Contrast) -> list[float]:
    """The difference within each block that has all of its conditions, to compare tasks."""
    done = networks[networks.accuracy.notna()]
    done, found = done.assign(condition=conditions_of(done)), []
    for _, own in done.groupby(BLOCK, dropna=False):
        accuracy = own.accuracy.groupby(own.condition).mean()
        named = [condition for condition in weights if weights[condition]]
        if set(named) <= set(accuracy.index):
            found.append(
                float(sum(weights[condition] * accuracy[condition] for condition in named))
            )
    return found


def _carriers(
    rows: pd.DataFrame, conditions: pd.Series, blocks: pd.Series, weights: Contrast
) -> pd.DataFrame:
    """The networks of the conditions in a difference, with bases only of the tasks of the other
    networks.
    """
    named = np.array([bool(weights.get(c)) for c in conditions])
    tasks = set(blocks[named & (rows.treatment != "base")])
    return rows[named & np.array([block in tasks for block in blocks])]
