"""The published numbers: means worked out by hand, what is missing,
and the paper's conclusions from its own data.
"""

import pandas as pd
import pytest

from analysis.paper import published
from analysis.statistics.claims import CLAIMS, assess
from analysis.statistics.decomposition import TABLE1, boosts, decompose, transition
from analysis.tables import names


@pytest.fixture(scope="module")
def networks():
    return published().networks


def test_the_list_is_the_papers(networks):
    """163 networks and 7 with random filters (paper, section 3, and the authors' list of runs)."""
    counts = networks.groupby(["split_kind", "treatment"]).size().to_dict()
    assert counts == {
        ("random", "base"): 8,
        ("random", "BnB"): 28,
        ("random", "AnB"): 56,
        ("random", "BnB+"): 14,
        ("random", "AnB+"): 28,
        ("natural-manmade", "base"): 2,
        ("natural-manmade", "AnB"): 14,
        ("all", "base"): 13,
        ("all", "RnB"): 7,
    }
    assert networks.run.is_unique and (networks.state == "done").sum() == 148


def test_the_missing_logs_are_22_fine_tuned_networks(networks):
    missing = networks[networks.state == "missing"]
    assert set(missing.treatment) == {"BnB+", "AnB+"} and len(missing) == 22
    wanted = {
        "random-1 A1A+",
        "random-1 A2A+",
        "random-1 A4A+",
        "random-1 A7A+",
        "random-1 A1B+",
        "random-1 A5B+",
    }
    wanted |= {
        "random-1 A6B+",
        "random-1 A7B+",
        *(f"random-{k} B{n}A+" for k in (0, 1) for n in range(1, 8)),
    }
    assert set(names(missing)) == wanted


@pytest.mark.parametrize(
    ("kind", "treatment", "n", "target", "mean"),
    [
        # (0.6151+0.634083+0.623163+0.624979+0.628647+0.621931+0.626+0.626907)/8
        ("random", "base", 0, None, 0.62510125),
        ("random", "AnB", 7, None, 0.5425),
        ("random", "BnB", 5, None, 0.5935),
        ("natural-manmade", "base", 0, "A", 0.653399),
        ("natural-manmade", "base", 0, "B", 0.537244),
        ("all", "RnB", 1, None, 0.491662),
        ("all", "RnB", 2, None, 0.402606),
    ],
)
def test_means_worked_out_by_hand(networks, kind, treatment, n, target, mean):
    rows = networks[
        (networks.split_kind == kind) & (networks.treatment == treatment) & (networks.n == n)
    ]
    if target:
        rows = rows[rows.target == target]
    assert rows.accuracy.mean() == pytest.approx(mean, abs=5e-5)


def test_the_printed_table_of_boosts_is_a_difference_of_means_over_different_tasks(networks):
    """The paper's table 1 to the printed digit; within tasks the boost over base is smaller.

    No task has AnB+ and BnB+: relative to their own bases, which is all that can be compared,
    they are equal.
    """
    table = boosts(networks, 8)
    assert table["difference of means"].to_numpy() == pytest.approx(
        table["printed in the paper"].to_numpy(), abs=5e-4
    )
    assert len(table) == 2 * len(TABLE1)
    over_base = table[table.over == "base"].iloc[0]
    over_selffer = table[table.over == "BnB+"].iloc[0]
    assert over_base["within tasks"] == pytest.approx(0.0114, abs=5e-5)
    assert over_selffer["within tasks"] == pytest.approx(0.0001, abs=5e-5)
    assert over_selffer.low < -0.002 and over_selffer.high > 0.002
    fine_tuned = networks[networks.accuracy.notna() & networks.treatment.isin(["AnB+", "BnB+"])]
    assert set(zip(fine_tuned.treatment, fine_tuned.target, strict=True)) == {
        ("AnB+", "B"),
        ("BnB+", "A"),
    }


