"""Intervals over images and seeds: by hand, and simulated studies in which they hold the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.statistics.over_images import (
    FEW,
    accuracy_interval,
    balanced_interval,
    binomial_images,
    covering_choice,
    difference_interval,
    margins,
    seed_part,
    two_way_interval,
)
from analysis.tables import balancing


def test_an_interval_over_images_and_seeds_holds_what_it_promises():
    """Simulated: each image is harder or easier for all seeds, each seed better or worse."""
    draw, hits = np.random.default_rng(0), 0
    for _ in range(400):
        image, seed = draw.normal(0, 0.3, 200), draw.normal(0, 0.02, (4, 1))
        values = 0.1 + image + seed + draw.normal(0, 0.2, (4, 200))
        center, low, high = two_way_interval(values)
        assert center == pytest.approx(values.mean())
        hits += low <= 0.1 <= high
    assert 0.93 <= hits / 400 <= 0.995


@pytest.mark.parametrize(
    ("seeds", "ratio", "rounded"), [(2, 1, 0.94), (2, 4, 0.87), (3, 1, 0.95), (3, 4, 0.92)]
)
def test_how_far_intervals_over_few_seeds_hold(seeds, ratio, rounded):
    """``ratio``: the standard deviation of one seed over that of the mean over images."""
    draw, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        values = draw.normal(size=(1, 400)) + draw.normal(size=(seeds, 1)) * ratio / 20
        _, low, high = two_way_interval(values)
        hits += low <= 0 <= high
    assert hits / 2000 == pytest.approx(rounded, abs=0.01), "as docs/statistics.md states"


def test_intervals_by_hand():
    one = np.array([[1.0, 0.0, 0.0, 1.0]])
    assert two_way_interval(one)[0] == 0.5
    half = 3.182446 * np.sqrt(np.var(one, ddof=1) / 4)  # Student's t with 3 degrees of freedom
    assert two_way_interval(one)[1:] == pytest.approx((0.5 - half, 0.5 + half))
    seeds = np.array([[0.0] * 5, [1.0] * 5])  # images say nothing, seeds everything
    half = 12.7062 * np.sqrt(0.5 / 2)
    assert two_way_interval(seeds)[1:] == pytest.approx((0.5 - half, 0.5 + half), rel=1e-4)
    assert two_way_interval(np.ones((1, 1)))[1:] == (-np.inf, np.inf)


@pytest.mark.parametrize("right", [36, 35, 30, 18, 3, 0])
def test_an_accuracy_of_few_images_has_the_exact_interval(right):
    """And no error more makes it seem safer."""
    row = (np.arange(36) < right).astype(float)[None]
    exact = stats.binomtest(right, 36).proportion_ci(method="exact")
    value, low, high = accuracy_interval(row)
    assert value == right / 36
    if min(right, 36 - right) < FEW:
        assert (low, high) == pytest.approx((exact.low, exact.high))
    else:
        assert (value, low, high) == two_way_interval(row)
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.03)


def test_seeds_that_differ_make_an_interval_of_few_images_wider():
    """Squares of distances are added; the mean of two seeds has 12.7 standard errors."""
    right = np.ones((2, 300))
    right[0, :3] = 0
    exact = stats.beta.ppf(0.025, 298.5, 2.5)
    seeds = 12.7062 * 0.005
    value, low, high = accuracy_interval(right)
    assert (value, high) == (0.995, 1.0)
    assert low == pytest.approx(0.995 - np.hypot(0.995 - exact, seeds), rel=1e-4)


@pytest.mark.parametrize("images", [36, 310])
def test_strategies_alike_on_all_images_are_not_certain(images):
    """As Tango's score interval: a difference in no image excludes z^2 / (images + z^2)."""
    z = stats.norm.isf(0.025)
    value, low, high = difference_interval(np.zeros((1, images)))
    assert value == 0
    assert (-low, high) == pytest.approx([z**2 / (images + z**2)] * 2, rel=1e-4)
    wider = difference_interval(np.zeros((1, images)), 1 - 0.05 / 20)
    assert wider[2] > 1.8 * high


def test_the_score_interval_by_its_equation():
    """5 and 1 of 100: at the ends the score is 1.96, with the estimate that is most probable if
    the end were true, found on a grid.
    """
    pairs = np.r_[np.ones(5), -np.ones(1), np.zeros(94)][None]
    value, *ends = difference_interval(pairs)
    assert value == pytest.approx(0.04) and ends[0] < 0.04 < ends[1]
    for end in ends:
        lost = np.linspace(max(0, -end), (1 - end) / 2, 200_001)[1:-1]
        likely = 5 * np.log(lost + end) + np.log(lost) + 94 * np.log(1 - 2 * lost - end)
        best = lost[likely.argmax()]
        error = np.sqrt((2 * best + end - end**2) / 100)
        assert abs(0.04 - end) / error == pytest.approx(1.96, abs=2e-3)


@pytest.mark.parametrize("images", [36, 153, 310, 441])
def test_what_is_a_point_behind_is_seldom_called_as_good(images):
    """In 1.2% of images the first alone is right, in 0.2% the second: truth 0.010. The upper end is
    below it in 2.5% of studies; without the score interval it was in 59%, 16%, 12% and 8%.
    """
    draw, false = np.random.default_rng(0), 0
    for _ in range(1000):
        pairs = draw.choice([1.0, -1.0, 0.0], (1, images), p=[0.012, 0.002, 0.986])
        false += difference_interval(pairs)[2] < 0.01
    assert false / 1000 < 0.04


