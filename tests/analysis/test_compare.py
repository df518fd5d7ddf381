"""Two studies side by side: differences and intervals known by hand."""

import runpy
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from analysis import compare
from analysis.statistics.intervals import t_interval
from analysis.statistics.over_images import difference_interval
from analysis.tables import StudyResults
from tests.made_up import networks, tables_of
from transferability.errors import UserError

NAMES = ("old", "new")


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def study(rows: list[tuple], checksum: str = "c", layers: int = 8, **about) -> StudyResults:
    """``(task, seed, cell, n, top1)``; treatments follow from the cells."""
    usual = networks(2, (), ["random-0"])[0]
    treatment = {"base": "base", "A3B": "AnB"}
    made = [
        usual
        | {"task": task, "seed": seed, "cell": cell, "n": n, "top1": top1, "target": "B"}
        | {"treatment": treatment[cell.removesuffix("B") if n == 0 else cell]}
        for task, seed, cell, n, top1 in rows
    ]
    tables = tables_of(*made, layers=layers)
    tables.metadata["dataset"]["checksum"] = checksum
    tables.metadata["recipe"] |= about
    return tables


def run() -> None:
    """``python -m analysis.compare`` in this process."""
    with pytest.raises(SystemExit):
        runpy.run_module("analysis.compare", run_name="__main__")


OLD = [("x", 0, "baseB", 0, 0.5), ("x", 0, "A3B", 3, 0.4)]
OLD += [("y", 0, "baseB", 0, 0.6), ("y", 0, "A3B", 3, 0.5)]
NEW = [("x", 0, "baseB", 0, 0.7), ("x", 0, "A3B", 3, 0.65)]
NEW += [("y", 0, "baseB", 0, 0.6), ("y", 0, "A3B", 3, 0.57)]


def rows_of(first: StudyResults, second: StudyResults) -> dict[str, dict]:
    table = compare.compared(first, second, NAMES).table
    return {row["treatment"]: row for row in table.to_dict("records")}


def test_tasks_that_both_have_are_compared_task_by_task():
    """Relative to their bases: -0.1 and -0.1 in one, -0.05 and -0.03 in the other."""
    found = rows_of(study(OLD), study(NEW, lr=0.5))
    value, low, high = t_interval(pd.Series([0.05, 0.07]))
    assert value == pytest.approx(0.06)
    expected = {"first": -0.1, "second": -0.04, "difference": value, "low": low, "high": high}
    assert {k: found["AnB"][k] for k in expected} == pytest.approx(expected)
    assert (found["AnB"]["networks in both"], found["AnB"]["covers"]) == (2, "2 tasks")
    assert found["base"]["difference"] == pytest.approx(0.1)  # 0.2 and 0


def test_tasks_of_other_images_are_other_tasks():
    found = rows_of(study(OLD), study(NEW, "another"))["AnB"]
    assert (found["networks in both"], found["covers"]) == (0, "2 and 2 other tasks")
    half = 12.706204736 * 0.01  # Welch: the old ones do not vary, the new ones by 0.01 * sqrt(2)
    assert found["difference"] == pytest.approx(0.06)
    assert found["high"] - found["difference"] == pytest.approx(half)
    alone = rows_of(study(OLD[:2]), study(NEW, "another"))["AnB"]
    assert np.isnan(alone["low"]) and alone["covers"].startswith("no interval: no task in both")


def test_tasks_that_differ_equally_are_compared_without_a_warning():
    """The same loss of both tasks differs in its last bits, of which SciPy warns."""
    with warnings.catch_warnings(action="error"):
        found = rows_of(study(OLD), study(NEW, "another"))["AnB"]
    assert found["low"] < found["difference"] < found["high"]


def test_settings_of_older_tables_have_their_current_names():
    first, second = study(OLD), study(NEW)
    first.metadata["recipe"] = {"optimiser": "sgd", "steps": 100}
    second.metadata["recipe"] = {"optimizer": "adamw", "steps": 100}
    made = compare.compared(first, second, NAMES)
    assert "They differ in: recipe optimizer sgd and adamw." in made.caption


def test_tables_that_do_not_say_the_classes_are_paired_by_split_and_target():
    first, second = (study([row for row in rows if row[0] == "x"]) for rows in (OLD, NEW))
    older = StudyResults(first.metadata, first.results.drop(columns="task"))
    assert older.without_tasks and not second.without_tasks
    found = rows_of(older, second)["AnB"]
    assert found["networks in both"] == 1
    assert found["difference"] == pytest.approx((0.65 - 0.7) - (0.4 - 0.5))
    assert rows_of(older, older)["base"]["difference"] == 0


