"""Chosen on validation, reported on test: known answers, and an interval that holds."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.figures import advice as figure
from analysis.plotting.layout import compose, render
from analysis.plotting.plot import scatter
from analysis.strategies import advise, confusions, summary
from analysis.tables import RESULTS, StudyResults

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
    about |= {"dataset": {"name": "d"}, "network": {"name": "x", "layers": 4}}
    about |= {"recipe": {"batch_size": 10}}
    return StudyResults(about, pd.DataFrame(rows), predictions=predictions)


def test_the_best_on_validation_is_reported_on_test():
    (advice,) = advise(study())
    assert (advice.best.cell, advice.subset) == ("A2B+", "test")
    assert advice.best.test == 0.8
    assert advice.strategies.cell.tolist()[:3] == ["A2B+", "A1B~2", "A3B+"]
    falls = {cell: (way[4] - way[5]) / 1000 for cell, way in WAYS.items()}
    assert advice.optimism == pytest.approx(falls["A2B+"] - np.mean(list(falls.values())))
    rows = advice.strategies.set_index("cell")
    assert rows.behind["A3B"] == pytest.approx(0.1) and rows.apart["A3B"]
    assert rows.behind["A2B+"] == 0 and not rows.apart["A2B+"]
    assert advice.scratch.cell == "baseB" and advice.probe.cell == "A2.B"
    # operations: all layers once, those that are trained twice more; the short one has two layers
    assert rows.cost["A2B+"] == 1 and rows.cost["A2B"] == pytest.approx((31 + 2 * 11) / 93)
    assert rows.cost["A2.B"] == pytest.approx(20 / 93)
    # A1B~2 is even ahead on test images; A2.B is behind by 0.005 [0.001, 0.012], and by up to 0.014
    # as one of the five that are cheaper
    assert (rows.high["A2.B"], rows.bound["A2.B"]) == pytest.approx((0.0117, 0.0144), abs=1e-4)
    assert advice.as_good_and_cheaper.cell.tolist() == ["A1B~2"]
    assert advise(study(), 0.015)[0].as_good_and_cheaper.cell.tolist() == ["A2.B", "A1B~2"]


def test_two_phases_cost_both():
    """The second starts from a linear classifier of 200 images, or from the network of its own
    recipe; another recipe's is another network.
    """
    two = {"A2.B++": (2, 2, 0, "A", 870, 840), "A2B++": (2, 2, 0, "A", 865, 835)}
    tables = study(WAYS | two)
    probes = tables.results[tables.results.cell == "A2.B"]
    probes = probes.assign(recipe="probe", images=200, run=probes.run + "-probe", in_study=False)
    tables.results = pd.concat([tables.results, probes], ignore_index=True)
    (advice,) = advise(tables)
    cost = advice.strategies.set_index("cell").cost
    second = 100 * 3 * 20
    assert cost["A2B+"] == pytest.approx(9300 / (second + 200 * 20))
    assert cost["A2B++"] == pytest.approx((9300 + 100 * (31 + 2 * 11)) / (second + 200 * 20))
    assert cost["A2.B++"] == 1


def test_what_serves_as_well_and_is_cheaper_is_named():
    close = WAYS | {"A2.B": (2, 2, 2, "A", 790, 800)}
    (advice,) = advise(study(close))
    assert advice.as_good_and_cheaper.cell.tolist() == ["A2.B", "A1B~2"]
    assert advice.open_and_cheaper.empty
    said = " ".join(advice.sentences)
    assert (
        "Cheaper and as good (less than 1 point behind, 95% for all cheaper ones together): 2 of"
        in said
    )
    assert "copy 2 layers of the pretrained network, freeze none, the others random (A2B+" in said
    assert "keep 2 layers of the pretrained network, frozen, and a linear classifier" in said
    assert "22% of its operations" in said and "above training from scratch" in said
    assert "selecting on validation accuracy: +0.0" in said


def test_what_cannot_be_told_apart_is_not_called_as_good():
    """Equally many are right, but others: 0.000 [-0.039, 0.039] does not exclude 0.01 behind."""
    tables = study(seeds=(0,))
    for cell, place in (("A2B+", 0), ("A2.B", 1), ("A2B", 0)):
        tables.predictions[f"{cell}-0 test"] = (np.arange(1000) % 5 == place).astype(np.int16)
    (advice,) = advise(tables)
    row = advice.strategies.set_index("cell").loc["A2.B"]
    assert row.behind == 0 and row.high == pytest.approx(0.039, abs=5e-4) and not row.apart
    assert advice.as_good_and_cheaper.cell.tolist() == ["A2B", "A1B~2"], "A2B: the same images"
    assert advice.open_and_cheaper.cell.tolist() == ["A2.B"]
    assert any("no evidence that they are as good or worse: 1" in said for said in advice.sentences)


def test_without_test_images_it_says_that_it_is_optimistic():
    (advice,) = advise(study(tests=False))
    assert advice.subset == "validation" and advice.best.test == 0.86
    assert "which is optimistic" in advice.sentences[-1]
    words = advice.strategies.set_index("cell").words
    assert words["A1B~2"] == "copy all 3 layers of the pretrained network, freeze 1"
    assert words["baseB"] == "train from scratch"


def test_controls_are_no_ways_and_what_is_not_finished_is_counted():
    """Own and random layers are the paper's controls; a way that lacks a seed is left out."""
    more = WAYS | {"B2B+": (2, 2, 0, "B", 990, 990), "R2B": (2, 0, 2, "R", 980, 980)}
    tables = study(more)
    assert advise(tables)[0].strategies.cell.tolist() == advise(study())[0].strategies.cell.tolist()
    del tables.predictions["A2B+-1 validation"]
    tables.results.loc[tables.results.run == "A2B+-1", ["top1", "test_top1"]] = np.nan
    (advice,) = advise(tables)
    assert advice.best.cell == "A1B~2" and advice.unfinished == 1
    assert "1 more lack a network, and are left out." in advice.sentences
    two = study()
    two.results.loc[0, "task"] = "another"
    two.predictions |= {"another validation": LABELS, "another test": LABELS}
    assert advise(two) == []


