"""Intervals over splits: known answers, and how often they hold the truth in simulated studies."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from analysis.statistics.claims import assess
from analysis.statistics.decomposition import decompose, transition
from analysis.statistics.intervals import holm
from analysis.statistics.linear_model import (
    BASE,
    DISTANT,
    _model,
    blocks_of,
    conditions_of,
    estimate,
    mean,
    subtract,
)
from analysis.statistics.over_splits import BySplit, over, splits_of
from tests.analysis.test_linear_model import network

STUDIES = 2000
CELLS = {BASE: 0.0, ("BnB", 3): -0.02, ("AnB", 3): -0.05, ("AnB", 7): -0.1, ("AnB+", 3): 0.03}
LOSS = subtract({BASE: 1.0}, mean("AnB", [3, 7]))  # 0.075
DRAW = np.random.default_rng


def study(cells=CELLS, splits=4, shift=lambda split, treatment, n: 0.0, noise=0.0, seed=0):
    """Both directions of random splits: accuracy = task + cell + what the split adds + noise."""
    draw = DRAW(seed)
    return pd.DataFrame(
        network(
            f"random-{k}",
            target,
            treatment,
            n,
            0.5 + 0.02 * k + effect + shift(k, treatment, n) + noise * draw.normal(),
        )
        for k in range(splits)
        for target in "AB"
        for (treatment, n), effect in cells.items()
    )


def simulated(rows, interaction, noise=0.005):
    """(networks, STUDIES) accuracies of the design of ``rows``: treatments act on every split
    otherwise, with this standard deviation, and networks differ by ``noise``. A loss is 0.075.
    """
    draw, conditions = DRAW(7), conditions_of(rows)
    pairs = pd.factorize(pd.Series(list(zip(rows.split, rows.treatment, strict=True))))[0]
    acts = interaction * draw.normal(size=(pairs.max() + 1, STUDIES))[pairs]
    acts[(rows.treatment == "base").to_numpy()] = 0
    tasks = pd.factorize(rows.task)[0]
    levels = draw.normal(0.5, 0.1, (tasks.max() + 1, STUDIES))[tasks]
    effects = conditions.map(CELLS).to_numpy(float)[:, None]
    return levels + effects + acts + noise * draw.normal(size=acts.shape)


def intervals(rows, accuracy, weights):
    """(low, high) over splits and of the linear model, (STUDIES,) each."""
    by_split, blocks, conditions = BySplit(rows), blocks_of(rows), conditions_of(rows)
    places = {block: i for i, block in enumerate(dict.fromkeys(blocks))}
    table = np.full((*by_split.accuracy.shape, STUDIES), np.nan)
    for block, condition, values in zip(blocks, conditions, accuracy, strict=True):
        table[places[block], by_split.conditions.index(condition)] = values
    by_split.accuracy = table
    value, error, df = over(*(values for _, values in by_split.values(weights)))
    half = scipy_stats.t.ppf(0.975, df) * error
    design, inverse, rank = _model(tuple(blocks), tuple(conditions))
    carried = np.array([weights.get(c, 0.0) for c in design.columns]) @ inverse
    residuals = accuracy - design.to_numpy() @ (inverse @ accuracy)
    df = len(rows) - rank
    error = np.sqrt((residuals**2).sum(0) / df * (carried @ carried))
    model, wide = carried @ accuracy, scipy_stats.t.ppf(0.975, df) * error
    return (value - half, value + half), (model - wide, model + wide)


def test_what_is_simulated_are_the_intervals_of_the_pages():
    rows = study()
    accuracy = simulated(rows, 0.01)
    over_splits, model = intervals(rows, accuracy, LOSS)
    for k in (0, STUDIES - 1):
        one = rows.assign(accuracy=accuracy[:, k])
        found = estimate(one, LOSS)
        assert (found.low, found.high) == pytest.approx((model[0][k], model[1][k]))
        assert BySplit(one).estimate(LOSS).interval() == pytest.approx(
            (over_splits[0][k], over_splits[1][k])
        )


@pytest.mark.parametrize(
    ("interaction", "direction_missing", "of_model"),
    [
        (0.0, False, (0.93, 0.97)),
        (0.01, False, (0.80, 0.87)),  # 83%: the model's is too narrow for other splits
        (0.01, True, (0.80, 0.88)),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(interaction, direction_missing, of_model):
    """2,000 studies of four splits, with and without an interaction of treatment and split."""
    rows = study()
    if direction_missing:
        rows = rows[~((rows.split == "random-3") & (rows.target == "A"))].reset_index(drop=True)
    over_splits, model = intervals(rows, simulated(rows, interaction), LOSS)
    covered, old = (
        float(np.mean((low <= 0.075) & (high >= 0.075))) for low, high in (over_splits, model)
    )
    print(f"interaction {interaction}: over splits {covered:.3f}, model {old:.3f}")
    assert 0.93 <= covered <= 0.97
    assert of_model[0] <= old <= of_model[1]


def test_the_interval_is_students_t_over_the_means_of_both_directions():
    by_hand = np.array([0.07, 0.08, 0.075, 0.09])
    rows = study(shift=lambda k, t, n: (0.075 - by_hand[k]) * (t == "AnB"))
    rows.loc[(rows.target == "A") & (rows.treatment == "AnB"), "accuracy"] += 0.01
    rows.loc[(rows.target == "B") & (rows.treatment == "AnB"), "accuracy"] -= 0.01
    found = BySplit(rows).estimate(LOSS)
    half = 3.182446 * by_hand.std(ddof=1) / 2
    assert found.interval() == pytest.approx((by_hand.mean() - half, by_hand.mean() + half))
    assert (found.splits, found.df, found.decides, found.count) == ((4,), 3, True, "4")
    seeds = pd.concat([rows, rows[rows.target == "A"].assign(seed=1)], ignore_index=True)
    assert BySplit(seeds).estimate(LOSS).value == pytest.approx(found.value), "seeds are no tasks"


def test_a_split_with_fewer_directions_than_others_is_left_out():
    rows = study(shift=lambda k, t, n: 0.01 * k * (t == "AnB"))
    lacks = (rows.split == "random-3") & (rows.target == "B") & (rows.treatment == "AnB")
    found = BySplit(rows[~lacks]).estimate(LOSS)
    assert (found.splits, found.value) == ((3,), pytest.approx(0.065))
    one_way = BySplit(rows[rows.target == "A"]).estimate(LOSS)
    assert one_way.splits == (4,)


def test_of_fewer_than_three_splits_nothing_holds_for_others():
    two, one = (BySplit(study(splits=k)).estimate(LOSS) for k in (2, 1))
    assert not two.decides and np.isfinite(two.interval()).all()
    assert not one.decides and np.isnan(one.interval()).all() and one.value == pytest.approx(0.075)
    assert BySplit(study()).estimate(mean("RnB", [1])) is None


def test_where_no_task_has_both_sides_they_are_added_within_the_split():
    """AnB+ of tasks B and AnB of tasks A, each relative to its base."""
    rows = study(shift=lambda k, t, n: 0.01 * k * (t == "AnB+"))
    wrong = {"A": "AnB+", "B": "AnB"}
    rows = rows[rows.treatment != rows.target.map(wrong)]
    difference = subtract(mean("AnB+", [3]), mean("AnB", [3]))
    found = BySplit(rows).estimate(difference)
    assert (found.splits, found.value) == ((4,), pytest.approx(0.08 + 0.015))
    assert found.error == pytest.approx(np.std([0, 0.01, 0.02, 0.03], ddof=1) / 2)


def test_one_dissimilar_split_is_taken_to_vary_as_random_ones_do():
    """The difference of a mean of four and one more: Student's t of a pooled variance."""
    losses = np.array([0.04, 0.05, 0.06, 0.05])
    near = study(shift=lambda k, t, n: (0.05 - losses[k]) * (t == "AnB"))
    far = study(splits=1, shift=lambda k, t, n: -0.1 * (t == "AnB"))
    far = far.assign(split="natural-manmade", split_kind="natural-manmade", task=far.target)
    rows = pd.concat([near, far], ignore_index=True)
    found = BySplit(rows).estimate(subtract(mean("AnB", [3]), mean(DISTANT + "AnB", [3])))
    assert (found.count, found.df, found.decides) == ("4 + 1", 3, True)
    assert found.value == pytest.approx(0.1)
    assert found.error == pytest.approx(losses.std(ddof=1) * np.sqrt(1 + 1 / 4))


