"""Classes that no folders say: those of a table of files (``dataset.labels``), or of a pattern
that is found in the paths of files (``dataset.pattern``).
"""

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from transferability.data.config import DatasetConfig
from transferability.data.readers.class_names import check_classes, check_several
from transferability.data.readers.columns import columns_of
from transferability.data.readers.file_tree import IMAGES, FileTree
from transferability.data.readers.folder_layout import Layout
from transferability.data.readers.offers import StatedLayout, classes_named
from transferability.data.readers.subsets import (
    ACCOMPANYING,
    SUBSETS,
    WORDS,
    AmbiguousError,
    Folders,
    class_root,
    look_like_subsets,
    stated_subsets,
    subset_named,
    subset_of_folder,
)
from transferability.data.readers.tables import ENDINGS, rows_of, tables_naming_images
from transferability.errors import UserError, and_more, reason

# offered where there are no class folders: cat_1.jpg, cat.1.jpg, cat1.jpg
PATTERNS = (r"([^/]+)_\d+[.]", r"([^/.]+)[.]\d+[.]", r"([A-Za-z]+)\d+[.]")


@dataclass
class ImageLabels:
    """What is said of images, by their names: the class, and where it is said the subset and the
    group.
    """

    classes: dict[str, str]
    subsets: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] | None = None
    notes: list[str] = field(default_factory=list)


def by_labels(folders: Folders, stated: StatedLayout, config: DatasetConfig) -> Layout:
    """Images by the classes in the table ``config.labels``."""
    return _layout(folders, stated, _of_table(folders, config))


def by_pattern(folders: Folders, stated: StatedLayout, config: DatasetConfig) -> Layout:
    """Images by what the first group of ``config.pattern``, or all of it, matches."""
    for name in folders.images:
        if odd := next((n for n in name.split("/")[:-1] if n.casefold() in ACCOMPANYING), None):
            where = posixpath.dirname(name)
            raise AmbiguousError(
                f"{where}/ is named as what belongs to images, not as images", odd=odd
            )
    found = {name: re.search(str(config.pattern), name) for name in folders.images}
    classes = {name: m[1] if m.re.groups else m[0] for name, m in found.items() if m}
    return _layout(folders, stated, ImageLabels(classes))