def test_families_are_the_four_questions_and_their_ends_are_shared():
    (advice,) = advise(study())
    found = {name: advice.family(name) for name in ("base", "An.B", "AnB", "AnB+", "AnB~all")}
    cells = {name: sorted(rows.cell) for name, rows in found.items()}
    assert cells == {
        "base": ["baseB"],
        "An.B": ["A2.B"],
        "AnB": ["A2B", "A3B"],
        "AnB+": ["A2B+", "A3B+"],
        "AnB~all": ["A1B~2", "A3B", "A3B+"],
    }
    curve = advice.curve("AnB~all")
    assert curve.n.tolist() == [0, 1, 3] and curve.cell.tolist() == ["A3B+", "A1B~2", "A3B"]


def test_at_each_n_the_recipe_that_is_best_and_what_trained_longer_apart():
    tables = study()
    slow, long = study(WAYS), study({"A3B+": (3, 3, 0, "A", 900, 900)})
    slow.results["recipe"], long.results["recipe"] = "y, rate 0.003", "long"
    slow.results.loc[slow.results.cell == "A2B", ["top1", "test_top1"]] = 0.81, 0.5
    slow.results["run"], long.results["run"] = slow.results.run + "s", long.results.run + "l"
    long.results["images"] = 400
    for other, mark in ((slow, "s"), (long, "l")):
        tables.results = pd.concat([tables.results, other.results], ignore_index=True)
        keys = {k.replace(" ", f"{mark} ", 1): v for k, v in other.predictions.items()}
        tables.predictions |= {k: v for k, v in keys.items() if not k.startswith("t")}
    (advice,) = advise(tables)
    assert advice.best.cell == "A3B+" and advice.best.longer == 4
    wanted = "study=pretrained all_images=true cell=A3B+ recipe.steps=40 seed=0"
    assert advice.settings == wanted.split()
    curve = advice.curve("AnB").set_index("n")
    assert curve.recipe[2] == "y, rate 0.003" and curve.recipe[3] == "y"
    assert set(advice.curve("AnB~all").longer) == {1}