def test_names_that_share_a_task_are_one_split():
    rows = study(splits=3)
    assert set(splits_of(rows)) == {"random-0", "random-1", "random-2"}
    rows.loc[rows.task == "random-1 A", "task"] = "random-0 A"
    assert set(splits_of(rows)) == {"random-0 + random-1", "random-2"}
    assert splits_of(rows[::-1]).index.tolist() == rows.index.tolist()[::-1]


def test_holm_by_hand():
    found = holm(pd.Series([0.01, 0.04, np.nan, 0.03, 0.005]))
    assert found.tolist() == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True)
    assert holm(pd.Series([0.6, 0.7])).tolist() == [1.0, 1.0]


EVERYTHING = {BASE: 0.0} | {
    (t, n): 0.0 for t in ("BnB", "AnB", "BnB+", "AnB+") for n in range(1, 8)
}


def gains(splits, by_split=(0.06, -0.01, 0.02, 0.01)):
    """AnB+ gains this much in each split, at every n."""
    return study(EVERYTHING, splits, lambda k, t, n: by_split[k] * (t == "AnB+"), 0.002)


def claim(table, difference="AnB+ minus base, mean over n"):
    return table.set_index("difference").loc[difference]


def test_a_verdict_is_by_the_interval_over_splits_where_there_are_three():
    many, few = claim(assess(gains(4), 8)), claim(assess(gains(2), 8))
    assert many.low > 0 > many["splits low"], "the model is sure of these networks"
    assert (many.verdict, many["holds for"], many.splits) == (
        "inconclusive",
        "other splits, too",
        "4",
    )
    assert many.p == pytest.approx(
        2
        * scipy_stats.t.sf(
            many["over splits"]
            / BySplit(gains(4)).estimate(subtract(mean("AnB+", range(1, 8)), {BASE: 1.0})).error,
            3,
        )
    )
    assert few.low > 0 > few["splits low"]
    assert (few.verdict, few["holds for"]) == ("supported", "these splits")
    assert claim(assess(gains(1), 8))["holds for"] == "this split"


