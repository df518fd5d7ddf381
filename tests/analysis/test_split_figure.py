"""The main figure on several splits: each faintly, their mean with the interval over splits."""

import numpy as np
import pandas as pd
import pytest

from analysis.figures import accuracy
from analysis.plotting import captions
from analysis.plotting.layout import render
from analysis.questions import replicates
from tests.made_up import networks, tables_of


def several(splits, without=lambda row, split: False):
    """Tables of made-up splits: what tests.made_up has for one, a little higher in each."""
    rows = [
        row
        | {"split": f"random-{k}", "run": f"{row['run']}-{k}"}
        | {"top1": row["top1"] + 0.01 * k**2 + 0.003 * k * (row["n"] > 0)}
        for k in range(splits)
        for row in networks(8, splits=("random-0",))
        if not without(row, k)
    ]
    return tables_of(*rows)


def lines(drawing):
    """(thin, bars) of the panel of means."""
    (axes,) = render(drawing.panels[1]).axes
    thin = [line for line in axes.lines if line.get_linewidth() == 0.7]
    return thin, axes.containers


def test_every_split_is_drawn_and_their_mean_has_the_interval_over_splits():
    drawing = accuracy.draw(several(4))
    row = drawing.table.set_index(["treatment", "n"]).loc[("AnB", 3)]
    values = several(4).networks.query("treatment == 'AnB' and n == 3")
    by_split = values.groupby("split").accuracy.mean()
    half = 3.182446 * by_split.std() / 2
    assert row["splits high"] - row["mean over splits"] == pytest.approx(half)
    assert row["mean over splits"] == pytest.approx(by_split.mean())
    thin, bars = lines(drawing)
    treatments = drawing.table.treatment.nunique()
    assert len(thin) == 4 * treatments and len(bars) == len(drawing.table)
    assert "thin lines are 4 splits" in drawing.caption
    assert "covers other splits of the same classes" in drawing.caption


def test_a_mean_is_of_n_that_all_splits_have():
    """Of three splits every second n of AnB+ is missing: no mean of one split there."""

    def missing(row, split):
        return split > 0 and row["treatment"] == "AnB+" and row["n"] % 2 == 0

    table = accuracy.draw(several(4, missing)).table.set_index(["treatment", "n"])
    known = table.loc["AnB+", "mean over splits"].dropna()
    assert known.index.tolist() == [1, 3, 5, 7]
    assert table.loc["AnB", "mean over splits"].notna().all()


def test_of_fewer_than_three_splits_bars_are_between_networks():
    for count in (1, 2):
        drawing = accuracy.draw(several(count))
        assert "standard deviation between networks" in drawing.caption
        assert "thin lines" not in drawing.caption and "splits low" not in drawing.table
        thin, bars = lines(drawing)
        assert thin == [] and len(bars) == len(drawing.table), "one of each mean"


def test_a_panel_has_one_kind_of_bars():
    """Between networks, where a mean is of several; a single one then has none. Where each mean is
    of one network, all bars are of its validation images.
    """
    rows = several(1).results
    single = tables_of(*rows[rows.target == "A"].to_dict("records"))
    drawing = accuracy.draw(single)
    assert "95% interval of its validation images" in drawing.caption
    assert len(lines(drawing)[1]) == len(drawing.table)
    one_less = rows[~((rows.target == "A") & (rows.treatment == "AnB") & (rows.n == 3))]
    drawing = accuracy.draw(tables_of(*one_less.to_dict("records")))
    assert "one standard deviation between networks, none where" in drawing.caption
    assert len(lines(drawing)[1]) == len(drawing.table) - 1


def test_replicates_have_both_intervals_side_by_side():

    def other(row, split):
        return row["n"] not in (0, 3)

    table = replicates.draw(several(4, other)).table
    assert set(table.splits) == {"4"}
    own = table.set_index(["quantity", "n"]).loc["gain over base", 3]
    assert own.low < own.difference < own.high and own["model low"] < own.model < own["model high"]
    assert own.difference == pytest.approx(own.model)
    seeds = pd.concat([several(1, other).results.assign(seed=seed) for seed in (0, 1)])
    single = replicates.draw(tables_of(*seeds.to_dict("records"))).table
    assert set(single.splits) == {"1"} and np.isnan(single.low).all(), "two seeds are one split"


def test_a_single_split_of_a_kind_speaks_for_itself_alone():
    said = " What it shows is of this split alone."
    assert said in captions.counts(several(1).networks)
    assert "alone" not in captions.counts(several(2).networks)