def test_each_number_of_images_has_its_advice_and_a_row_of_the_summary():
    tables, few = study(), study({k: (*v[:4], v[4] - 100, v[5] - 100) for k, v in WAYS.items()})
    few.results["images_per_class"], few.results["run"] = 10.0, few.results.run + "f"
    tables.results = pd.concat([tables.results, few.results], ignore_index=True)
    tables.predictions |= {
        k.replace(" ", "f ", 1): v for k, v in few.predictions.items() if not k.startswith("t ")
    }
    fewer, every = advise(tables)
    assert (fewer.images_per_class, every.images_per_class) == (10, None)
    assert fewer.best.test == 0.7 and every.best.test == 0.8
    table = summary([fewer, every])
    assert table["images a class"].tolist() == [10, "all"] and table.test.tolist() == [0.7, 0.8]
    assert table["from scratch"].tolist() == [0.41, 0.51]
    assert table["linear classifier"].tolist() == [0.695, 0.795]
    assert table["all fine-tuned"].tolist() == [0.73, 0.83]
    drawing = figure.draw(tables)
    assert [p.title for p in drawing.panels[:2]] == [
        "10 training images per class",
        "All training images",
    ]
    assert len(drawing.panels) == 3 and set(drawing.table.family) == set(figure.LOOKS) - {"AnB++"}
    compose(drawing)


def test_linear_classifiers_alone_say_which_depth():
    tables = study({"A2.B": WAYS["A2.B"], "A3.B": WAYS["A3B"]})
    fewer = tables.results.assign(images_per_class=10.0)
    tables.results = pd.concat([tables.results, fewer], ignore_index=True)
    few, every = advise(tables)
    assert few.best.cell == every.best.cell == "A2.B" and every.best.test == 0.795
    drawing = figure.draw(tables)
    assert [p.title for p in drawing.panels][-1] == "What more images are worth"
    (legend,) = [one.get_legend() for one in render(drawing.panels[-1]).axes]
    assert [text.get_text() for text in legend.get_texts()] == [
        "the best on validation",
        "linear classifier",
    ]
    alone = study({"A2.B": WAYS["A2.B"]})
    assert advise(alone) == [] and "fewer than two strategies" in figure.draw(alone)


def test_two_phases_are_a_family_of_their_own():
    tables = study(WAYS | {"A3B++": (3, 3, 0, "A", 870, 860), "A2.B++": (2, 2, 0, "A", 840, 820)})
    (advice,) = advise(tables)
    assert advice.family("AnB++").cell.tolist() == ["A3B++", "A2.B++"]
    assert set(advice.family("AnB+").cell) == {"A2B+", "A3B+"}
    assert advice.family("AnB~all").cell.tolist() == ["A1B~2", "A3B+", "A3B"]
    assert advice.best.words == (
        "keep 3 layers of the pretrained network, train a randomly initialized head on them, "
        "then fine-tune all"
    )
    drawing = figure.draw(tables)
    assert drawing.table[drawing.table.family == "AnB++"].n.tolist() == [2, 3]
    compose(drawing)


def test_a_value_that_is_missing_has_neither_mark_nor_tip():
    axes = Figure().subplots()
    scatter(axes, [1, 2, 3], pd.Series([0.5, np.nan, 0.7]), figure.LOOKS["AnB"], ["a", "b", "c"])
    (marks,) = axes.collections
    assert marks.tips == ["a", "c"] and len(marks.get_offsets()) == 2


def test_a_confusion_matrix_counts_every_seed_and_names_of_many_classes_the_mistakes():
    tables = study()
    tables.metadata["dataset"] = {"class_names": ["cat", "dog"]}
    tables.predictions["t classes"] = np.array([0, 1], np.int16)
    (advice,) = advise(tables)
    matrix = confusions(tables, advice)
    assert matrix.columns.tolist() == ["", "cat", "dog"]
    assert matrix.to_numpy()[:, 1:].tolist() == [[1600, 400], [0, 0]]
    tables.metadata["dataset"] = {"class_names": list("abcdefghijklmn")}
    tables.predictions["t classes"] = np.arange(14, dtype=np.int16)
    worst = confusions(tables, advice).iloc[0]
    assert (worst.shows, worst["taken for"], worst.images, worst.share) == ("a", "b", 400, 0.2)


def test_only_studies_of_a_given_base_are_advised():
    tables = study()
    del tables.metadata["given"]
    assert advise(tables) == []
    tables = study()
    tables.predictions.clear()
    assert advise(tables) == []
