"""CSV files of tables: floats with six digits, names that stay text, and no formulas."""

import re
from pathlib import Path

import pandas as pd

from transferability.errors import UserError
from transferability.files import write_atomic

# Text columns of all tables: names that look like numbers, dates or truth values are read as text.
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
    """Write floats with six digits; integers stay integers in columns with missing values.

    Values are first rounded to twelve digits. A mean of accuracies is often exactly between two
    numbers of six digits, and its rounding, like the sign of a 0, would depend on rounding errors
    of the processor's linear algebra.

    Text that a spreadsheet would evaluate as a formula gets a leading apostrophe, which
    :func:`read_csv` removes.
    """
    whole = {name: "Int64" for name in WHOLE if name in table}
    safe = table.astype(whole).map(lambda value: f"'{value}" if _is_formula(value) else value)
    rounded = safe.round(12)
    rounded = rounded.assign(**{name: rounded[name] + 0.0 for name in rounded.select_dtypes(float)})
    write_atomic(path, rounded.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table of :func:`write_csv`: the columns TEXTS are always text, and only empty fields
    are missing values.

    Raises:
        UserError: the file is damaged, or not separated by commas, as some spreadsheets save it.
    """
    try:
        table = pd.read_csv(
            path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXTS, str)
        )
    except ValueError as error:  # from pandas' parser, or from decoding
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
