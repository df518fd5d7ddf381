"""Estimates with intervals: Student's t, what is possible, and many tests at once."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats


def within(
    estimate: tuple[float, float, float], low: float = -1.0, high: float = 1.0
) -> tuple[float, float, float]:
    """An estimate with its interval, cut to what is possible."""
    value, lowest, highest = (float(value) for value in np.clip(estimate, low, high))
    return value, lowest, highest


def t_interval(
    values: pd.Series, least: float = -np.inf, most: float = np.inf
) -> tuple[float, float, float]:
    """The mean of independent values, without NaN, with its 95% interval (Student's t), which is
    cut to what values can be; of one there is no interval.
    """
    center, count = float(values.mean()), int(values.count())
    half = stats.t.ppf(0.975, count - 1) * values.std() / np.sqrt(count) if count > 1 else np.nan
    return within((center, center - half, center + half), least, most)


def rank_correlation(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """Spearman's rank correlation with its 95% interval: Fisher's transformation with the variance
    1.06 / (n - 3) of Fieller, Hartley & Pearson (1957); NaN below four pairs.

    Of a perfect correlation, where that interval would have no width, the interval of the next
    lower one that so many pairs can have (two neighbors exchanged), up to 1.
    """
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
    """What a unit of a variable is worth, with its 95% interval; none without noise to see."""

    value: float
    low: float
    high: float


def fitted(y: pd.Series, blocks: pd.Series, x: pd.Series, *others: pd.Series) -> Coefficient:
    """The coefficient of ``x`` by least squares, where every block has a level of its own and the
    ``others`` are in the model as well (analysis of covariance).
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
    """Two-sided, of a value whose truth is 0: Student's t, or normal without ``df``."""
    law = stats.t(df) if df else stats.norm
    return float(2 * law.sf(abs(value) / max(error, np.finfo(float).tiny)))


def holm(p: pd.Series) -> pd.Series:
    """p corrected for the number of tests (Holm 1979): it is below 0.05 of any true hypothesis in
    one of twenty families of tests. NaN is no test.
    """
    ordered = p.dropna().sort_values(kind="stable")
    steps = ordered * np.arange(len(ordered), 0, -1)
    return steps.cummax().clip(upper=1.0).reindex(p.index)


def difference(values: pd.Series, limit: float = 1.0) -> dict[str, float]:
    """:func:`t_interval` of differences, none larger than ``limit``, as columns of a table."""
    found = t_interval(values, -limit, limit)
    return dict(zip(("difference", "low", "high"), found, strict=True))


def indicators(labels: tuple) -> pd.DataFrame:
    """A column of zeros and ones for each label."""
    levels = sorted(set(labels), key=str)
    columns = {level: np.array([label == level for label in labels], float) for level in levels}
    return pd.DataFrame(
        np.column_stack(list(columns.values())), columns=pd.Index(levels, tupleize_cols=False)
    )