def offered_setting(tree: FileTree, stated: StatedLayout) -> str:
    """What follows an error where there are no class folders: a setting that reads classes, which
    was tried, or why the tables that name the images do not say them; empty where there is neither.
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
        # not numbers, or words that one image has
        if all(len(n) > 1 and re.search("[a-z]", c, re.I) for c, n in found.train.items()):
            return _way(found, stated, "pattern", f"'{pattern}'")
    return why


def _way(found: Layout, stated: StatedLayout, key: str, value: str) -> str:
    words = f'{stated} "dataset.{key}={value}"'.strip()
    return f", or set {words} ({classes_named(sorted(found.train))})"


def _layout(folders: Folders, stated: StatedLayout, said: ImageLabels) -> Layout:
    """Raises:
    UserError: subsets without classes, or classes without training images.
    """
    source, notes = str(folders.tree.source), said.notes
    subset_of = said.subsets or _subsets_of_folders(folders, stated, said.classes)
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


def _subsets_of_folders(
    folders: Folders, stated: StatedLayout, labelled: Collection[str]
) -> dict[str, str]:
    """The subset of each image, where the folder that it lies in says it: as stated, or by its
    name; none where no folder is named as training images are.

    Raises:
        AmbiguousError: several folders hold ``labelled`` images, and look like subsets.
        UserError: two folders are named as one subset.
    """
    if stated.subsets is not None:
        paths = {path: subset for subset, path in stated_subsets(folders, stated.subsets).items()}
        others = {name: "pred" for name in folders.images} if paths else {}
    else:
        at, others = class_root(folders), {}
        below = sorted(
            {n.removeprefix(at).split("/")[0] for n in labelled if "/" in n.removeprefix(at)}
        )
        named = {name: subset for name in folders.folders(at) if (subset := subset_of_folder(name))}
        if len(below) > 1 and look_like_subsets(below):
            raise AmbiguousError(
                f"{', '.join(f'{at}{name}/' for name in below[:3])} look like subsets of a dataset",
                {subset: f"{at}{name}" for name, subset in named.items()},
            )
        counts = Counter(named.values())
        if "train" not in counts:
            return {}
        if twice := [subset for subset, count in counts.items() if count > 1 and subset != "pred"]:
            both = [name for name, subset in named.items() if subset == twice[0]]
            raise UserError(
                f"dataset.source={folders.tree.source}: {' and '.join(both)} are both named "
                f'as {WORDS[twice[0]]} images: set "dataset.parts={{train: FOLDER, val: FOLDER}}"'
            )
        paths = {f"{at}{name}/": subset for name, subset in named.items() if subset}
    inside = {
        n: subset for path, subset in paths.items() for n in folders.images if n.startswith(path)
    }
    return others | inside


def _of_table(folders: Folders, config: DatasetConfig) -> ImageLabels:
    files = _Files(folders.images)
    rows = []
    for table, data in _tables(folders.tree, str(config.labels)):
        try:
            found = list(rows_of(table, data))
        except Exception as error:  # whatever a damaged file does
            raise UserError(
                f"dataset.labels={table} cannot be read ({reason(error)}): it is to be one "
                f"of {', '.join(ENDINGS)}"
            ) from error
        rows += [(posixpath.dirname(table), row) for row in found]
    columns = columns_of(rows, config.columns or {}, str(config.labels), files.find)
    said, lost, group = ImageLabels({}), [], config.group
    said.groups = {} if group in columns.names else None
    for folder, row in rows:
        cell = row.get(columns.file, "")
        if columns.is_head(row) or not cell:
            continue
        if (name := files.find(cell, folder)) is None:
            lost.append(cell)
            continue
        if not (own := columns.class_of(row)):
            continue
        if said.classes.setdefault(name, own) != own:
            raise UserError(
                f"dataset.labels={config.labels}: {name} is said to be {own} and "
                f"{said.classes[name]}: an image has one class"
            )
        if columns.subset is not None:
            said.subsets[name] = subset_named(row.get(columns.subset, "")) or "pred"
        if said.groups is not None and group is not None:
            said.groups[name] = row.get(columns.names[group], "")
    if len(said.classes) < len(lost):
        raise UserError(
            f"dataset.labels={config.labels} names {len(lost)} files that are not in "
            f"{config.source}, the first {lost[0]}, and {len(said.classes)} that are"
        )
    if lost:
        said.notes.append(
            f": {len(lost)} files that {config.labels} names are not there, the first {lost[0]}"
        )
    said.notes.append(f": classes are those of column {columns.title} in {config.labels}")
    return said


def _tables(tree: FileTree, labels: str) -> Iterator[tuple[str, bytes]]:
    """The file of this path below the source, or all of this name; else that on the disk."""
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


class _Files:
    """Images by what a table may call them: a path or its end, with or without ending."""

    def __init__(self, images: list[str]):
        self.by_name: dict[str, list[str]] = {}
        for image in images:
            base = posixpath.basename(image)
            for key in {base, posixpath.splitext(base)[0]}:
                self.by_name.setdefault(key, []).append(image)

    def find(self, cell: str, folder: str = "") -> str | None:
        """The image that a table in ``folder`` calls ``cell``; None where there is none.

        Raises:
            UserError: there are several.
        """
        path = posixpath.normpath(cell.replace("\\", "/")).lstrip("/")
        parts = path.split("/")
        if parts[-1] not in self.by_name and parts[-1].lower().endswith(IMAGES):
            parts[-1] = posixpath.splitext(parts[-1])[0]  # they were converted since
        found = self.by_name.get(parts[-1], [])
        for start in range(len(parts)):  # as much of the path as fits
            end = "/" + "/".join(parts[start:])
            ending = [n for n in found if end in (f"/{n}"[-len(end) :], _bare(n)[-len(end) :])]
            here = [n for n in ending if folder and n.startswith(f"{folder}/")]
            if ending:
                found = here or ending
                break
        if len(found) > 1:
            near = [n for n in found if posixpath.join(folder, path) in (n, _bare(n)[1:])]
            found = near or found
        if len(found) > 1:
            raise UserError(
                f"{cell} is the name of {found[0]}{and_more(found)}: leave the "
                "others out, dataset.leave_out=[FOLDER], or write their paths into the table"
            )
        return found[0] if found else None


def _bare(name: str) -> str:
    return "/" + posixpath.splitext(name)[0]
