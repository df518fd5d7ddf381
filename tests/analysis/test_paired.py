"""Two networks on the same images: known answers, and intervals that hold what they promise."""

import numpy as np
import pandas as pd
import pytest

from analysis.statistics.paired import by_class, class_changes, mcnemar
from analysis.tables import StudyResults


def test_mcnemar_by_hand():
    """Of 10 images that only one has right the first has 9: p = 2 (1 + 10) / 2^10."""
    first = np.array([True] * 9 + [False] + [True] * 50 + [False] * 40)
    second = np.array([False] * 9 + [True] + [True] * 50 + [False] * 40)
    assert mcnemar(first, second) == pytest.approx(22 / 1024)
    assert mcnemar(first, second) == mcnemar(second, first)
    assert mcnemar(first, first) == 1.0


def test_equal_networks_do_not_differ_and_are_not_certain():
    right = np.arange(40) % 3 > 0
    rows = by_class(right, right, np.arange(40) % 4)
    assert (rows.difference == 0).all() and (rows.low < -0.05).all() and (rows.high > 0.05).all()
    assert rows.images.tolist() == [10] * 4


def test_classes_by_hand():
    labels = np.repeat([0, 1], 100)
    first, second = np.ones(200, bool), np.r_[np.zeros(60, bool), np.ones(140, bool)]
    rows = by_class(first, second, labels)
    assert rows.difference.tolist() == [0.6, 0] and rows.second.tolist() == [0.4, 1.0]
    assert rows.low[0] > 0.4 and rows.high[0] < 0.75 and rows.low[1] < 0 < rows.high[1]


def test_intervals_of_classes_hold_together():
    """In 95% of studies all of five classes' differences lie in their intervals."""
    draw, labels, hit = np.random.default_rng(0), np.repeat(range(5), 60), 0
    truth = np.array([0.0, 0.1, 0.2, -0.1, 0.05])[labels]
    for _ in range(600):
        both = draw.random(300) < 0.5
        one, other = draw.random(300) < 0.25 + truth / 2, draw.random(300) < 0.25 - truth / 2
        only = one != other
        first, second = np.where(only, one, both), np.where(only, other, both)
        # what is expected, of this mixture: P(only the first) - P(only the second)
        a, b = 0.25 + truth / 2, 0.25 - truth / 2
        expected = (a * (1 - b) - b * (1 - a))[::60]
        rows = by_class(first, second, labels)
        hit += ((rows.low <= expected) & (expected <= rows.high)).all()
    assert 0.93 < hit / 600 < 0.99


def test_intervals_of_a_hundred_classes_hold_together():
    """Normal ones of 50 images, so far from the middle, held together in 57%."""
    draw, labels, hit = np.random.default_rng(0), np.repeat(range(100), 50), 0
    for _ in range(40):
        rows = by_class(draw.random(5000) < 0.98, draw.random(5000) < 0.9, labels)
        hit += ((rows.low <= 0.08) & (rows.high >= 0.08)).all()
    assert hit >= 37


def test_the_classes_that_change_most_are_named():
    labels = np.repeat(np.arange(4), 25).astype(np.int16)
    wrong = np.where(labels == 2, 0, labels).astype(np.int16)  # the base takes class 2 for class 0
    usual = {
        "split": "pretrained",
        "split_kind": "pretrained",
        "task": "t",
        "target": "B",
        "seed": 0,
        "network": "x",
        "recipe": "y",
        "images_per_class": np.nan,
        "in_study": True,
        "state": "done",
        "val_images": 100,
    }
    rows = [
        usual | {"run": "b", "treatment": "base", "cell": "baseB", "n": 0, "top1": 0.75},
        usual | {"run": "n", "treatment": "AnB+", "cell": "A3B+", "n": 3, "top1": 1.0},
        usual | {"run": "m", "treatment": "AnB+", "cell": "A2B+", "n": 2, "top1": 0.0},
    ]
    predictions = {"b validation": wrong, "n validation": labels, "t validation": labels}
    predictions |= {"m validation": labels * 0, "t classes": np.array([3, 4, 5, 6], np.int16)}
    about = {"statistic": "top1", "dataset": {"class_names": list("abcdefgh")}}
    tables = StudyResults(about, pd.DataFrame(rows), predictions=predictions)
    changes = class_changes(tables, most=1)
    assert changes["class"].tolist() == ["f", "g"] and changes.network.str.contains("A3B").all()
    assert changes.difference.tolist() == [1.0, 0.0] and changes.p[0] == pytest.approx(2 / 2**25)
    assert class_changes(StudyResults(about, pd.DataFrame(rows))).empty