def test_decomposition_at_the_middle_and_the_top(networks):
    """base - BnB and BnB - AnB within tasks: n = 5 by hand from the four tasks A of the
    random splits.
    """
    parts = decompose(networks).set_index(["quantity", "n"]).value
    own = networks[(networks.split_kind == "random") & (networks.target == "A")].pivot_table(
        index="split", columns=["treatment", "n"], values="accuracy"
    )
    by_hand = (own["base", 0] - own["BnB", 5]).mean()
    # the model also uses the tasks B
    assert parts["co-adaptation loss", 5] == pytest.approx(by_hand, abs=2e-3)
    assert by_hand == pytest.approx(0.0297, abs=1e-4)
    assert parts["specificity loss", 7] == pytest.approx(
        (own["BnB", 7] - own["AnB", 7]).mean(), abs=2e-3
    )
    assert parts["loss of random filters", 1] == pytest.approx(0.576305 - 0.491662)


def test_the_three_questions(networks):
    found = transition(networks)
    assert found.total[0] == pytest.approx(0.0816, abs=1e-4)
    assert 5.9 < found.half_layer[1] < found.half_layer[0] < found.half_layer[2] < 6.2
    assert found.largest_step[:2] == (6, 7) and 2 < found.spread[0] < 3.5


def test_the_papers_conclusions_follow_from_its_own_numbers(networks):
    table = assess(networks, 8)
    assert len(table) == len(CLAIMS)
    open_ones = table[table.verdict != "supported"]
    assert open_ones.difference.tolist() == ["AnB+ minus BnB+, mean over n"]
    assert open_ones.verdict.tolist() == ["inconclusive"] and open_ones.above.tolist() == [
        "0 of 0 tasks"
    ]
    assert table.splits.tolist() == [
        *("4", "4", "1", "1", "4", "4", "4", "1", "1"),
        *("4 + 1", "4 + 1", "1 + 1", "1", "1"),
    ]
    over_splits = table[table["holds for"] == "other splits, too"]
    assert over_splits.index.tolist() == [0, 1, 4, 5, 6, 9, 10]
    assert (over_splits["splits low"] > over_splits.threshold).all()
    assert table["holds for"][12:].tolist() == ["this split"] * 2
    assert (table.corrected == table.verdict).all()
    single = table[table.covers == "validation images only"]
    assert single.statement.str.startswith("Random filters").all() and len(single) == 2


def test_treatments_act_alike_on_all_tasks(networks):
    """What the linear model assumes: the mean loss of AnB varies between tasks no more than noise
    alone makes it.
    """
    random = networks[(networks.split_kind == "random") & networks.treatment.isin(["base", "AnB"])]
    means = random.groupby(["split", "target", "treatment"]).accuracy.mean().unstack()
    noise = 0.0022  # standard deviation of one network about the model
    assert (means.base - means.AnB).std() < 1.3 * noise * (1 + 1 / 7) ** 0.5


def test_claims_turn_with_the_data(networks):
    """Accuracies mirrored about 0.5 contradict what they supported."""
    mirrored = (
        assess(networks.assign(accuracy=1 - networks.accuracy), 8).set_index("statement").verdict
    )
    assert mirrored["AnB declines with n"] == "contradicted"
    assert mirrored["Transfer and fine-tuning beat the base"] == "contradicted"
    assert mirrored["Dissimilar tasks transfer worse"] == "contradicted"
    above = assess(networks, 8).set_index("statement").above
    assert above["AnB declines with n"] == "8 of 8 tasks", "four random splits, both directions"
    assert above["Dissimilar tasks transfer worse"] == "0 of 0 tasks", "no task is both"
    bases = assess(networks[networks.treatment == "base"], 8)
    assert (bases.verdict == "not tested").all()


def test_published_tables_are_facts_with_an_origin():
    from importlib.resources import files

    logs = pd.read_csv(files("transferability.reference") / "yosinski2014_runs.csv")
    assert len(logs) == 148 and logs.run.is_unique
    assert "yosinski2014_runs.csv" in (files("transferability.reference") / "README.md").read_text()