def test_one_task_is_compared_on_the_same_images():
    """Of four images the old network has one right, the new one three; the bases two each."""
    first, second = study(OLD[:2]), study(NEW[:2])
    right = {"old base": [1, 1, 0, 0], "old": [0, 0, 0, 1], "new base": [1, 0, 1, 0]}
    right["new"] = [1, 1, 1, 0]
    for tables, name in ((first, "old"), (second, "new")):
        base, copied = tables.results.run
        tables.predictions = {
            f"{base} validation": np.array(right[f"{name} base"]),
            f"{copied} validation": np.array(right[name]),
            "x validation": np.ones(4, int),
        }
    found = rows_of(first, second)["AnB"]
    by_image = [1, 2, 0, -1]  # (new - its base) - (old - its base)
    value, low, high = difference_interval(np.array([by_image]))
    assert value == 0.5 and 1 < high < 2  # differences of differences reach 2
    assert found["covers"] == "the same images"
    assert [found[k] for k in ("difference", "low", "high")] == pytest.approx([value, low, high])
    second.predictions = {}
    found = rows_of(first, second)["AnB"]
    assert np.isnan(found["low"]) and found["covers"] == "no interval: one task, no predictions"


def test_networks_of_one_target_and_several_sources_are_paired_source_by_source():
    """Three sources at growing distances: the new study gains 0, 0.1 and 0.2."""

    def sources(gain: float) -> StudyResults:
        rows = [("x", 0, "A3B", 3, 0.5 + gain * i) for i in range(3)]
        tables = study([("x", 0, "baseB", 0, 0.5), *rows])
        tables.results["split"] = ["distance-0", "distance-0", "distance-1", "distance-2"]
        tables.predictions = {"x validation": np.ones(20, int)} | {
            f"{row.run} validation": np.arange(20) < 20 * row.top1
            for row in tables.results.itertuples()
        }
        return tables

    found = rows_of(sources(0.0), sources(0.1))["AnB"]
    by_image = np.arange(20) < np.array([[10], [12], [14]])
    expected = difference_interval(by_image - (np.arange(20) < 10).astype(float))
    assert found["networks in both"] == 3
    assert found["covers"] == "the same images and 3 networks"
    assert [found[k] for k in ("difference", "low", "high")] == pytest.approx(expected)


def test_both_have_the_statistic_of_the_first():
    """One is shown by balanced accuracy, 0.1 lower than accuracy: it is no difference between the
    studies, and table and figure say the same.
    """
    plain, balanced = study(OLD), study(OLD)
    for tables in (plain, balanced):
        tables.results["top1_balanced"] = tables.results.top1 - 0.1
    balanced.metadata |= {"statistic": "top1_balanced", "statistic_label": "balanced accuracy"}
    for first, second, base in ((plain, balanced, 0.55), (balanced, plain, 0.45)):
        made = compare.compared(first, second, NAMES)
        table = made.table.set_index("treatment")
        assert table.loc["base", ["first", "second"]].tolist() == pytest.approx([base, base])
        assert f"old {base:.3f}; new {base:.3f}" in made.caption
        assert f"Accuracy: {first.metadata['statistic_label']}." in made.caption
    del plain.results["top1_balanced"]
    with pytest.raises(
        UserError, match=r"new has no numbers of the column top1_balanced.*new first"
    ):
        compare.compared(balanced, plain, NAMES)


def test_balanced_accuracy_of_one_task_is_not_replaced_by_that_of_its_images():
    tables = [study(OLD[:2]), study(NEW[:2])]
    for one in tables:
        one.results["top1_balanced"] = one.results.top1 - [0.1, 0.2]
        one.metadata["statistic"] = "top1_balanced"
        base, copied = one.results.run
        one.predictions = dict.fromkeys((f"{base} validation", f"{copied} validation"), np.ones(4))
        one.predictions["x validation"] = np.ones(4)
    found = rows_of(*tables)["AnB"]
    assert found["difference"] == pytest.approx(found["second"] - found["first"])
    assert found["difference"] == pytest.approx(0.05) and np.isnan(found["low"])
    assert found["covers"] == "no interval: one task, top1_balanced"


def test_what_differs_is_said_and_what_cannot_be_compared_refused(tmp_path, monkeypatch, capsys):
    made = compare.compared(study(OLD), study(NEW, lr=0.5, steps=200), NAMES)
    assert "They differ in: recipe steps 100 and 200." in made.caption
    assert [panel.title.split(":")[0] for panel in made.panels] == ["AnB"]
    with pytest.raises(UserError, match="old has networks of 8 layers, new of 9"):
        compare.compared(study(OLD), study(NEW, layers=9), NAMES)
    with pytest.raises(UserError, match="no finished treatment of the same n"):
        compare.compared(study(OLD[1:2]), study(NEW[:1]), NAMES)
    for name, rows in zip(NAMES, (OLD, NEW), strict=True):
        study(rows).write(tmp_path / name)
    folders = [str(tmp_path / name) for name in NAMES]
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["compare", *folders, "--out", str(out), "--format", "png"])
    run()
    assert "2 tasks" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"compare.csv", "compare.png"}
    monkeypatch.setattr("sys.argv", ["compare", folders[0]])
    run()
    assert "1 folders: two are compared" in capsys.readouterr().err
