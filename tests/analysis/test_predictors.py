"""Predictors on cases with known answers."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from analysis.figures import predictors
from analysis.measurements.predictors import h_score, knn, leep, logme, shrinkage
from analysis.statistics.intervals import rank_correlation


def drawn(count, width, classes=3, apart=0.0, seed=0):
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centers = draw.normal(size=(classes, width))
    return draw.normal(size=(count, width)) + apart * centers[labels], labels


@pytest.mark.parametrize(("count", "width"), [(30, 4), (12, 20)])
def test_logme_is_the_largest_evidence_of_a_bayesian_linear_model(count, width):
    """y ~ N(0, 1/beta + F F' / alpha), maximised over both numerically."""
    features, labels = drawn(count, width, apart=1.0)

    def evidence(logs, y):
        alpha, beta = np.exp(logs)
        covariance = np.eye(count) / beta + features @ features.T / alpha
        return stats.multivariate_normal(np.zeros(count), covariance).logpdf(y)

    best = [
        -optimize.minimize(lambda p, y=y: -evidence(p, y), [0, 0], method="Nelder-Mead").fun
        for y in ((labels == c).astype(float) for c in range(3))
    ]
    assert logme(features, labels) == pytest.approx(np.mean(best) / count, abs=1e-4)


def test_logme_prefers_features_that_tell_classes_apart_and_knows_no_axes():
    plain, apart = drawn(60, 8)[0], drawn(60, 8, apart=2.0)[0]
    labels = np.arange(60) % 3
    assert logme(apart, labels) > logme(plain, labels) + 0.1
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))
    assert logme(apart @ turn, labels) == pytest.approx(logme(apart, labels), abs=1e-6)
    assert logme(apart, 2 - labels) == pytest.approx(logme(apart, labels), abs=1e-9)


def plain_h_score(features, labels):
    """tr(S^-1 S_between), Bao et al. 2019."""
    x = features - features.mean(0)
    own = np.stack([x[labels == c].mean(0) for c in labels])
    inverse = np.linalg.pinv(x.T @ x / len(x), hermitian=True)
    return np.trace(inverse @ (own.T @ own / len(x)))


def test_the_plain_h_score_of_few_images_says_nothing():
    """It is the number of classes minus one for any features of more dimensions than images."""
    features, labels = drawn(40, 100, classes=4)
    assert plain_h_score(features, labels) == pytest.approx(3.0, abs=1e-6)
    better = drawn(40, 100, classes=4, apart=1.0)[0]
    assert plain_h_score(better, labels) == pytest.approx(3.0, abs=1e-6)
    assert h_score(features, labels) < 1 and h_score(better, labels) > 1.5


def test_the_h_score_of_many_images_is_fishers_ratio():
    """One dimension: variance between classes over the whole variance."""
    features, labels = drawn(3000, 1, apart=1.0)
    between = np.var([features[labels == c].mean() for c in range(3)])
    assert plain_h_score(features, labels) == pytest.approx(between / features.var())
    assert h_score(features, labels) == pytest.approx(between / features.var(), rel=0.01)


def test_shrinkage_is_ledoit_and_wolfs():
    x = np.random.default_rng(0).normal(size=(15, 6)) * np.arange(1, 7)
    x = x - x.mean(0)
    s = x.T @ x / 15
    target = np.trace(s) / 6 * np.eye(6)
    spread = sum(((np.outer(v, v) - s) ** 2).sum() for v in x) / 15**2
    assert shrinkage(x) == pytest.approx(min(spread / ((s - target) ** 2).sum(), 1))
    assert shrinkage(np.random.default_rng(0).normal(size=(4, 50))) > 0.5


def test_leep_by_hand():
    labels = np.array([0, 0, 1, 1])
    sure = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]], float)
    assert leep(sure, labels) == pytest.approx(0.0), "each class of the base is one of the task's"
    blind = np.full((4, 3), 1 / 3)
    assert leep(blind, labels) == pytest.approx(-np.log(2)), "the entropy of the labels"
    half = np.array([[1, 0], [0.5, 0.5], [0, 1], [0, 1]], float)
    # P(0|first) = 1, P(0|second) = 0.5 / 2.5
    expected = np.mean(np.log([1, 0.5 + 0.5 * 0.2, 0.8, 0.8]))
    assert leep(half, labels) == pytest.approx(expected)


def test_nearest_neighbors_by_hand():
    train = np.r_[np.tile([[1.0, 0.1]], (10, 1)), np.tile([[0.1, 1.0]], (12, 1))]
    labels = np.r_[np.zeros(10, int), np.ones(12, int)]
    asked = np.array([[5.0, 0.0], [0.0, 0.2], [3.0, 0.5], [0.0, 9.0]])
    assert knn(train, labels, asked, np.array([0, 1, 0, 0])) == 0.75


def test_rank_correlation_and_its_interval():
    x = np.arange(10.0)
    assert rank_correlation(x, x**3)[0] == pytest.approx(1.0)
    rho, low, high = rank_correlation(x, np.array([0, 2, 1, 3, 5, 4, 6, 9, 8, 7.0]))
    center, half = np.arctanh(rho), 1.959964 * np.sqrt(1.06 / 7)
    assert (low, high) == pytest.approx((np.tanh(center - half), np.tanh(center + half)))
    assert np.isnan(rank_correlation(x[:3], x[:3])[1])
    half = 1.959964 * np.sqrt(1.06)  # four pairs in perfect order prove little: the next has 0.8
    assert rank_correlation(x[:4], x[:4])[1:] == pytest.approx((np.tanh(np.arctanh(0.8) - half), 1))
    assert rank_correlation(x[:4], -x[:4])[1:] == pytest.approx(
        (-1, np.tanh(half - np.arctanh(0.8)))
    )


def test_equal_accuracies_have_no_rank_correlation(recwarn):
    """As where every depth is right on all validation images."""
    n = pd.Index(range(1, 6), name="n")
    table = predictors._correlated(pd.Series(range(5), n), pd.Series(1.0, n))
    assert np.isnan(table["rank correlation"]) and not recwarn.list
    (row,) = pd.DataFrame([{"predictor": "LogME"} | table]).itertuples()
    assert predictors._title(row) == "LogME: no rank correlation"
