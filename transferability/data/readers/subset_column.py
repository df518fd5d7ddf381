"""The column of a table of labels that says which images are for training, validation and test."""

from typing import Any

from transferability.data.readers.subsets import subset_named
from transferability.data.readers.tables import Row
from transferability.errors import UserError

# what such columns are called, in lower case, where their values are more than one
_TITLES = {"data_split", "fold", "partition", "set", "split", "subset", "usage"}
# columns of yes and no, and what these stand for
_FLAGS = {
    "is_test": {True: "test", False: "train"},
    "is_train": {True: "train", False: "test"},
    "is_val": {True: "val", False: "train"},
    "is_valid": {True: "val", False: "train"},  # fastai's
}
_YES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_NUMBERED = {"0": "train", "1": "val", "2": "test"}  # CelebA's "partition"


def called_as_subset(title: str) -> bool:
    return title.strip().casefold() in {*_TITLES, *_FLAGS}


class SubsetColumn:
    """What the values of a column say.

    Attributes:
        key: of the column.
        meaning: value -> train, val, test or pred; what has none is left out.
    """

    def __init__(self, key: Any, title: str, rows: list[Row]):
        self.key = key
        self.values = list(dict.fromkeys(row.get(key, "") for row in rows))
        called = title.strip().casefold()
        flags = _FLAGS.get(called, {})
        self.meaning: dict[str, str] = {}
        for value in self.values:
            said = subset_named(value)
            if flags and value.casefold() in _YES:
                said = flags[_YES[value.casefold()]]
            elif called == "partition" and {*self.values} == {*_NUMBERED}:
                said = _NUMBERED[value]
            if said:
                self.meaning[value] = said
        self.called_so = called_as_subset(title)

    def of(self, row: Row) -> str | None:
        """train, val, test or pred; None of an image that is left out."""
        return self.meaning.get(row.get(self.key, ""))

    @property
    def clear(self) -> bool:
        """Whether all its values are subsets, two at least."""
        return len(self.values) > 1 and len(self.meaning) == len(self.values)

    @property
    def suspicious(self) -> bool:
        """Whether it may be meant so."""
        return len(self.values) > 1 and (self.called_so or len({*self.meaning.values()}) > 1)

    @property
    def listed(self) -> str:
        dots = ", ..." if len(self.values) > 5 else ""
        return ", ".join(value or "nothing" for value in self.values[:5]) + dots


def stated_column(key: Any, title: str, rows: list[Row], table: str) -> SubsetColumn:
    """The column that the user names.

    Raises:
        UserError: none of its values stands for training.
    """
    found = SubsetColumn(key, title, rows)
    if "train" not in found.meaning.values():
        raise UserError(
            f"dataset.labels={table}: no value of column {title} ({found.listed}) means training "
            "images: write train, val and test into it"
        )
    return found


def found_column(
    titles: dict[Any, str], rows: list[Row], table: str, group: str | None
) -> SubsetColumn | None:
    """The first column in which all values are subsets, two at least; None where there is none.

    Args:
        titles: the columns that may be it -> what they are called.
        group: the column that says what is held out as a whole; that it is not.

    Raises:
        UserError: one may be meant so, and it is unclear what its values stand for.
    """
    candidates = [SubsetColumn(k, title, rows) for k, title in titles.items() if title != group]
    clear = [one for one in candidates if one.clear]
    odd = next((one for one in candidates if one.suspicious and not one.clear), None)
    flags = [one for one in clear if titles[one.key].strip().casefold() in _FLAGS]
    if odd or len(flags) > 1:
        one = odd or flags[0]
        name = titles[one.key]
        reads = ""
        if "train" in one.meaning.values():
            reads = f'set "dataset.columns={{subset: {name}}}" to leave out all other values, or '
        raise UserError(
            f"dataset.labels={table}: which images are for training and which for test? Column "
            f"{name} has {one.listed}: {reads}"
            'set "dataset.columns={subset: null}" to ignore the column'
        )
    return clear[0] if clear else None
