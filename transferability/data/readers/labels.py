"""Read classes from a table of files (``dataset.labels``) or from the paths of files
(``dataset.pattern``).
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from transferability.data.config import DatasetConfig
from transferability.data.readers.accompanying import check_names_beside
from transferability.data.readers.class_names import check_classes, check_several
from transferability.data.readers.columns import (
    Placed,
    check_one_class_each,
    columns_of,
    together,
)
from transferability.data.readers.file_tree import FileTree
from transferability.data.readers.folder_layout import Layout
from transferability.data.readers.named_files import NamedFiles
from transferability.data.readers.offers import StatedLayout, classes_named
from transferability.data.readers.subset_folders import LEFT_OUT, subsets_by_folder
from transferability.data.readers.subsets import (
    ACCOMPANYING,
    SUBSETS,
    WORDS,
    AmbiguousError,
    Folders,
)
from transferability.data.readers.tables import ENDINGS, parts_of, tables_naming_images
from transferability.errors import UserError, reason

# suggested if there are no class folders: cat_1.jpg, cat.1.jpg, cat1.jpg
PATTERNS = (r"([^/]+)_\d+[.]", r"([^/.]+)[.]\d+[.]", r"([A-Za-z]+)\d+[.]")


@dataclass
class ImageLabels:
    """The class of each image by its name; also its subset and group, if the table has them."""

    classes: dict[str, str]
    subsets: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] | None = None
    notes: list[str] = field(default_factory=list)


def by_labels(folders: Folders, stated: StatedLayout, config: DatasetConfig) -> Layout:
    """Assign images to the classes in the table ``config.labels``."""
    return _layout(folders, stated, _of_table(folders, config))


def by_pattern(folders: Folders, stated: StatedLayout, config: DatasetConfig) -> Layout:
    """Assign images to classes by the match of ``config.pattern``, or of its first group, in their
    paths.
    """
    for name in folders.images:
        if odd := next((n for n in name.split("/")[:-1] if n.casefold() in ACCOMPANYING), None):
            where = posixpath.dirname(name)
            raise AmbiguousError(
                f"{where}/ is named like something that belongs to images, not like images",
                odd=odd,
            )
    found = {name: re.search(str(config.pattern), name) for name in folders.images}
    classes = {name: m[1] if m.re.groups else m[0] for name, m in found.items() if m}
    of_class: dict[str, list[str]] = {}
    for name, class_ in classes.items():
        of_class.setdefault(class_, []).append(name)
    # a pattern states which files are images, as class_level states which folders are classes
    plain = replace(stated, class_level=1)
    notes = check_names_beside([of_class], {}, plain)
    return _layout(folders, stated, ImageLabels(classes, notes=notes))


def offered_setting(tree: FileTree, stated: StatedLayout) -> str:
    """The end of an error message about missing class folders: a setting, which was tried, that
    finds classes, or why the tables that name the images do not work; empty if there is neither.
    """
    why, source = "", str(tree.source)
    for name in dict.fromkeys(posixpath.basename(name) for name in tables_naming_images(tree)):
        config = DatasetConfig("folder", "", "", 1, source, labels=name)
        try:
            found = by_labels(Folders(tree, stated.leave_out), stated, config)
            return _way(found, stated, "labels", name)
        except UserError as error:
            why = why or f" ({error})"
    without = sorted(
        {n for f in tree.folders for n in f.split("/") if n.casefold() in ACCOMPANYING}
    )
    stated = replace(stated, leave_out=(*stated.leave_out, *without))
    for pattern in PATTERNS:
        config = DatasetConfig("folder", "", "", 1, source, pattern=pattern)
        try:
            found = by_pattern(Folders(tree, stated.leave_out), stated, config)
        except UserError:
            continue
        # neither numbers nor classes of a single image
        if all(len(n) > 1 and re.search("[a-z]", c, re.I) for c, n in found.train.items()):
            return _way(found, stated, "pattern", f"'{pattern}'")
    return why


def _way(found: Layout, stated: StatedLayout, key: str, value: str) -> str:
    words = f'{stated} "dataset.{key}={value}"'.strip()
    return f", or set {words} ({classes_named(sorted(found.train))})"


def _layout(folders: Folders, stated: StatedLayout, said: ImageLabels) -> Layout:
    """The layout of labeled images.

    Raises:
        UserError: no training image has a class, or a class has no training images.
    """
    source, notes = str(folders.tree.source), said.notes
    subset_of = said.subsets or subsets_by_folder(folders, stated, said.classes)
    found: dict[str, dict[str, list[str]]] = {}
    without: dict[str | None, list[str]] = {}
    for name in folders.images:
        subset = subset_of.get(name, "train")
        if name not in said.classes:
            without.setdefault(subset_of.get(name), []).append(name)
        elif subset in SUBSETS:
            found.setdefault(subset, {}).setdefault(said.classes[name], []).append(name)
    for said_subset, names in without.items():
        what = f" of {WORDS[said_subset]}" if said_subset else ""
        notes.append(
            f": {len(names)} images{what} have no class and are left out, the first {names[0]}"
        )
    if not found.get("train"):
        raise UserError(f"dataset.source={source}: no training image has a class")
    train = found.pop("train")
    if "val" not in found and "test" in found:
        notes.append(" has no validation images: a share of the training images is held out")
    check_classes(train, found, source)
    check_several(train)
    return Layout(train, found.get("val"), found.get("test"), notes, said.groups)


def _of_table(folders: Folders, config: DatasetConfig) -> ImageLabels:
    files, table = NamedFiles(folders.images), str(config.labels)
    rows = _rows_of_tables(folders.tree, table, files)
    columns = columns_of(rows, config.columns or {}, table, config.group, files.find)
    said, group = ImageLabels({}), config.group
    said.groups = {} if group in columns.names else None
    lost, without = list[str](), {folder: "" for folder, _ in rows}
    left_out = Counter[str]()
    for folder, row in rows:
        if not (cell := row.get(columns.file, "")):
            continue
        without.pop(folder, None)
        if (name := files.find(cell, folder)) is None:
            lost.append(cell)
            continue
        if not (own := columns.class_of(row)):
            continue
        _say(said.classes, name, own, table, "class")
        if columns.subset is not None:
            _say(said.subsets, name, columns.subset.of(row) or LEFT_OUT, table, "subset")
            left_out[row.get(columns.subset.key, "")] += said.subsets[name] not in SUBSETS
        if said.groups is not None and group is not None:
            _say(said.groups, name, row.get(columns.names[group], ""), table, "group")
    if without:
        raise UserError(
            f"dataset.labels={table}: {posixpath.join(next(iter(without)), table)} has no column "
            f"{columns.title_of_file}, as the table of that name in another folder has: give them "
            "the same columns, or dataset.labels the path of one of them"
        )
    if len(said.classes) < len(lost):
        raise UserError(
            f"dataset.labels={table} names {len(lost)} files that are not in "
            f"{config.source}, the first {lost[0]}, and {len(said.classes)} that are"
        )
    check_one_class_each(said.classes, table)
    said.notes += _notes(lost, left_out, table, columns.title)
    return said


def _say(said: dict[str, str], name: str, value: str, table: str, what: str) -> None:
    """Record the class, subset or group of an image.

    Raises:
        UserError: the table has a different one in another row.
    """
    if said.setdefault(name, value) != value:
        words = {"": "nothing"} | ({LEFT_OUT: "left out"} if what == "subset" else {})
        both = " and as ".join(words.get(one, one) for one in (value, said[name]))
        raise UserError(
            f"dataset.labels={table}: {name} is listed as {both}: an image must have one {what}"
        )


def _notes(lost: list[str], left_out: Counter[str], table: str, column: str) -> list[str]:
    """Notes for the user on a table."""
    notes = [
        f": {count} images are left out: their subset in {table} is {value or 'empty'}"
        for value, count in left_out.items()
        if count
    ]
    if lost:
        notes.append(f": {len(lost)} files that {table} names are not there, the first {lost[0]}")
    return [*notes, f": classes are those of column {column} in {table}"]


def _rows_of_tables(tree: FileTree, labels: str, files: NamedFiles) -> list[Placed]:
    """The rows of all tables named ``labels``, keyed by the titles of their columns."""
    rows: list[Placed] = []
    for table, data in _tables(tree, labels):
        folder = posixpath.dirname(table)
        try:
            parts = parts_of(table, data)
        except Exception as error:  # a damaged file can raise anything
            raise UserError(
                f"dataset.labels={table} cannot be read ({reason(error)}): it must be one of "
                f"{', '.join(ENDINGS)}, and text must be UTF-8"
            ) from error
        rows += [(folder, row) for row in together(parts, folder, table, files.find)]
    return rows


def _tables(tree: FileTree, labels: str) -> Iterator[tuple[str, bytes]]:
    """The table at this path below the source, else all tables of this name, else that on disk."""
    path = posixpath.normpath(labels)
    names = [path] if path in tree.names else []
    names = names or [name for name in tree.names if posixpath.basename(name) == path]
    if names:
        yield from ((name, tree.read(name)) for name in names)
        return
    try:
        yield Path(labels).name, Path(labels).expanduser().read_bytes()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"dataset.labels={labels} is neither a file below {tree.source} nor one "
            f"that can be read ({reason(error)})"
        ) from error
