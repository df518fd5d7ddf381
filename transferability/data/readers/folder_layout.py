"""Infer from folders which images are for training, validation and test, and which classes they
have.

The layout is ``CLASS/IMAGE``, or folders of such folders with the names of Hugging Face's
imagefolder: ``train``, ``training``; ``val``, ``valid``, ``validation``, ``dev``; ``test``,
``testing``, ``eval``, ``evaluation`` (and a few of public datasets, ``subsets.py``). Any other
layout, and any other name that looks like a subset, is an error: a wrong guess would be a wrong
dataset that nobody notices.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from transferability.data.readers.accompanying import check_folders_inside, check_names_beside
from transferability.data.readers.class_names import check_classes, check_several, numbered
from transferability.data.readers.file_tree import (
    RAWS,
    TEXTS,
    FileTree,
    count_by_ending,
    require_images,
)
from transferability.data.readers.offers import StatedLayout, tried_settings
from transferability.data.readers.subsets import (
    NO_CLASSES,
    AmbiguousError,
    Folders,
    class_root,
    found_subsets,
    look_like_subsets,
    split_files,
    stated_subsets,
    word_of,
)
from transferability.data.readers.tables import contradicting_table, label_table
from transferability.errors import UserError, and_more, shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """The image files of each class.

    ``val``: None if it is to be held out of ``train``. ``test``: None if there are no test images.
    ``notes``: warnings for the user on how the folders were read. ``groups``: image file -> its
    group, if a table has groups.
    """

    train: dict[str, list[str]]
    val: dict[str, list[str]] | None = None
    test: dict[str, list[str]] | None = None
    notes: list[str] = field(default_factory=list)
    groups: dict[str, str] | None = None


def layout_of(
    tree: FileTree, stated: StatedLayout | None = None, read: Callable | None = None
) -> Layout:
    """Assign image files to classes and subsets, by folders or by ``read``.

    Raises:
        UserError: there are no images, or the layout is unclear; the message suggests settings,
            each of which was tried.
    """
    stated, source, read = stated or StatedLayout(), shown(tree.source), read or _layout
    require_images(tree)
    if raws := [n for n in tree.names if n.lower().endswith(RAWS)]:
        log.warning(
            "%s: %d raw camera files are left out, the first %s: convert those that have no JPEG "
            "or PNG version",
            source,
            len(raws),
            shown(raws[0]),
        )
    others = [n for n in tree.names if not n.lower().endswith((*TEXTS, *RAWS))]
    if others := [n for n in others if not tree.is_image(n)]:
        log.warning("%s: %s are not images and are left out", source, count_by_ending(others))
    folders = Folders(tree, stated.leave_out)
    for entry, pattern in folders.left_out.items():
        if not any(pattern.search(f"/{name}") for name in tree.names):
            what = "not a file or folder" if "*" in entry else "not a folder"
            raise UserError(f"dataset.leave_out: {entry} is {what} in {source}")
    if stated.leave_out:
        log.warning(
            "%s: %d images are left out by dataset.leave_out",
            source,
            sum(map(folders.leaves_out, tree.images(""))),
        )
    _check_links(folders, others)
    try:
        layout = read(folders, stated)
    except AmbiguousError as error:
        offered = list(tried_settings(folders, stated, error, read))
        table = label_table(tree)
        what = str(error)
        if table and not offered and table not in what:
            what += f" ({table} may list their classes)"
        how = f"remove or rename it, or set {', or '.join(offered)}"
        if not offered:
            how = "sort the images into folders CLASS/IMAGE, or train/CLASS/IMAGE, val/CLASS/IMAGE"
        raise UserError(f"dataset.source={source}: {what}; {how}") from error
    for note in layout.notes:
        log.warning("%s", shown(f"{source}{note}"))
    return layout


def _check_links(folders: Folders, names: list[str]) -> None:
    """Refuse broken or ignored links in folders without images, where they may be classes or
    subsets. Beside the images of a class, a link is a file.
    """
    for name in names:
        above = name[: name.rfind("/") + 1]
        if not folders.direct_images(above) and folders.tree.is_lost(name):
            raise UserError(
                f"{folders.tree.source / name} is a link that is not followed or leads "
                "nowhere: replace it with what it points to, or remove it"
            )


def _layout(folders: Folders, stated: StatedLayout) -> Layout:
    """Read the classes of each subset. Images without classes are left out if their subset was
    found, not stated.

    Raises:
        AmbiguousError: the role of the folders is unclear.
        UserError: the folders are not valid.
    """
    source, notes, level = str(folders.tree.source), list[str](), stated.class_level or 1
    found = stated.subsets is None
    subsets = (
        found_subsets(folders)
        if stated.subsets is None
        else stated_subsets(folders, stated.subsets)
    )
    if not folders.images:
        raise UserError(f"{source}: dataset.leave_out leaves no images")
    at = subsets["train"] if subsets else class_root(folders)
    train = folders.classes(at, level)
    check_folders_inside(folders, at, level)
    if stated.class_level is None:
        if table := contradicting_table(folders.tree, train):
            raise AmbiguousError(
                f"{table} lists the images with classes other than their folders "
                f"({', '.join(sorted(train)[:2])})"
            )
        _check_that_they_are_classes(folders, at, subsets, found, notes)
    guessed = [subset for subset in ("test", "pred") if subset in subsets] if found else []
    without = [subset for subset in guessed if _unlabelled(folders.folders(subsets[subset]), train)]
    held_out: dict[str, dict[str, list[str]]] = {
        subset: folders.classes(subsets[subset], level)
        for subset in ("val", "test")
        if subset in subsets and subset not in without
    }
    check_classes(train, held_out, source)
    notes += check_names_beside([train, *held_out.values()], subsets, stated)
    if subsets and found:
        notes += _what_lacks(folders, subsets, without, held_out)
    elif subsets and (
        out := [name for name in folders.images if not name.startswith(tuple(subsets.values()))]
    ):
        notes.append(f": {len(out)} images are in no folder of dataset.parts and are left out")
    if not subsets and (lists := split_files(folders.tree)):
        notes.append(
            f": {lists[0]}{and_more(lists)} may list an official split, which is not read: "
            "a share of each class is held out"
        )
    check_several(train)
    return Layout(train, held_out.get("val"), held_out.get("test"), notes)


def _check_that_they_are_classes(
    folders: Folders, at: str, subsets: dict[str, str], found: bool, notes: list[str]
) -> None:
    """Check that the folders in ``at`` can be classes, and add notes on folders in them.

    Raises:
        AmbiguousError: the folders look like subsets (only if ``found``) or like numbered parts,
            one of them contains folders named like the others, one is named like folders of images
            or masks, or one contains no images itself.
    """
    below = {name: set(folders.folders(f"{at}{name}/")) for name in folders.folders(at)}
    known = {subset: path.rstrip("/") for subset, path in subsets.items()}
    for name, inner in below.items():
        if len(inner & below.keys()) > 1:
            again = ", ".join(sorted(inner & below.keys())[:2])
            what = f"{at}{name}/ lies beside class folders and contains folders with their names"
            raise AmbiguousError(f"{what} ({again})", known, name)
        if name.casefold() in NO_CLASSES:
            what = "is named like something that contains images or belongs to them, not a class"
            raise AmbiguousError(f"{at}{name}/ {what}", known, name)
    if found and look_like_subsets(below):
        names = [name for name in sorted(below) if word_of(name)]
        what = f"{at}{names[0]}/ would be a class, but looks like a subset of a dataset"
        if len(names) > 1 or len(below) < 3:
            would = ", ".join(f"{at}{name}/" for name in sorted(below)[:3])
            what = f"{would} would be the classes, but look like subsets of a dataset"
        raise AmbiguousError(what, known, names[0] if len(names) == 1 else None)
    if numbered(below):
        would = ", ".join(f"{at}{name}/" for name in sorted(below)[:3])
        raise AmbiguousError(
            f"{would} are named like numbered parts of a dataset, not like classes", known
        )
    flat = [name for name in below if folders.direct_images(f"{at}{name}/")]
    deeper = [name for name in below if name not in flat]
    if flat and deeper:
        beside = f"{flat[0]}/{and_more(flat)} beside it contains images"
        raise AmbiguousError(
            f"{at}{deeper[0]}/{and_more(deeper)} contains only folders, but {beside}", known
        )
    if deeper:
        first = min(below[deeper[0]])
        raise AmbiguousError(
            f"{at}{deeper[0]}/{and_more(deeper)} would be classes, but hold no images, only "
            f"folders ({first} ...)",
            known,
        )
    if both := [name for name in flat if below[name]]:
        one = min(below[both[0]])
        notes.append(
            f": class {both[0]}{and_more(both)} holds images and folders of images "
            f"({one}), which are read as its images, too: "
            f"{StatedLayout(leave_out=(one,))} leaves them out"
        )


def _unlabelled(below: list[str], classes: dict[str, list[str]]) -> bool:
    """Whether a folder with the folders ``below`` has images without classes: loose, or all in one
    folder.
    """
    return len(below) < 2 and not classes.keys() & below


def _what_lacks(
    folders: Folders, subsets: dict[str, str], without: Sequence[str], held_out: Collection[str]
) -> list[str]:
    """Notes on each subset that is left out, and on a missing validation subset.

    Raises:
        UserError: there is neither a validation nor a test subset with classes.
    """
    source = folders.tree.source
    if not held_out:
        others = (
            f" (those in {', '.join(subsets[s] for s in without)} have no classes)"
            if without
            else ""
        )
        raise UserError(
            f"dataset.source={source} has {subsets['train']} but no images in val/, valid/, "
            "validation/ or dev/"
            f"{others}: add them, or hold out a share of the training images, "
            f"{StatedLayout({'train': subsets['train'].rstrip('/')})}"
        )
    lines = []
    for subset in ("test", "pred"):
        if at := subsets.get(subset) if subset not in held_out else None:
            count = sum(name.startswith(at) for name in folders.images)
            what = "have no classes" if subset in without else "are predictions by its name"
            lines.append(f": the {count} images in {at} {what} and are left out")
    if "val" not in held_out:
        lines.append(
            " has no folder of validation images: a share of the training images is held out "
            f"(dataset.val_fraction); {subsets['test']} holds test images, which are only "
            "reported"
        )
    return lines
