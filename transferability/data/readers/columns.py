"""Find the columns of files, classes and subsets in a table of labels, as stated or by their titles
and contents.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from transferability.data.readers.file_tree import IMAGES
from transferability.data.readers.subset_column import (
    SubsetColumn,
    called_as_subset,
    found_column,
    stated_column,
)
from transferability.data.readers.tables import Row
from transferability.errors import UserError

SAMPLE = 1000  # rows that are searched for files
MOST = 2000  # columns at most
# titles of class columns, in lower case
CLASSES = {
    *("breed", "category", "category_name", "class", "class_name", "classid", "diagnosis", "dx"),
    *("finding labels", "label", "label_name", "labels", "species", "target", "y"),
}
ONE_HOT = {"0", "1", "0.0", "1.0"}
NONE = {"nan", "NaN", "<NA>"}  # missing values, as pandas and JavaScript write them
SHEET = "sheet"
HEADED = (".csv", ".tsv", ".txt", ".xlsx")
Placed = tuple[str, Row]  # the folder of the table, and a row of it
Find = Callable[[str, str], str | None]  # (cell, folder of the table) -> image


@dataclass(frozen=True)
class Columns:
    """The keys of the columns in the rows of a table.

    Attributes:
        names: title of each column -> its key.
        one_hot: key of each one-hot column -> its class.
    """

    names: dict[str, Any]
    file: Any
    label: Any = None
    subset: SubsetColumn | None = None
    one_hot: dict[Any, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        if self.one_hot:
            return f"{', '.join([*self.one_hot.values()][:2])}, ... (0 or 1)"
        return next(name for name, key in self.names.items() if key == self.label)

    @property
    def title_of_file(self) -> str:
        return next(name for name, key in self.names.items() if key == self.file)

    def class_of(self, row: Row) -> str:
        """The class of a row; empty without one.

        Raises:
            UserError: the row has several classes.
        """
        if not self.one_hot:
            text = row.get(self.label, "")
            text = "" if text in NONE else text
            several = [one.strip() for one in text.split("|")]
        else:
            several = [c for key, c in self.one_hot.items() if _is_one(row, key)]
            text = "".join(several)
        if len(several) > 1:
            raise several_classes(row[self.file], several)
        return text


def several_classes(image: str, classes: list[str]) -> UserError:
    return UserError(
        f"{image} has {len(classes)} classes ({', '.join(classes[:3])}): an image must have one"
    )


def check_one_class_each(classes: dict[str, str], table: str) -> None:
    """Check that no class is a list of other classes.

    Args:
        classes: image -> its class.

    Raises:
        UserError: an image has several classes.
    """
    signs = " '\"[]()"  # as in a Python list
    known = {text.strip(signs) for text in classes.values()}
    for image, text in classes.items():
        for several in (re.split(r"[,;/]", text), text.split()):
            names = [one.strip(signs) for one in several]
            if len(names) > 1 and known.issuperset(names):
                raise several_classes(f"dataset.labels={table}: {image}", names)


def headed(rows: list[Row], folder: str, table: str, find: Find) -> list[Row]:
    """The rows of a table keyed by the titles in its first row, or unchanged if this row names an
    image or the format has keys of its own.
    """
    if not rows or not table.lower().endswith(HEADED):
        return rows
    first, names = rows[0], dict[Any, str]()
    if any(cell.lower().endswith(IMAGES) or find(cell, folder) for cell in first.values() if cell):
        return rows
    for position, key in enumerate(dict.fromkeys(key for row in rows for key in row), 1):
        name = first.get(key, "") or f"column {position}"
        names[key] = name if name not in names.values() else f"{name} ({position})"
    return [{names[key]: text for key, text in row.items()} for row in rows[1:]]


def together(parts: dict[str, list[Row]], folder: str, table: str, find: Find) -> list[Row]:
    """The rows of all parts of a table, keyed by the titles of their columns.

    If several parts name images, a column has the name of the part: sheets may be subsets or
    classes.
    """
    named = {title: headed(rows, folder, table, find) for title, rows in parts.items()}
    of_images = [
        title
        for title, rows in named.items()
        if any(find(cell, folder) for row in rows[:SAMPLE] for cell in row.values() if cell)
    ]
    if len(of_images) < 2:
        return [row for rows in named.values() for row in rows]
    return [{SHEET: title} | row for title, rows in named.items() for row in rows]


def columns_of(
    rows: list[Placed], stated: dict[str, Any], table: str, group: str | None, find: Find
) -> Columns:
    """Find the columns of a table.

    Args:
        stated: role (file, class or subset) -> title of its column. For class also a list of
            one-hot columns, for subset also None: there is no such column.
        group: ``dataset.group``: the title of the column of groups, or a pattern.

    Raises:
        UserError: the columns are unclear; the message lists them.
    """
    # {file: class, ...} also gives one row with a column per file, which is not meant
    rows = [placed for placed in rows if len(placed[1]) <= MOST] or rows
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    if not keys:
        raise UserError(f"dataset.labels={table} has no rows")
    title = {key: str(key + 1 if isinstance(key, int) else key) for key in keys}
    names = {name: key for key, name in title.items()}
    wanted = {role: name if isinstance(name, list) else [name] for role, name in stated.items()}
    for role, name in ((r, n) for r, some in wanted.items() for n in some if n is not None):
        if name not in names:
            raise UserError(f"dataset.columns: {role}: {name} is none of {', '.join(names)}")
    file = names[stated["file"]] if "file" in stated else None
    file = _file_column([file] if file is not None else keys, title, rows, table, find)
    named = [row for _, row in rows if row.get(file)]
    others = {k: title[k] for k in keys if k != file and any(row.get(k) for row in named)}
    classes = [names[name] for name in wanted.get("class", [])]
    if stated.get("subset"):
        key = names[stated["subset"]]
        subset: SubsetColumn | None = stated_column(key, title[key], named, table)
    else:
        free = {} if "subset" in stated else {k: t for k, t in others.items() if k not in classes}
        subset = found_column(free, named, table, group)
    if not classes:
        left = {k: t for k, t in others.items() if not (subset and k == subset.key)}
        plain = {k: t for k, t in left.items() if not called_as_subset(t)}
        classes = _class_columns(plain or left, named, table)
    if len(classes) > 1:
        return Columns(names, file, None, subset, {k: title[k].strip() for k in classes})
    return Columns(names, file, classes[0], subset)


def _file_column(
    keys: list[Any], title: dict[Any, str], rows: list[Placed], table: str, find: Find
) -> Any:
    """The column that names most images. A column of numbers, such as an index, counts only if no
    other column names images.
    """
    sample = rows[:: -(-len(rows) // SAMPLE)]

    def images(key: Any) -> list[str | None]:
        return [find(row[key], folder) if row.get(key) else None for folder, row in sample]

    found = {key: images(key) for key in keys}
    counts = {key: sum(image is not None for image in own) for key, own in found.items()}
    some = [key for key in keys if counts[key]]
    if not some:
        raise UserError(
            f"dataset.labels={table}: no column lists images of the source "
            f"({', '.join(title.values())}): see dataset.columns"
        )
    words = [key for key in some if not _is_number(row.get(key, "") for _, row in sample)]
    some = [key for key in words or some if 2 * counts[key] >= max(counts.values())] or some
    # of columns that name equally many images, one with a title
    best = max(some, key=lambda key: (counts[key], isinstance(key, str)))
    for other in some:
        both = zip(found[best], found[other], strict=True)
        if counts[other] == counts[best] and any(a and b and a != b for a, b in both):
            raise UserError(
                f"dataset.labels={table}: which of {title[best]}, {title[other]} is the column of "
                'files? Set "dataset.columns={file: NAME}"'
            )
    return best


def _class_columns(titles: dict[Any, str], rows: list[Row], table: str) -> list[Any]:
    """The column of classes, or the one-hot columns."""
    called = [key for key, title in titles.items() if title.strip().casefold() in CLASSES]
    hot = [] if called else _one_hot([*titles], rows)
    others = [key for key in titles if key not in hot]
    found = _label(called, others, rows) if others else []
    if hot and not found:
        return hot
    if hot or len(found) != 1:
        some = [titles[key] for key in [*hot[:2], *(found or others)]]
        which = f"which of {', '.join(some)} is the class"
        also = f", or {{class: [{titles[hot[0]]}, {titles[hot[1]]}]}}" if hot else ""
        raise UserError(
            f"dataset.labels={table}: {which if titles else 'it has no column of classes'}? "
            f'Set "dataset.columns={{class: NAME}}"{also}'
        )
    return found


def _label(called: list[Any], others: list[Any], rows: list[Row]) -> list[Any]:
    """Candidates for the column of classes: those ``called`` so, else those with repeated values,
    else the only column.
    """
    kinds = {key: {row.get(key, "") for row in rows} for key in others}
    repeated = [key for key in others if 2 <= len(kinds[key]) <= len(rows) / 2]
    return _alike(called or repeated or others[:1] * (len(others) == 1), rows)


def _one_hot(keys: list[Any], rows: list[Row]) -> list[Any]:
    """The columns of 0 and 1, if there are no others or each row has a single 1."""
    hot = [key for key in keys if {row.get(key, "") for row in rows} <= ONE_HOT]
    ones = {sum(_is_one(row, key) for key in hot) for row in rows}
    return hot if len(hot) > 1 and (len(hot) == len(keys) or ones == {1}) else []


def _is_one(row: Row, key: Any) -> bool:
    return row.get(key, "").startswith("1")


def _is_number(cells: Iterable[str]) -> bool:
    return all(cell.isdigit() for cell in cells if cell)


def _alike(keys: list[Any], rows: list[Row]) -> list[Any]:
    """``keys`` without columns that map one-to-one to another; names are preferred to numbers."""
    kept: list[Any] = []
    for key in sorted(keys, key=lambda key: _is_number(row.get(key, "") for row in rows)):
        pairs = [{(row.get(key), row.get(other)) for row in rows} for other in kept]
        if not any(len(p) == len({a for a, _ in p}) == len({b for _, b in p}) for p in pairs):
            kept.append(key)
    return kept
