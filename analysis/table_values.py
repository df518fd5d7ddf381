"""Validation of results.csv: the file may have been edited, also in a spreadsheet, and all figures,
claims and reports rely on it.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.csv_files import _WAY_BACK, TEXTS
from transferability.errors import UserError

ACCURACIES = ("top1", "top1_mean_best10", "test_top1", "top1_balanced", "test_balanced")
# text columns without missing values
REQUIRED = (
    "split",
    "split_kind",
    "cell",
    "treatment",
    "target",
    "network",
    "recipe",
    "run",
    "state",
)
INTEGERS = ("n", "seed", "classes")


def checked(results: pd.DataFrame, path: Path, columns: list[str]) -> pd.DataFrame:
    """Validate ``results``, read from ``path``; return them with whole numbers as int and
    ``in_study`` as bool.

    Raises:
        UserError: a value is invalid; the message names the row and column.
    """

    def refuse(name: str, bad: "pd.Series | np.ndarray", wanted: str) -> None:
        if len(rows := np.flatnonzero(bad)):
            found = results[name].iloc[rows[0]]
            said = "nothing" if pd.isna(found) else repr(str(found))
            raise UserError(
                f"{path} has {said} in row {rows[0] + 1} below the header, column {name}, which "
                f"must be {wanted}: {_WAY_BACK}"
            )

    if results.empty:
        raise UserError(f"{path} has no rows: {_WAY_BACK}")
    for name in results.columns.intersection(columns).difference([*TEXTS, "in_study"]):
        unread = pd.to_numeric(results[name], errors="coerce").isna()
        refuse(name, unread & results[name].notna(), "a number with a decimal point")
    for name in results.columns.intersection(ACCURACIES):
        refuse(name, (results[name] < 0) | (results[name] > 1), "an accuracy from 0 to 1")
    for name in INTEGERS:
        refuse(name, results[name].isna() | (results[name] % 1 != 0), "a whole number")
    for name in REQUIRED:
        refuse(name, results[name].isna(), "given")
    refuse("state", ~results.state.isin(["done", "missing"]), "done or missing")
    unknown = (results.state == "done") & results.top1.isna()
    refuse("top1", unknown, "an accuracy, as the network is finished")
    refuse("in_study", ~results.in_study.isin([True, False]), "True or False")
    refuse("run", results.run.duplicated(), "unique")
    return results.astype(dict.fromkeys(INTEGERS, int) | {"in_study": bool})
