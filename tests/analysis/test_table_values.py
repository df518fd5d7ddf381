"""results.csv after somebody, or a spreadsheet, has edited it: what is no value of the column is
named, with row and column.
"""

import pandas as pd
import pytest

from analysis.tables import StudyResults
from tests.made_up import row, tables_of
from transferability.errors import UserError

ROWS = [
    row("baseB", "base", 0, 0.5),
    row("A3B", "AnB", 3, 0.25),
    row("A4B", "AnB", 4, None) | {"state": "missing"},
]


def edited(folder, change) -> StudyResults:
    """What is read after ``change`` of the table as text."""
    tables_of(*ROWS).write(folder)
    path = folder / "results.csv"
    change(table := pd.read_csv(path, dtype=str, keep_default_na=False))
    table.to_csv(path, index=False)
    return StudyResults.read(folder)


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("top1", "0,25", r"'0,25' in row 2 .* top1, which must be a number with a decimal point"),
        ("top1", "25", r"'25.0' in row 2 .* top1, which must be an accuracy from 0 to 1"),
        ("top1", "", "nothing in row 2 .* top1, which must be an accuracy, as the network is"),
        ("n", "", "nothing in row 2 .* n, which must be a whole number"),
        ("n", "3.5", "'3.5' in row 2 .* n, which must be a whole number"),
        ("seed", "one", "'one' in row 2 .* seed, which must be a number"),
        ("val_images", "5k", "'5k' in row 2 .* val_images, which must be a number"),
        ("split", "", "nothing in row 2 .* split, which must be given"),
        ("state", "finished", "'finished' in row 2 .* state, which must be done or missing"),
        ("in_study", "", "nothing in row 2 .* in_study, which must be True or False"),
        ("run", "run-0", "'run-0' in row 2 .* run, which must be unique"),
    ],
)
def test_a_value_that_is_none_is_named(column, value, wanted, tmp_path):
    """Most were a traceback of pandas; an accuracy of 25 was drawn, a run twice counted twice."""
    with pytest.raises(UserError, match=f"results.csv has {wanted}.*: move the folder away"):
        edited(tmp_path, lambda table: table.loc.__setitem__((1, column), value))


def test_a_table_without_rows_is_refused(tmp_path):
    tables_of(*ROWS).write(tmp_path)
    path = tmp_path / "results.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match=r"results\.csv has no rows"):
        StudyResults.read(tmp_path)


def test_columns_of_the_users_own_may_say_anything(tmp_path):
    """No figure reads them."""
    found = edited(tmp_path, lambda table: table.insert(0, "note", ["good", "", "0,5"]))
    assert found.results.note[0] == "good"


def test_what_spreadsheets_make_of_numbers_is_read(tmp_path):
    """3.0 for 3, TRUE for True."""

    def change(table: pd.DataFrame) -> None:
        table["n"] = table.n + ".0"
        table["in_study"] = table.in_study.str.upper()

    found = edited(tmp_path, change).results
    assert found.n.tolist() == [0, 3, 4] and found.n.dtype == int and found.in_study.all()
