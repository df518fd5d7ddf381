"""Two studies network by network: differences known by hand."""

import pytest
from scipy import stats

from analysis import compare
from analysis.paper import published
from analysis.style import compose, save
from analysis.tables import Tables
from transferability.errors import UserError


@pytest.fixture
def studies() -> tuple[Tables, Tables]:
    """The published numbers, and the same with every AnB raised by 0.01 or 0.03 in turn, and another dropout."""
    first = published()
    results = first.results.copy()
    raised = results.treatment == "AnB"
    results.loc[raised, "top1_mean_best10"] += [0.01 if i % 2 else 0.03 for i in range(raised.sum())]
    about = {**first.about, "network": {**first.about["network"], "dropout": 0.3}}
    return first, Tables(about, results)


def test_differences_are_those_of_the_same_networks(studies):
    shuffled = Tables(studies[1].about, studies[1].results.sample(frac=1, random_state=0))
    table = compare.summary(compare.pair(studies[0], shuffled)).set_index(["splits", "treatment"])
    of_transfers = table.loc[("random", "AnB")]
    assert of_transfers.networks == 56 and of_transfers.difference == pytest.approx(0.02)
    sd = 0.01 * (56 / 55) ** 0.5
    half = stats.t.ppf(0.975, 55) * sd / 56**0.5
    assert (of_transfers.low, of_transfers.high) == (pytest.approx(0.02 - half), pytest.approx(0.02 + half))
    assert table.loc[("random", "BnB")].difference == 0 and table.networks.sum() == 148  # of the 170 that are finished


def test_what_differs_is_named_and_drawn(studies, tmp_path):
    assert compare.differing(*studies) == ("network.dropout None", "network.dropout 0.3")
    made = compare.drawing(*studies)
    assert [p.title.split("\n")[1] for p in made.panels] == [
        *["(random-0, random-1, random-2, random-3)"] * 4, "(natural-manmade)", "(all)"
    ]  # fmt: skip
    assert "148 networks in each study" in made.caption
    assert all(path.stat().st_size > 10_000 for path in save(compose(made), tmp_path / "comparison"))


def test_nothing_in_common_is_one_clear_line(studies):
    other = Tables(studies[1].about, studies[1].results.assign(seed=7))
    with pytest.raises(UserError, match="no finished network in common"):
        compare.pair(studies[0], other)
