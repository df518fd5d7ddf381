"""Estimates with intervals: Student's t, clipping to possible values, and multiple tests."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats


def within(
    estimate: tuple[float, float, float], low: float = -1.0, high: float = 1.0
) -> tuple[float, float, float]:
    """Clip an estimate and its interval to the possible values."""
    value, lowest, highest = (float(value) for value in np.clip(estimate, low, high))
    return value, lowest, highest


def t_interval(
    values: pd.Series, least: float = -np.inf, most: float = np.inf
) -> tuple[float, float, float]:
    """The mean of independent values, ignoring NaN, with its 95% interval (Student's t), clipped to
    the possible values; the interval of a single value is NaN.
    """
    center, count = float(values.mean()), int(values.count())
    half = stats.t.ppf(0.975, count - 1) * values.std() / np.sqrt(count) if count > 1 else np.nan
    return within((center, center - half, center + half), least, most)


def rank_correlation(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """Spearman's rank correlation with its 95% interval: Fisher's transformation with the variance
    1.06 / (n - 3) of Fieller, Hartley & Pearson (1957). The interval is NaN below four pairs;
    all is NaN if a side has a single value.

    A perfect correlation, whose interval would have no width, gets the interval of the next lower
    correlation of n pairs (two neighbors exchanged), extended to 1.
    """
    if min(len(np.unique(side)) for side in (predicted, measured)) < 2:
        return np.nan, np.nan, np.nan
    rho = float(stats.spearmanr(predicted, measured).statistic)
    if len(predicted) < 4:
        return rho, np.nan, np.nan
    n = len(predicted)
    most = 1 - 12 / (n**3 - n)
    center = np.arctanh(np.clip(rho, -most, most))
    half = stats.norm.ppf(0.975) * np.sqrt(1.06 / (n - 3))
    low, high = np.tanh(center - half), np.tanh(center + half)
    return rho, float(min(low, rho)), float(max(high, rho))


@dataclass(frozen=True)
class Coefficient:
    """A regression coefficient with its 95% interval; NaN without residual degrees of freedom."""

    value: float
    low: float
    high: float


def fitted(y: pd.Series, blocks: pd.Series, x: pd.Series, *others: pd.Series) -> Coefficient:
    """The least-squares coefficient of ``x`` in a model with one intercept per block and the
    ``others`` as covariates (analysis of covariance).
    """
    design = np.column_stack([x, *others, indicators(tuple(blocks))])
    inverse, rank = np.linalg.pinv(design), np.linalg.matrix_rank(design)
    coefficients = inverse @ y.to_numpy(float)
    residuals, df = y.to_numpy(float) - design @ coefficients, len(y) - rank
    half = np.nan
    if df:
        error = np.sqrt(residuals @ residuals / df * (inverse @ inverse.T)[0, 0])
        half = stats.t.ppf(0.975, df) * error
    value = float(coefficients[0])
    return Coefficient(value, value - half, value + half)


def p_value(value: float, error: float, df: int) -> float:
    """Two-sided p-value of a value whose truth is 0: Student's t, or normal without ``df``."""
    law = stats.t(df) if df else stats.norm
    return float(2 * law.sf(abs(value) / max(error, np.finfo(float).tiny)))


def holm(p: pd.Series) -> pd.Series:
    """P-values corrected for the number of tests (Holm 1979): in at most one of twenty families of
    tests, a true hypothesis has a corrected p-value below 0.05. NaN does not count as a test.
    """
    ordered = p.dropna().sort_values(kind="stable")
    steps = ordered * np.arange(len(ordered), 0, -1)
    return steps.cummax().clip(upper=1.0).reindex(p.index)


def difference(values: pd.Series, limit: float = 1.0) -> dict[str, float]:
    """:func:`t_interval` of differences of at most ``limit``, as columns of a table."""
    found = t_interval(values, -limit, limit)
    return dict(zip(("difference", "low", "high"), found, strict=True))


def indicators(labels: tuple) -> pd.DataFrame:
    """One-hot columns, one per label."""
    levels = sorted(set(labels), key=str)
    columns = {level: np.array([label == level for label in labels], float) for level in levels}
    return pd.DataFrame(
        np.column_stack(list(columns.values())), columns=pd.Index(levels, tupleize_cols=False)
    )
