"""The linear model behind every difference: against paired t-tests,
known answers and simulated coverage.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from analysis.statistics.claims import assess
from analysis.statistics.intervals import difference, fitted, t_interval
from analysis.statistics.linear_model import (
    BASE,
    DISTANT,
    available,
    by_task,
    estimate,
    estimate_jointly,
    mean,
    subtract,
)
from analysis.statistics.over_splits import BySplit
from analysis.statistics.paired import by_class

TINY = (("base", 0, 0.75), ("AnB", 3, 0.25))


def network(
    split, target, treatment, n, accuracy, seed=0, kind="random", val_images=1000, recipe="r"
):
    return {
        "split": split,
        "split_kind": kind,
        "target": target,
        "task": f"{split} {target}",
        "treatment": treatment,
        "n": n,
        "seed": seed,
        "accuracy": accuracy,
        "val_images": val_images,
        "images_per_class": np.nan,
        "recipe": recipe,
        "network": "small",
    }


def study(cells, blocks, noise=0.0, generator=None):
    """Networks for every cell in every block: accuracy = block + cell + noise."""
    return pd.DataFrame(
        network(
            f"random-{i}",
            "A",
            treatment,
            n,
            block + effect + (generator.normal(0, noise) if noise else 0),
        )
        for i, block in enumerate(blocks)
        for (treatment, n), effect in cells.items()
    )


CELLS = {BASE: 0.0, ("BnB", 3): -0.02, ("AnB", 3): -0.05, ("AnB", 7): -0.1, ("AnB+", 3): 0.03}


def test_one_difference_is_the_paired_t_test():
    generator = np.random.default_rng(1)
    rows = study({BASE: 0.0, ("AnB", 3): -0.05}, generator.uniform(0.3, 0.8, 6), 0.01, generator)
    first, second = (rows[rows.treatment == t].accuracy.to_numpy() for t in ("AnB", "base"))
    wanted = scipy_stats.ttest_rel(first, second).confidence_interval(0.95)
    found = estimate(rows, subtract(mean("AnB", [3]), {BASE: 1.0}))
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert found.value == pytest.approx((first - second).mean())
    assert (found.df, found.networks, found.tasks, found.covers) == (5, 12, 6, "networks")


def test_differences_are_within_tasks_also_where_the_study_is_incomplete():
    """AnB+ only on easy tasks, BnB+ only on hard ones: means differ by 0.4, the truth is 0.01."""
    cells = {BASE: 0.0, ("AnB+", 3): 0.03, ("BnB+", 3): 0.02}
    rows = study(cells, [0.2, 0.25, 0.6, 0.65])
    easy = rows.split.isin(["random-2", "random-3"])
    rows = rows[~((rows.treatment == "AnB+") & ~easy) & ~((rows.treatment == "BnB+") & easy)]
    means = rows.groupby("treatment").accuracy.mean()
    assert means["AnB+"] - means["BnB+"] == pytest.approx(0.41)
    assert estimate(rows, subtract(mean("AnB+", [3]), mean("BnB+", [3]))).value == pytest.approx(
        0.01
    )


def test_where_no_task_has_both_sides_other_treatments_have_no_say():
    """AnB and BnB lose less on the tasks of AnB+:
    that is no part of what AnB+ and BnB+ gain over their bases.
    """
    cells = {BASE: 0.0, ("AnB+", 3): 0.03, ("BnB+", 3): 0.02, ("AnB", 3): -0.05, ("BnB", 3): -0.02}
    rows = study(cells, [0.2, 0.25, 0.6, 0.65])
    easy = rows.split.isin(["random-2", "random-3"])
    rows.loc[easy & rows.treatment.isin(["AnB", "BnB"]), "accuracy"] += 0.01
    difference = subtract(mean("AnB+", [3]), mean("BnB+", [3]))
    both = estimate(rows, difference)
    assert both.value == pytest.approx(0.01) and both.high > both.low + 0.001, (
        "the noise is that of all networks"
    )
    apart = rows[~((rows.treatment == "AnB+") & ~easy) & ~((rows.treatment == "BnB+") & easy)]
    found = estimate(apart, difference)
    assert found.value == pytest.approx(0.01, abs=1e-9)
    assert found.error == pytest.approx(1 / np.sqrt(4000 * 4002)), "without noise: of the images"
    assert by_task(apart, difference) == []


@pytest.mark.parametrize(("splits", "targets"), [(1, "B"), (1, "AB"), (3, "AB")])
@pytest.mark.parametrize("kept", [False, True])
def test_networks_that_agree_on_few_images_are_not_shown_to_be_equal(splits, targets, kept):
    """All networks are right on all 20 images of every task: a loss of 1 point is not excluded, and
    rounding errors have no small p-values.
    """
    cells = [("base", 0), *((t, n) for t in ("BnB", "BnB+", "AnB", "AnB+") for n in range(1, 8))]
    rows = pd.DataFrame(
        network(f"random-{k}", target, treatment, n, 1.0, val_images=20)
        for k in range(splits)
        for target in targets
        for treatment, n in cells
    )
    rows = rows.assign(right=[np.ones(20, bool)] * len(rows)) if kept else rows
    found = assess(rows, 8)
    tested = found[found.verdict != "not tested"]
    assert len(tested) == 9 and set(tested.verdict) == {"inconclusive"}
    assert tested.p.min() > 0.3
    images = 20 * splits * len(targets)
    error = estimate(rows, subtract({BASE: 1.0}, mean("AnB", [3]))).error
    assert error == pytest.approx(1 / np.sqrt(images * (images + 2)))
    over = BySplit(rows).estimate(subtract({BASE: 1.0}, mean("AnB", [3]))).error
    assert over == pytest.approx(error) if splits > 1 else np.isnan(over)


def test_the_t_interval_counts_values_not_gaps():
    found = t_interval(pd.Series([0.01, 0.02, 0.03, np.nan]))
    half = 4.302653 * 0.01 / 3**0.5  # Student's t with two degrees of freedom
    assert found == pytest.approx((0.02, 0.02 - half, 0.02 + half), abs=1e-6)


def test_a_difference_in_each_task_alone():
    rows = study(CELLS, [0.5, 0.6, 0.7])
    rows.loc[(rows.split == "random-1") & (rows.treatment == "AnB+"), "accuracy"] -= 0.1
    rows = rows[~((rows.split == "random-2") & (rows.treatment == "BnB"))]
    found = by_task(rows, subtract(mean("AnB+", [3]), mean("BnB", [3])))
    assert found == pytest.approx([0.05, -0.05]), "the third task has no BnB"
    assert len(by_task(rows, subtract(mean("AnB+", [3]), {BASE: 1.0}))) == 3


def test_what_cannot_be_told_is_none():
    rows = study({BASE: 0.0}, [0.5]).iloc[:1]
    lonely = pd.concat([rows, pd.DataFrame([network("random-9", "B", "AnB", 3, 0.4)])])
    assert estimate(lonely, subtract(mean("AnB", [3]), {BASE: 1.0})) is None, "no task has both"
    assert estimate(rows, subtract(mean("AnB", [3]), {BASE: 1.0})) is None, "no such network"
    unfinished = study(CELLS, [0.5, 0.6]).assign(
        accuracy=lambda r: r.accuracy.where(r.treatment != "AnB")
    )
    assert estimate(unfinished, subtract(mean("AnB", [3]), {BASE: 1.0})) is None
    assert available(unfinished, "AnB") == [] and available(unfinished, "BnB") == [3]


def test_single_networks_have_the_binomial_interval_of_their_validation_images():
    rows = study({BASE: 0.0, ("AnB", 3): -0.1}, [0.6])
    found = estimate(rows, subtract(mean("AnB", [3]), {BASE: 1.0}))
    error = np.sqrt((0.6 * 0.4 + 0.5 * 0.5) / 1000)
    assert (found.df, found.covers) == (0, "validation images only")
    assert (found.low, found.high) == pytest.approx(
        (-0.1 - 1.959964 * error, -0.1 + 1.959964 * error)
    )


def test_networks_of_one_task_are_compared_on_the_same_images():
    """The interval is that of the paired differences; across tasks images are not the same."""
    draw = np.random.default_rng(0)
    easy = draw.random(1000)
    right = {name: easy + draw.normal(0, 0.1, 1000) > bar for name, bar in (("a", 0.4), ("b", 0.5))}
    rows = study({BASE: 0.0, ("AnB", 3): -0.1}, [0.6])
    rows = rows.assign(right=[right["a"], right["b"]])
    rows = rows.assign(accuracy=rows.right.map(np.mean))
    found = estimate(rows, subtract(mean("AnB", [3]), {BASE: 1.0}))
    paired = right["b"].astype(int) - right["a"]
    half = 1.959964 * paired.std() / np.sqrt(1000)
    assert (found.low, found.high) == pytest.approx((paired.mean() - half, paired.mean() + half))
    alone = estimate(rows.drop(columns="right"), subtract(mean("AnB", [3]), {BASE: 1.0}))
    assert found.value == alone.value and found.high - found.low < 0.6 * (alone.high - alone.low)
    unknown = rows.assign(right=[right["a"], None])
    assert estimate(unknown, subtract(mean("AnB", [3]), {BASE: 1.0})) == alone
    other = pd.concat([rows, rows.assign(task="another", split="another")]).iloc[[0, 1, 2]]
    far = estimate(other, subtract(mean("AnB", [3]), {BASE: 1.0}))
    assert far.df == 0 and (far.high - far.low) == pytest.approx(found.high - found.low)


def test_random_filters_do_not_count_as_noise_of_the_others():
    generator = np.random.default_rng(2)
    rows = study(CELLS, [0.4, 0.5, 0.6], 0.01, generator)
    wild = pd.DataFrame(
        network(f"random-{i}", "A", "RnB", n, generator.uniform(0, 0.5))
        for i in range(3)
        for n in (1, 2)
    )
    difference = subtract(mean("AnB", [3]), mean("BnB", [3]))
    assert estimate(pd.concat([rows, wild]), difference) == estimate(rows, difference)
    assert estimate(pd.concat([rows, wild]), subtract({BASE: 1.0}, mean("RnB", [1]))).df > 0


def test_dissimilar_tasks_have_effects_of_their_own():
    near = study({BASE: 0.0, ("AnB", 3): -0.05}, [0.5, 0.6])
    far = study({BASE: 0.0, ("AnB", 3): -0.2}, [0.3, 0.4]).assign(
        split="natural-manmade", split_kind="natural-manmade"
    )
    far["target"] = far.groupby("treatment").cumcount().map({0: "A", 1: "B"})
    far["task"] = far.split + " " + far.target
    rows = pd.concat([near, far], ignore_index=True)
    assert estimate(rows, subtract({BASE: 1.0}, mean("AnB", [3]))).value == pytest.approx(0.05)
    assert estimate(rows, subtract({BASE: 1.0}, mean(DISTANT + "AnB", [3]))).value == pytest.approx(
        0.2
    )
    assert estimate(
        rows, subtract(mean("AnB", [3]), mean(DISTANT + "AnB", [3]))
    ).value == pytest.approx(0.15)


def test_a_task_is_its_classes_whatever_its_split_is_called():
    """Two splits of one name are four tasks, and one that goes by two names is one."""
    rows = study(CELLS, [0.4, 0.5, 0.6, 0.7], 0.01, np.random.default_rng(6))
    difference = subtract(mean("AnB", [3]), {BASE: 1.0})
    wanted = estimate(rows, difference)
    assert estimate(rows.assign(split="mine"), difference) == wanted and (
        wanted.tasks,
        wanted.df,
    ) == (4, 20 - 4 - 4)
    renamed = rows.assign(
        split=[f"{split}-{n}" for split, n in zip(rows.split, rows.n, strict=True)]
    )
    assert estimate(renamed, difference) == wanted


def test_the_order_of_networks_does_not_matter():
    rows = study(CELLS, [0.4, 0.5, 0.6], 0.01, np.random.default_rng(3))
    shuffled = rows.sample(frac=1, random_state=0)
    difference = subtract(mean("AnB", [3, 7]), {BASE: 1.0})
    one, other = estimate(rows, difference), estimate(shuffled, difference)
    assert (one.value, one.low, one.high) == pytest.approx(
        (other.value, other.low, other.high), abs=1e-12
    )


def test_draws_have_the_spread_of_the_estimates():
    rows = study(CELLS, [0.4, 0.5, 0.6], 0.01, np.random.default_rng(5))
    contrasts = [subtract(mean("AnB", [n]), {BASE: 1.0}) for n in (3, 7)]
    joint = estimate_jointly(rows, contrasts)
    samples = joint.samples(20_000, np.random.default_rng(0))
    for k, found in enumerate(joint.intervals(0.95)):
        assert np.quantile(samples[:, k], [0.025, 0.975]) == pytest.approx(
            [found.low, found.high], abs=0.002
        )
    assert (samples == joint.samples(20_000, np.random.default_rng(0))).all()


def test_a_slope_with_a_level_for_each_block_known_by_hand():
    """x is -1, 0, 1 in both blocks: the slope is (4 - 0 + 14 - 10) / 4 = 2; what is left are
    -1/3, 2/3, -1/3 and 2/3, -4/3, 2/3, so 10/3 of squares over 3 degrees of freedom.
    """
    y, x = pd.Series([0.0, 3, 4, 10, 10, 14]), pd.Series([-1.0, 0, 1] * 2)
    found = fitted(y, pd.Series(list("aaabbb")), x)
    half = scipy_stats.t.ppf(0.975, 3) * np.sqrt(10 / 9 / 4)
    assert (found.value, found.high - found.value) == pytest.approx((2, half))
    assert found.value - found.low == pytest.approx(half)
    bend = fitted(y, pd.Series(list("aaabbb")), x**2, x)
    assert bend.value == pytest.approx((2 - 3 + 12 - 10) / 2)  # ends less middles
    none = fitted(y[:2], pd.Series(["a", "a"]), x[:2])  # nothing is left over
    assert none.value == pytest.approx(3) and np.isnan([none.low, none.high]).all()


def test_no_interval_leaves_what_is_possible():
    """Of two tasks that disagree wholly, and of the very few images of one."""
    rows = [
        network(split, "B", treatment, n, accuracy)
        for split, accuracies in (("s0", (1.0, 0.0)), ("s1", (0.9, 0.6)))
        for (treatment, n), accuracy in zip((BASE, ("AnB", 3)), accuracies, strict=True)
    ]
    networks, loss = pd.DataFrame(rows), subtract({BASE: 1.0}, {("AnB", 3): 1.0})
    found, over = estimate(networks, loss), BySplit(networks).estimate(loss)
    assert (found.value, found.high) == (pytest.approx(0.65), 1.0) and found.low == -1.0
    assert over.interval() == (-1.0, 1.0)
    # a difference of differences goes from -2 to 2
    twice = {BASE: 2.0, ("AnB", 3): -2.0}
    assert (estimate(networks, twice).low, estimate(networks, twice).high) == (-2.0, 2.0)
    one = pd.DataFrame([network("s0", "B", t, n, a, val_images=4) for t, n, a in TINY])
    assert estimate(one, loss).df == 0 and estimate(one, loss).high == 1.0
    assert t_interval(pd.Series([0.1, 0.9]), 0, 1) == (0.5, 0.0, 1.0)
    assert difference(pd.Series([0.1, 0.9]))["high"] == 1.0
    assert difference(pd.Series([0.1, 0.9]), 2.0)["high"] == 2.0
    assert t_interval(pd.Series([1.0, 9.0]))[2] == pytest.approx(5 + 4 * 12.7062, abs=1e-3)


def test_no_interval_of_a_class_leaves_what_is_possible():
    right, wrong = np.ones(2, bool), np.zeros(2, bool)
    rows = by_class(np.tile(right, 200), np.tile(wrong, 200), np.repeat(np.arange(200), 2))
    assert rows.high.max() == 1.0 and rows.low.between(-1, 1).all()
