"""What is printed when a study is collected: means over targets and seeds, as they say, and names
of missing networks that tell them apart.
"""

import re

import pandas as pd
import pytest

from analysis.collect import means
from analysis.figures import curves
from analysis.tables import names
from tests.made_up import row, tables_of

TWO = [
    row(cell, treatment, n, top1 - lost) | {"recipe": recipe, "images_per_class": images}
    for recipe, lost in (("slow", 0.0), ("fast", 0.2))
    for images in (None, 10)
    for cell, treatment, n, top1 in (("baseB", "base", 0, 0.8), ("A3B", "AnB", 3, 0.6))
]


def test_what_a_study_varies_is_no_mean():
    """Recipes and numbers of images were averaged."""
    text = means(tables_of(*TWO).networks)
    assert sorted(re.findall(r"0\.\d+", text)) == ["0.400"] * 2 + ["0.600"] * 4 + ["0.800"] * 2
    assert text.count("slow") == text.count("fast") == 2 and text.count("all") == 4


def test_means_stand_in_the_order_of_n():
    """Whatever the order of the networks is in the study."""
    text = means(tables_of(*reversed(TWO)).networks)
    assert text.splitlines()[0].split() == ["n", "0", "3"]


def test_a_study_that_varies_neither_is_as_ever():
    table = means(tables_of(*[one for one in TWO if one["recipe"] == "slow"][:2]).networks)
    assert table.splitlines()[1].split() == ["split", "treatment"]


def test_curves_of_several_recipes_have_panels_of_their_own():
    tables = tables_of(*TWO)
    tables.curves = pd.DataFrame(
        {"run": row.run, "step": step, "lr": 0.1, "train_loss": 1.0, "val_loss": 1.0}
        | {"val_top1": row.top1}
        for row in tables.results.itertuples()
        for step in (1, 2)
    )
    drawing = curves.draw(tables)
    found = drawing.table.query("step == 1").set_index(["group", "n"]).val_top1
    expected = {"AnB, fast, 10 images per class": 0.4, "AnB, fast": 0.4, "AnB, slow": 0.6}
    assert {group: found[group, 3] for group in expected} == pytest.approx(expected)
    assert drawing.panels[0].title == "base\nfast: accuracy"
    assert len(drawing.panels) == 2 * 8 and "evaluated once" not in drawing.caption
    ten = tables.results.run[tables.results.images_per_class == 10]
    tables.curves = tables.curves[(tables.curves.step == 1) | ~tables.curves.run.isin(ten)]
    drawing = curves.draw(tables)
    assert len(drawing.panels) == 2 * 4 and " 4 evaluated once have no curve." in drawing.caption
    assert not drawing.table.group.str.contains("10 images").any()
    tables.curves = tables.curves[tables.curves.step == 1]
    assert curves.draw(tables) == "not drawn, as every network was evaluated once"


def test_a_missing_network_is_told_from_all_others_of_the_study():
    """The only one that is missing, of two seeds, was named without its seed."""
    results = tables_of(*TWO[:2], *TWO[:2]).results.assign(seed=[0, 0, 1, 1])
    assert names(results[3:], results) == ["random-0 A3B seed 1"]
    results = tables_of(*TWO).results
    told = names(results, results)
    assert len(set(told)) == len(told) == 8
    assert names(results[-1:], results) == ["random-0 A3B 10 images per class (fast)"]
    assert names(results[:1]) == ["random-0 baseB"]