def test_differences_of_differences_reach_two():
    twice = np.array([[2.0, 2.0, 2.0, -2.0]])
    assert difference_interval(twice) == pytest.approx(2 * np.array(difference_interval(twice / 2)))
    assert difference_interval(twice)[2] > 1 > difference_interval(twice / 2)[2]


def test_what_training_by_chance_adds_where_seeds_are_not_shared():
    """Three seeds against one: it varies as much as the three do."""
    three = np.array([[1.0] * 60 + [0.0] * 40, [1.0] * 70 + [0.0] * 30, [1.0] * 80 + [0.0] * 20])
    variance, freedom = seed_part(three, three[:1])
    assert (variance, freedom) == (pytest.approx(0.01 * (1 / 3 + 1)), 2)
    assert seed_part(three) == (pytest.approx(0.01 / 3), 2)
    assert seed_part(three[:1], three[:1]) is None
    pairs = three.mean(0, keepdims=True) - three[:1]
    alone, more = (difference_interval(pairs, seeds=own) for own in (None, (variance, freedom)))
    assert more[1] < alone[1] and more[2] > alone[2]


def test_a_balanced_accuracy_knows_that_a_class_is_small():
    """280 and 30 images, all right: two more of each kind in each class."""
    labels = np.repeat([0, 1], [280, 30])
    value, low, high = balanced_interval(np.ones((1, 310)), labels)
    variance = sum((n - 2) * 2 / n**2 / (n - 4) / 4 for n in (284, 34))
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(1 - stats.t.isf(0.025, 308) * np.sqrt(variance))
    value, low, high = balanced_interval(np.zeros((1, 310)), labels, differences=True)
    half = stats.t.isf(0.025, 308) * np.sqrt((1 / 280 / 282 + 1 / 30 / 32) / 4)
    assert value == 0 and (-low, high) == pytest.approx((half, half))


@pytest.mark.parametrize(
    ("sizes", "share", "width", "least"),
    [
        ([280, 30], 0.9, 0.13, 0.93),
        ([31] * 10, 0.9, 0.08, 0.93),
        ([30] * 3, 0.5, 0.22, 0.93),
        ([4] * 20, 0.5, 0.23, 0.92),  # four images of a class tell little of its variance
    ],
)
def test_a_balanced_accuracy_holds_what_it_promises(sizes, share, width, least):
    """Also of classes of few images, for which it held the truth in 86%."""
    draw, labels, widths = np.random.default_rng(0), np.repeat(range(len(sizes)), sizes), []
    hits = 0
    for _ in range(500):
        right = draw.random((1, len(labels))) < share
        _, low, high = balanced_interval(right.astype(float), labels)
        hits += low <= share <= high
        widths.append(high - low)
    assert least <= hits / 500 <= 0.985 and np.mean(widths) < width


def test_the_interval_of_the_choice_covers_it():
    """Two equal strategies on few validation images: the choice between them is chance."""
    draw = np.random.default_rng(0)
    val = [draw.random((1, 50)) < 0.8 for _ in range(2)]
    good, bad = np.ones((1, 200)), (draw.random((1, 200)) < 0.5).astype(float)
    good[0, :10] = 0
    low, high = covering_choice([v.astype(float) for v in (val[0], val[0])], [good, bad])
    assert 0.88 < low < 0.95 < high < 1, "equal on every draw: the first is chosen"
    low, _ = covering_choice([v.astype(float) for v in val], [good, bad])
    assert low < 0.65


def test_margins_of_few_wrong_images_are_those_of_clopper_and_pearson():
    accuracy, images = pd.Series([0.5, 1.0, 0.95, 0.0]), pd.Series([100, 100, 40, 20])
    below, above = margins(accuracy, images)
    low = stats.binomtest(38, 40).proportion_ci(method="exact").low
    assert below.tolist() == pytest.approx([0.098, 1 - 0.025 ** (1 / 100), 0.95 - low, 0])
    high = stats.binomtest(38, 40).proportion_ci(method="exact").high
    assert above.tolist() == pytest.approx([0.098, 0, high - 0.95, 1 - 0.025 ** (1 / 20)])


def test_a_balanced_accuracy_has_the_variance_of_fewer_images():
    """190 images of a class, 182 right, and 10 of the other, 9 right: the four more in each."""
    right = np.concatenate([np.arange(190) < 182, np.arange(10) < 9])
    weights = balancing(np.repeat([0, 1], [190, 10]))
    p, q = 184 / 194, 11 / 14
    variance = (p * (1 - p) / 190 + q * (1 - q) / 10) / 4
    mean = (p + q) / 2
    assert binomial_images(right, weights) == pytest.approx(mean * (1 - mean) / variance)
    equal = balancing(np.repeat([0, 1], 100))
    assert binomial_images(right, equal) == pytest.approx(200), "as plain accuracy"
    assert binomial_images(np.ones(200, bool), equal) == pytest.approx(200)


def test_margins_of_a_balanced_accuracy_hold_what_they_promise():
    """190 and 10 images: those of 200 held the truth in 57%."""
    draw, labels = np.random.default_rng(0), np.repeat([0, 1], [190, 10])
    weights, share = balancing(labels), np.where(labels, 0.6, 0.99)
    right = draw.random((500, 200)) < share
    accuracy = pd.Series((right * weights).mean(1))
    below, above = margins(accuracy, pd.Series([binomial_images(r, weights) for r in right]))
    hits = (accuracy - below <= 0.795) & (accuracy + above >= 0.795)
    assert 0.93 <= hits.mean() <= 0.99 and (below + above).mean() < 0.33
