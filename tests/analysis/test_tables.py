"""Tables are read as they were written, whatever the names in them look like."""

import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.csv_files import TEXTS, read_csv, write_csv
from analysis.figures.write import drawings
from analysis.paper import published
from analysis.report import write_report
from analysis.tables import RESULTS, StudyResults

NUMBERS = (
    "1e3",
    "true",
    "False",
    "007",
    "2024",
    "NA",
    "nan",
    "None",
    "inf",
    "-inf",
    "1_000",
    "2024-01-01",
    "0x10",
    "1.50",
)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_column_of_text_is_text_whatever_it_holds(tmp_path, name):
    texts = {column: [name, name] for column in TEXTS}
    write_csv(tmp_path / "t.csv", pd.DataFrame({**texts, "seed": [0, 1], "top1": [0.5, None]}))
    table = read_csv(tmp_path / "t.csv")
    assert {column: table[column].tolist() for column in TEXTS} == texts
    assert table.seed.tolist() == [0, 1] and table.top1[0] == 0.5 and table.top1.isna()[1]


def test_an_empty_text_is_a_missing_value(tmp_path):
    write_csv(tmp_path / "t.csv", pd.DataFrame({"source": ["", "A", None]}))
    assert read_csv(tmp_path / "t.csv").source.isna().tolist() == [True, False, True]


@pytest.mark.parametrize("exact", [0.0133125, -0.0049375, 0.1398265, 1.0000005])
def test_a_number_between_two_of_six_digits_is_written_alike_on_every_processor(tmp_path, exact):
    noise = np.array([-1e-15, 0, 1e-15])  # of sums in another order
    write_csv(tmp_path / "t.csv", pd.DataFrame({"effect": exact + noise}))
    assert len(set((tmp_path / "t.csv").read_text().split()[1:])) == 1


def test_sorting_keeps_the_order_of_equals():
    """Of the default sort it depends on the processor, and so would what a figure draws on top."""
    calls = [
        (path.name, node.lineno, ast.unparse(node))
        for path in sorted(Path(analysis.__file__).parent.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") in ("sort_values", "argsort")
    ]
    # several columns are always sorted so
    columns = [c for c in calls if not re.search(r"\(\[.*,.*\]", c[2])]
    assert len(columns) >= 4 and [c for c in columns if "kind='stable'" not in c[2]] == []


def named(name) -> StudyResults:
    """A part of the paper's numbers, whose split, network and recipe have this name."""
    study = published().results
    study = study[study.split.isin(["random-0", "random-1"]) & (study.state == "done")]
    study = study[study.treatment.isin(["base", "AnB"])].reset_index(drop=True)
    user = study.split == "random-0"
    study = study.assign(
        split=study.split.where(~user, name), split_kind=study.split_kind.where(~user, "user")
    )
    study = study.assign(
        network=name, recipe=name, dataset=name, run=[f"run-{i}" for i in study.index]
    )
    curves = study[["run"]].assign(train_loss=2.0, val_loss=3.0, val_top1=0.2, lr=0.1)
    curves = curves.merge(pd.DataFrame({"step": [1, 2]}), how="cross")
    return StudyResults(published().metadata | {"published": False}, study[RESULTS], curves)


@pytest.mark.parametrize(
    "name", ["1e3", *(pytest.param(n, marks=pytest.mark.slow) for n in ("true", "NA"))]
)
def test_figures_and_report_of_names_that_look_like_numbers(tmp_path, name):
    tables = named(name)
    tables.write(tmp_path)
    again = StudyResults.read(tmp_path)
    for column in ("split", "network", "recipe", "dataset", "cell", "run"):
        assert again.results[column].tolist() == tables.results[column].tolist()
    made, _ = drawings(again)
    assert {"accuracy", "curves"} <= {drawing.name for drawing in made}
    assert f">{name}<" in write_report(tmp_path).read_text()
    tables.write(tmp_path)


def test_zero_has_no_sign(tmp_path):
    """Which one it would have hangs on the processor."""
    values = pd.DataFrame({"difference": [-1e-17, -0.0, 0.25, np.nan], "n": [1, 2, 3, 4]})
    write_csv(tmp_path / "a.csv", values)
    assert (tmp_path / "a.csv").read_text() == (
        "difference,n\n0.000000,1\n0.000000,2\n0.250000,3\n,4\n"
    )
