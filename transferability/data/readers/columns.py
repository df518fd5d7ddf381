"""Which column of a table of labels holds the files, the classes and the subsets: as the user says,
or by what they are called and what is in them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transferability.data.readers.subsets import subset_named
from transferability.data.readers.tables import Row
from transferability.errors import UserError

SAMPLE = 1000  # rows
MOST = 2000  # columns
# what columns of classes are called, in lower case
CLASSES = {
    *("breed", "category", "category_name", "class", "class_name", "classid", "diagnosis", "dx"),
    *("finding labels", "label", "label_name", "labels", "species", "target", "y"),
}
ONE_HOT = {"0", "1", "0.0", "1.0"}
HEADED = (".csv", ".tsv", ".txt", ".xlsx")
Placed = tuple[str, Row]  # the folder of the table, and a row of it


@dataclass(frozen=True)
class Columns:
    """Keys of rows.

    Attributes:
        names: what each column is called -> its key.
        one_hot: of columns that say 0 or 1, each of a class: their keys and names.
        head: the row that names the columns, where there is one.
    """

    names: dict[str, Any]
    file: Any
    label: Any = None
    subset: Any = None
    one_hot: dict[Any, str] = field(default_factory=dict)
    head: Row | None = None

    @property
    def title(self) -> str:
        if self.one_hot:
            return f"{', '.join([*self.one_hot.values()][:2])}, ... (0 or 1)"
        return next(name for name, key in self.names.items() if key == self.label)

    def is_head(self, row: Row) -> bool:
        return row == self.head

    def class_of(self, row: Row) -> str:
        """Empty where it says none.

        Raises:
            UserError: it says several.
        """
        if not self.one_hot:
            text = row.get(self.label, "")
            several = [one.strip() for one in text.split("|")]
        else:
            several = [c for key, c in self.one_hot.items() if row.get(key, "0")[0] == "1"]
            text = "".join(several)
        if len(several) > 1:
            raise UserError(
                f"{row[self.file]} has {len(several)} classes "
                f"({', '.join(several[:3])}): an image is to have one"
            )
        return text


def columns_of(
    rows: list[Placed],
    stated: dict[str, str],
    table: str,
    find: Callable[[str, str], str | None],
) -> Columns:
    """The columns of a table.

    Args:
        stated: file, class, subset -> what the column is called.
        find: the image that a table in a folder calls so.

    Raises:
        UserError: it cannot be told; says what there is.
    """
    # {file: class, ...} is a single row, too, and not the one that is meant
    rows = [placed for placed in rows if len(placed[1]) <= MOST] or rows
    keys = list(dict.fromkeys(key for _, row in rows[:SAMPLE] for key in row))
    if not keys:
        raise UserError(f"dataset.labels={table} has no rows")

    def finds(key: Any, some: list[Placed]) -> int:
        named = [(row[key], folder) for folder, row in some if row.get(key)]
        return sum(find(*one) is not None for one in named)

    names, head = _names(rows, keys, table, finds)
    sample = [placed for placed in rows[:SAMPLE] if placed[1] != head]
    for role, name in stated.items():
        if name not in names:
            known = ", ".join(names)
            raise UserError(f"dataset.columns: {role}: {name} is none of {known}")
    counts = {key: finds(key, sample) for key in keys}
    # of as many names in several columns those of the one that is called something
    file = max(keys, key=lambda key: (counts[key], isinstance(key, str)))
    file = names[stated["file"]] if "file" in stated else file
    if not counts[file]:
        raise UserError(
            f"dataset.labels={table}: no column names images of the source "
            f"({', '.join(names)}): see dataset.columns"
        )
    named = [row for _, row in sample if row.get(file)]
    title = {key: name for name, key in names.items()}
    others = [key for key in keys if key != file and any(row.get(key) for row in named)]
    subset = names.get(stated["subset"]) if "subset" in stated else _subset(others, named)
    others = [key for key in others if key != subset]
    if "class" in stated:
        return Columns(names, file, names[stated["class"]], subset, head=head)
    called = [key for key in others if title[key].strip().casefold() in CLASSES]
    if not called and (hot := _one_hot(others, named)):
        return Columns(names, file, None, subset, {k: title[k].strip() for k in hot}, head)
    found = _label(called, others, named)
    if len(found) != 1:
        which = f"which of {', '.join(title[k] for k in found or others)} is the class"
        raise UserError(
            f"dataset.labels={table}: {which if others else 'it has no column of classes'}? "
            'Set "dataset.columns={class: NAME}"'
        )
    return Columns(names, file, found[0], subset, head=head)


def _names(
    rows: list[Placed], keys: list[Any], table: str, finds: Callable[[Any, list[Placed]], int]
) -> tuple[dict[str, Any], Row | None]:
    """What each column is called -> its key, and the row that says so, if there is one: where keys
    are numbers or letters of columns the first row names them, or an image.
    """
    first = rows[0][1]
    if table.lower().endswith(HEADED) and not any(finds(key, rows[:1]) for key in keys):
        return {first.get(key, ""): key for key in keys}, first
    return {str(key + 1 if isinstance(key, int) else key): key for key in keys}, None


def _label(called: list[Any], others: list[Any], rows: list[Row]) -> list[Any]:
    """The columns that may say the class: those that are ``called`` so, else those whose words
    repeat, else the only one.
    """
    kinds = {key: {row.get(key, "") for row in rows} for key in others}
    repeated = [key for key in others if 2 <= len(kinds[key]) <= len(rows) / 2]
    return _alike(called or repeated or others[:1] * (len(others) == 1), rows)


def _subset(keys: list[Any], rows: list[Row]) -> Any:
    """The column in which all words are those for subsets of a dataset, two at least."""
    for key in keys:
        words = {row.get(key, "") for row in rows}
        if len(words) > 1 and all(subset_named(word) for word in words):
            return key
    return None


def _one_hot(keys: list[Any], rows: list[Row]) -> list[Any]:
    """The columns that say 0 or 1, where they are all, or of each row one says 1."""
    hot = [key for key in keys if {row.get(key, "") for row in rows} <= ONE_HOT]
    ones = {sum(row.get(key, "0")[0] == "1" for key in hot) for row in rows}
    return hot if len(hot) > 1 and (len(hot) == len(keys) or ones == {1}) else []


def _alike(keys: list[Any], rows: list[Row]) -> list[Any]:
    """Columns that say different things; of a number and a name for the same classes the name."""
    kept: list[Any] = []
    for key in sorted(keys, key=lambda key: all(row.get(key, "").isdigit() for row in rows)):
        pairs = [{(row.get(key), row.get(other)) for row in rows} for other in kept]
        if not any(len(p) == len({a for a, _ in p}) == len({b for _, b in p}) for p in pairs):
            kept.append(key)
    return kept
