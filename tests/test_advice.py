"""Chosen on validation, reported on test: known answers, and an interval that holds."""

import numpy as np
import pandas as pd
import pytest

from analysis.advice import advise
from analysis.paired import crossed
from analysis.tables import RESULTS, Tables


def test_an_interval_over_images_and_seeds_holds_what_it_promises():
    """Simulated: each image is harder or easier for all seeds, each seed better or worse."""
    draw, hits = np.random.default_rng(0), 0
    for _ in range(400):
        image, seed = draw.normal(0, 0.3, 200), draw.normal(0, 0.02, (4, 1))
        values = 0.1 + image + seed + draw.normal(0, 0.2, (4, 200))
        centre, low, high = crossed(values)
        assert centre == pytest.approx(values.mean())
        hits += low <= 0.1 <= high
    assert 0.93 <= hits / 400 <= 0.995


def test_intervals_by_hand():
    one = np.array([[1.0, 0.0, 0.0, 1.0]])
    assert crossed(one)[0] == 0.5
    half = 3.182446 * np.sqrt(np.var(one, ddof=1) / 4)  # Student's t with 3 degrees of freedom
    assert crossed(one)[1:] == pytest.approx((0.5 - half, 0.5 + half))
    assert crossed(np.zeros((3, 10))) == (0.0, 0.0, 0.0)
    seeds = np.array([[0.0] * 5, [1.0] * 5])  # images say nothing, seeds everything
    half = 12.7062 * np.sqrt(0.5 / 2)
    assert crossed(seeds)[1:] == pytest.approx((0.5 - half, 0.5 + half), rel=1e-4)


LABELS = np.zeros(1000, np.int16)
WAYS = {  # cell: n, copied, frozen, source, right of 1000 validation images, of 1000 test images
    "baseB": (0, 0, 0, "", 500, 510),
    "A2B": (2, 2, 2, "A", 800, 790),
    "A2B+": (2, 2, 0, "A", 860, 800),
    "A3B": (3, 3, 3, "A", 700, 700),
    "A3B+": (3, 3, 0, "A", 850, 830),
    "A1B~2": (1, 3, 1, "A", 855, 835),
    "A2.B": (2, 2, 2, "A", 790, 795),
}


def study(ways=WAYS, tests=True, seeds=(0, 1)):
    """Networks whose right images are the first ones, but for a few that a seed moves."""
    rows, predictions = [], {"t validation": LABELS, "t test": LABELS}
    for cell, (n, copied, frozen, source, val, test) in ways.items():
        for seed in seeds:
            run = f"{cell}-{seed}"
            for part, right in (("validation", val), ("test", test)):
                wrong = np.ones(1000, np.int16)
                wrong[np.arange(right) + seed] = 0
                predictions[f"{run} {part}"] = wrong
            usual = dict.fromkeys(RESULTS) | {
                "split": "pretrained",
                "split_kind": "pretrained",
                "task": "t",
                "target": "B",
                "network": "x",
                "recipe": "y",
                "in_study": True,
                "state": "done",
                "images": 100,
            }
            treatment = "base" if cell == "baseB" else cell.replace("2", "n").replace("3", "n")
            rows.append(
                usual
                | {"cell": cell, "n": n, "copied": copied, "frozen": frozen, "source": source}
                | {"seed": seed, "run": run, "treatment": treatment, "top1": val / 1000}
                | {"images_per_class": np.nan, "test_top1": test / 1000 if tests else np.nan}
            )
    about = {"given": ["x"], "layer_costs": [10, 10, 10, 1], "statistic": "top1"}
    return Tables(about, pd.DataFrame(rows), predictions=predictions)


def test_the_best_on_validation_is_reported_on_test():
    advice = advise(study())
    assert (advice.best.cell, advice.part) == ("A2B+", "test")
    assert advice.best.test == 0.8 == advice.interval[0]
    assert advice.ways.cell.tolist()[:3] == ["A2B+", "A1B~2", "A3B+"]
    falls = {cell: (way[4] - way[5]) / 1000 for cell, way in WAYS.items()}
    assert advice.optimism == pytest.approx(falls["A2B+"] - np.mean(list(falls.values())))
    rows = advice.ways.set_index("cell")
    assert rows.behind["A3B"] == pytest.approx(0.1) and rows.apart["A3B"]
    assert rows.behind["A2B+"] == 0 and not rows.apart["A2B+"]
    assert advice.scratch.cell == "baseB" and advice.probe.cell == "A2.B"
    # operations: all layers once, those that are trained twice more; the short one has two layers
    assert rows.cost["A2B+"] == 1 and rows.cost["A2B"] == pytest.approx((31 + 2 * 11) / 93)
    assert rows.cost["A2.B"] == pytest.approx(20 / 93)
    assert advice.as_good_and_cheaper.cell.tolist() == []


def test_what_serves_as_well_and_is_cheaper_is_named():
    close = WAYS | {"A2.B": (2, 2, 2, "A", 790, 800)}
    advice = advise(study(close))
    assert advice.as_good_and_cheaper.cell.tolist() == ["A2.B"]
    said = " ".join(advice.sentences)
    assert "copy 2 layers of the given network, freeze none, the others fresh (A2B+" in said
    assert "keep 2 layers of the given network, frozen, and a linear classifier" in said
    assert "22% of its operations" in said and "above training from scratch" in said
    assert "flatters it by: +0.0" in said


def test_without_test_images_it_says_that_it_flatters():
    advice = advise(study(tests=False))
    assert advice.part == "validation" and advice.interval[0] == 0.86
    assert "flatters it" in advice.sentences[-1]
    words = advice.ways.set_index("cell").words
    assert words["A1B~2"] == "copy all 3 layers of the given network, freeze 1"
    assert words["baseB"] == "train from scratch"


def test_controls_are_no_ways_and_what_is_not_finished_is_counted():
    """Own and random layers are the paper's controls; a way that lacks a seed is left out."""
    more = WAYS | {"B2B+": (2, 2, 0, "B", 990, 990), "R2B": (2, 0, 2, "R", 980, 980)}
    tables = study(more)
    assert advise(tables).ways.cell.tolist() == advise(study()).ways.cell.tolist()
    del tables.predictions["A2B+-1 validation"]
    tables.results.loc[tables.results.run == "A2B+-1", ["top1", "test_top1"]] = np.nan
    advice = advise(tables)
    assert advice.best.cell == "A1B~2" and advice.unfinished == 1
    assert "1 more lack a network, and are left out." in advice.sentences
    two = study()
    two.results.loc[0, "task"] = "another"
    two.predictions |= {"another validation": LABELS, "another test": LABELS}
    assert advise(two) is None


def test_only_studies_of_a_given_base_are_advised():
    tables = study()
    del tables.about["given"]
    assert advise(tables) is None
    tables = study()
    tables.predictions.clear()
    assert advise(tables) is None
