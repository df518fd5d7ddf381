"""CSV files of the tables: six digits, names that stay text, and no formulas."""

import re
from pathlib import Path

import pandas as pd

from transferability.errors import UserError
from transferability.files import write_atomic

# Columns of text in any of the tables: a name that looks like a number,
# a date or a truth value is a name all the same.
TEXTS = (
    *(
        "dataset",
        "split",
        "split_kind",
        "task",
        "cell",
        "treatment",
        "source",
        "target",
        "network",
        "recipe",
        "run",
        "state",
    ),
    *(
        "pair",
        "a",
        "b",
        "run_a",
        "run_b",
        "statement",
        "difference",
        "verdict",
        "layers",
        "above",
        "covers",
        "base",
        "predictor",
        "words",
        "splits",
        "holds for",
        "corrected",
    ),
)


WHOLE = ("images_per_class", "val_images", "evaluations", "images")


_WAY_BACK = (
    "move the folder away and collect again (which needs the networks' folders in the store)"
)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Six digits; whole numbers stay whole in columns with gaps.

    Rounded to twelve digits first: a mean of accuracies is often exactly between two numbers of six
    digits, and which one it becomes would hang on the rounding error of the processor's linear
    algebra. So would the sign of what is 0.

    A text that a spreadsheet would take for a formula gets an apostrophe before it, which
    :func:`read_csv` removes.
    """
    whole = {name: "Int64" for name in WHOLE if name in table}
    safe = table.astype(whole).map(lambda value: f"'{value}" if _is_formula(value) else value)
    rounded = safe.round(12)
    rounded = rounded.assign(**{name: rounded[name] + 0.0 for name in rounded.select_dtypes(float)})
    write_atomic(path, rounded.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def read_csv(path: Path) -> pd.DataFrame:
    """What :func:`write_csv` wrote: TEXTS are text whatever they hold;
    only empty fields are missing values.

    Raises:
        UserError: it is no such table, as after some spreadsheets.
    """
    try:
        table = pd.read_csv(
            path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXTS, str)
        )
    except ValueError as error:  # of pandas' parser, or of an encoding
        raise UserError(
            f"{path} is damaged ({' '.join(str(error).split())}): {_WAY_BACK}"
        ) from None
    if len(table.columns) == 1 and re.search(r"[;\t]", table.columns[0]):
        raise UserError(
            f"{path} is not separated by commas, as a spreadsheet may save it: save it from there "
            f"with commas, points in numbers and UTF-8, or {_WAY_BACK}"
        )
    return table.assign(
        **{name: table[name].map(_without_apostrophe) for name in TEXTS if name in table}
    )


def _is_formula(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))


def _without_apostrophe(value: object) -> object:
    return (
        value[1:]
        if isinstance(value, str) and value[:1] == "'" and _is_formula(value[1:])
        else value
    )
