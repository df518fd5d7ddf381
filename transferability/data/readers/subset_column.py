"""The column of a table of labels with the subset (training, validation or test) of each image."""

from typing import Any

from transferability.data.readers.subsets import subset_named
from transferability.data.readers.tables import Row
from transferability.errors import UserError

# titles of such columns, in lower case; a column with a single value does not count
_TITLES = {"data_split", "fold", "partition", "set", "split", "subset", "usage"}
# true/false columns, and the subset for each value
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
    """A column whose values may be subsets.

    Attributes:
        key: the key of the column in rows.
        meaning: value -> train, val, test or pred; images with other values are left out.
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
        """The subset of a row: train, val, test or pred; None if its image is left out."""
        return self.meaning.get(row.get(self.key, ""))

    @property
    def clear(self) -> bool:
        """Whether the column has at least two values, all of them subsets."""
        return len(self.values) > 1 and len(self.meaning) == len(self.values)

    @property
    def suspicious(self) -> bool:
        """Whether the column has several values, and they or the title suggest subsets."""
        return len(self.values) > 1 and (self.called_so or len({*self.meaning.values()}) > 1)

    @property
    def listed(self) -> str:
        dots = ", ..." if len(self.values) > 5 else ""
        return ", ".join(value or "nothing" for value in self.values[:5]) + dots


def stated_column(key: Any, title: str, rows: list[Row], table: str) -> SubsetColumn:
    """The column of subsets that the user stated.

    Raises:
        UserError: no value of the column stands for training.
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
    """The first column with at least two values, all of them subsets; None if there is none.

    Args:
        titles: key -> title of each candidate.
        group: title of the column of groups, which is no candidate.

    Raises:
        UserError: a column may be meant as subsets, but the meaning of its values is unclear, or
            there are several true/false columns.
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
