"""Where and how suddenly specificity arises, on losses whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from analysis.statistics.claims import assess
from analysis.statistics.decomposition import boosts, decompose, transition
from analysis.statistics.linear_model import BASE
from tests.analysis.test_linear_model import study

LAYERS = range(1, 8)


def with_losses(losses, co_adaptation=0.0, noise=0.002, tasks=4):
    """A study in which AnB loses ``losses``[n] beyond BnB."""
    cells = {BASE: 0.0}
    for n, loss in zip(LAYERS, losses, strict=True):
        cells |= {("BnB", n): -co_adaptation, ("AnB", n): -co_adaptation - loss}
        cells |= {("BnB+", n): 0.01, ("AnB+", n): 0.04}
    generator = np.random.default_rng(0)
    return study(cells, generator.uniform(0.4, 0.6, tasks), noise, generator)


def test_a_sudden_loss_is_at_one_step():
    found = transition(with_losses([0, 0, 0, 0.1, 0.1, 0.1, 0.1], noise=1e-5))
    assert found.total[0] == pytest.approx(0.1, abs=1e-4)
    assert found.half_layer[0] == pytest.approx(3.5, abs=0.01)  # half way between n = 3 and n = 4
    assert found.spread[0] == pytest.approx(1, abs=0.01)
    assert found.largest_step == (3, 4, pytest.approx(1, abs=0.01))


def test_a_gradual_loss_is_spread_over_all_steps():
    found = transition(with_losses([0.01 * n for n in LAYERS], noise=1e-5))
    assert found.half_layer[0] == pytest.approx(3.5, abs=0.01)
    assert found.spread[0] == pytest.approx(7, abs=0.02)


def test_no_loss_has_no_place():
    assert transition(with_losses([0] * 7)) is None
    only_bases = with_losses([0] * 7)
    assert transition(only_bases[only_bases.treatment == "base"]) is None


def test_intervals_of_place_hold_the_truth_and_are_seeded():
    rows = with_losses([0, 0, 0, 0.02, 0.05, 0.08, 0.1], noise=0.005)
    found = transition(rows)
    assert (
        found.half_layer[1] <= 5.0 <= found.half_layer[2]
        and found.half_layer[2] - found.half_layer[1] < 1
    )
    assert transition(rows) == found


def test_quantities_are_the_differences_they_name():
    parts = decompose(with_losses([0.01 * n for n in LAYERS], co_adaptation=0.03, noise=1e-5))
    values = parts.set_index(["quantity", "n"]).value
    for n in LAYERS:
        assert values["co-adaptation loss", n] == pytest.approx(0.03, abs=1e-4)
        assert values["specificity loss", n] == pytest.approx(0.01 * n, abs=1e-4)
        assert values["recovery", n] == pytest.approx(0.04, abs=1e-4)
        assert values["gain over control", n] == pytest.approx(0.03, abs=1e-4)
        assert values["gain over base", n] == pytest.approx(0.04, abs=1e-4)
        assert values["retraining gain", n] == pytest.approx(0.01, abs=1e-4)


def test_intervals_of_a_quantity_hold_together():
    """Seven intervals at once: each as wide as 1 - 0.05/7 asks."""
    from scipy import stats

    from analysis.statistics.linear_model import estimate, mean, subtract

    rows = with_losses([0.0] * 7)
    part = decompose(rows).query("quantity == 'transfer loss' and n == 3").iloc[0]
    single = estimate(rows, subtract({BASE: 1.0}, mean("AnB", [3])))
    ratio = stats.t.ppf(1 - 0.05 / 14, single.df) / stats.t.ppf(0.975, single.df)
    assert (part.high - part.low) / (single.high - single.low) == pytest.approx(ratio)


def test_boosts_count_only_layers_that_are_there():
    rows = with_losses([0.0] * 7, noise=1e-5)
    table = boosts(rows[rows.n.isin([0, 1, 5])], 8).set_index(["over", "n"])
    assert (
        table.loc[("base", "1–7"), "AnB+ networks"] == 8
        and table.loc[("BnB+", "5–7"), "controls"] == 4
    )
    assert table["within tasks"].to_numpy() == pytest.approx([0.04] * 3 + [0.03] * 3, abs=1e-4)
    assert table["difference of means"].to_numpy() == pytest.approx(
        [0.04] * 3 + [0.03] * 3, abs=1e-4
    )


def test_boosts_compare_the_same_layers():
    """BnB+ at n = 1 alone, and AnB+ that gains with n."""
    rows = with_losses([0.0] * 7, noise=1e-5)
    rows.loc[rows.treatment == "AnB+", "accuracy"] += 0.01 * rows.n
    table = boosts(rows[(rows.treatment != "BnB+") | (rows.n == 1)], 8).set_index(["over", "n"])
    assert table.loc[("BnB+", "1–7"), "within tasks"] == pytest.approx(0.03 + 0.01, abs=1e-4)
    assert np.isnan(table.loc[("BnB+", "5–7"), "within tasks"])


def test_a_loss_that_may_be_none_after_the_first_layers_has_a_place():
    """Some draws never rise above 0 in the end: they have no half."""
    rows = with_losses([0.02, -0.01, -0.01, 0.0, 0.0, 0.0, 0.012], noise=0.01, tasks=6)
    rows["split"] = "random-0"
    found = transition(rows)
    assert found and np.isfinite([*found.half_layer, *found.spread]).all()


def test_thresholds_are_shares_of_the_bases_in_the_claim():
    """Between natural and man-made accuracies are lower;
    claims about random splits do not ask them.
    """
    near = with_losses([0.0] * 7, noise=1e-5)
    filters = near[near.treatment == "AnB"].assign(treatment="RnB")
    near = pd.concat([near, filters], ignore_index=True)
    far = near[near.treatment.isin(["base", "AnB"])].assign(split_kind="natural-manmade")
    far["accuracy"], far["task"] = far.accuracy - 0.3, "natural-manmade " + far.task
    own, both = (
        assess(rows, 8).set_index("statement").threshold for rows in (near, pd.concat([near, far]))
    )
    claim = "Random filters collapse from layer 3 on (more than 90% of the base's accuracy is lost)"
    assert own[claim] == pytest.approx(0.9 * near[near.treatment == "base"].accuracy.mean())
    assert both[claim] == own[claim]


def test_a_claim_about_some_layers_is_tested_on_those_of_them_that_are_there():
    table = assess(with_losses([0, 0, 0, 0.02, 0.05, 0.08, 0.1]), 8).set_index("statement")
    assert table.verdict["AnB falls most at layers 6 and 7"] == "supported"
    rows = with_losses([0, 0, 0, 0.02, 0.05, 0.08, 0.1])
    part = (
        assess(rows[rows.n.isin([0, 1, 3, 5, 7])], 8)
        .set_index("statement")
        .loc["AnB falls most at layers 6 and 7"]
    )
    assert part.layers == "3 5 7" and part.effect == pytest.approx(0.1 - 0.025, abs=0.005)


def test_what_is_kept_is_of_these_networks_and_nobody_changes_it():
    one, other = with_losses([0.01 * n for n in LAYERS]), with_losses([0.02 * n for n in LAYERS])
    first = decompose(one)
    again = decompose(one.copy())
    pd.testing.assert_frame_equal(first, again)
    again["value"] = 0.0
    pd.testing.assert_frame_equal(first, decompose(one))
    assert not decompose(other).value.equals(first.value)
    assert not decompose(one[one.n < 7]).n.isin([7]).any()