def test_of_splits_with_other_n_those_are_compared_that_all_have():
    rows = gains(4, (0.02, 0.021, 0.019, 0.02))
    part = (rows.treatment == "AnB+") & (rows.split != "random-0") & (rows.n % 2 == 0)
    found = claim(assess(rows[~part], 8))
    assert (found.layers, found.splits, found.verdict) == ("1 3 5 7", "4", "supported")


def test_no_loss_excludes_more_than_the_margin():
    rows = study(EVERYTHING, 4, lambda k, t, n: -0.015 * (t == "AnB"), 0.002)
    difference = "AnB, n = 1, 2, minus base"
    found, wider = claim(assess(rows, 8), difference), claim(assess(rows, 8, 0.02), difference)
    assert (found.threshold, found.verdict) == (-0.01, "contradicted")
    assert (wider.threshold, wider.verdict) == (-0.02, "supported")
    assert found.statement == "Layers 1 and 2 transfer without loss (of 1 point or more)"
    assert wider.statement == "Layers 1 and 2 transfer without loss (of 2 points or more)"


def test_a_verdict_that_does_not_stand_together_with_the_others_is_marked():
    table = assess(gains(1, (0.003,)), 8)
    tested = table.p.notna()
    assert tested.sum() == 9 and (table["p corrected"] >= table.p)[tested].all()
    assert table["p corrected"].min() == pytest.approx(9 * table.p.min())
    open_again = (table.p < 0.05) & (table["p corrected"] >= 0.05)
    assert open_again.any() and (table.corrected[open_again] == "inconclusive").all()
    kept = ~open_again
    assert (table.corrected[kept] == table.verdict[kept]).all()


def test_losses_for_each_n_have_both_intervals_and_hold_together():
    rows = gains(4)
    part = decompose(rows).query("quantity == 'gain over base' and n == 3").iloc[0]
    found = BySplit(rows).estimate(subtract(mean("AnB+", [3]), {BASE: 1.0}))
    assert part["splits low"] == pytest.approx(
        found.value - scipy_stats.t.ppf(1 - 0.05 / 14, 3) * found.error
    )
    assert part.low > 0 > part["splits low"]


def test_where_specificity_arises_has_an_interval_over_splits():
    """The half lies at n = 3.5 in every split but one, whose loss comes a layer later."""
    rows = study(EVERYTHING, 4, lambda k, t, n: -0.1 * (t == "AnB") * (n >= 4 + (k == 3)), 1e-6)
    found = transition(rows)
    _, half, spread = found.over_splits
    assert found.splits == 4 and half[0] == pytest.approx(3.75, abs=1e-3)
    assert half[2] - half[0] == pytest.approx(3.182446 * 0.25, abs=1e-3)
    assert spread[0] == pytest.approx(1, abs=1e-3)
    assert transition(rows[rows.split == "random-0"]).over_splits == ()
