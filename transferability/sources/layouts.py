"""Folders as people have them: which of them are training, validation and test images,
and which are classes.

``CLASS/IMAGE``, or folders of such folders that are named as the parts of a dataset are: ``train``,
``Training``, ``seg_train``, ``train_images``; ``val``, ``valid``, ``validation``, ``dev``;
``test``, ``testing``. What does not fit is an error: a wrong guess would be a wrong dataset that
nobody notices.
"""

import logging
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from transferability.errors import UserError, and_more, shown
from transferability.sources.parts import (
    WORD,
    WORDS,
    Folders,
    above_classes,
    found_parts,
    setting,
    stated_parts,
    unsure,
)
from transferability.sources.trees import TEXTS, FileTree, counted, require_images

log = logging.getLogger(__name__)

# Folders that hold images, and what belongs to them, in lower case; no class is called so.
BELONGINGS = {"annotations", "labels", "masks", "trimaps"}
HOLDERS = {"images", "imgs", "jpegimages", *BELONGINGS}


@dataclass(frozen=True)
class Layout:
    """The image files of each class.

    ``val`` None: to be held out of ``train``. ``test`` None: there is none.
    """

    train: dict[str, list[str]]
    val: dict[str, list[str]] | None = None
    test: dict[str, list[str]] | None = None


def layout_of(tree: FileTree, stated: dict[str, str] | None = None) -> Layout:
    """Which files are of which class and part; ``stated``: part -> its folder, {} for none.

    Raises:
        UserError: there are no images, or it cannot be told for sure.
    """
    require_images(tree)
    if others := [n for n in tree.names if not n.lower().endswith(TEXTS) and not tree.is_image(n)]:
        log.warning("%s: %s are no images and left out", shown(tree.source), counted(others))
    folders = Folders(tree)
    _check_links(folders, others)
    parts = found_parts(folders) if stated is None else stated_parts(folders, stated)
    return _layout(folders, parts, stated is not None)


def _check_links(folders: Folders, names: list[str]) -> None:
    """A link that stands where folders are may be a class or a part;
    one beside the images of a class is a file.
    """
    for name in names:
        above = name[: name.rfind("/") + 1]
        if not folders.stray(above) and folders.tree.is_lost(name):
            raise UserError(
                f"{shown(folders.tree.source / name)} is a link that is not followed or leads "
                "nowhere: put there what it points to, or take it away"
            )


def _layout(folders: Folders, parts: dict[str, str], stated: bool) -> Layout:
    """The classes of each part; a found (not stated) part of images without classes is left out."""
    source = shown(folders.tree.source)
    at = parts["train"] if parts else above_classes(folders)
    train = folders.classes(at)
    if not stated:
        _check_that_they_are_classes(folders, at, parts)
    if len(train) == 1:
        log.warning(
            "%s: there is one class only, %s: a task needs at least two", source, shown(min(train))
        )
    guessed = [] if stated else [part for part in ("test", "pred") if part in parts]
    without = [part for part in guessed if _unlabelled(folders.folders(parts[part]), train)]
    held_out = {
        part: folders.classes(parts[part])
        for part in ("val", "test")
        if part in parts and part not in without
    }
    _check_names([name for classes in (train, *held_out.values()) for name in classes], source)
    for part, classes in held_out.items():
        if extra := sorted(classes.keys() - train.keys()):
            raise UserError(
                f"class {extra[0]!r}{and_more(extra)} has {WORDS[part]} images but no training "
                f"images in {source}: add some, or take its folder away"
            )
    if parts and not stated:
        _say_what_lacks(folders, parts, without, held_out)
    return Layout(train, held_out.get("val"), held_out.get("test"))


def _check_that_they_are_classes(folders: Folders, at: str, parts: dict[str, str]) -> None:
    """Look into folders that would be classes; one line where they look like something else, too.

    Raises:
        UserError: the folders that would be classes look like parts, or one of them holds the
            others once more, or what is not of one class.
    """
    below = {name: set(folders.folders(f"{at}{name}/")) for name in folders.folders(at)}
    found = {part: path.rstrip("/") for part, path in parts.items()}
    for name, inner in below.items():
        if len(inner & below.keys()) > 1:
            again = ", ".join(sorted(inner & below.keys())[:2])
            raise unsure(
                folders,
                f"{at}{name}/ lies beside class folders and holds folders of their names ({again})",
                found,
            )
        if name.casefold() in HOLDERS:
            raise unsure(
                folders,
                f"{at}{name}/ is named as what holds images, or belongs to them, not as a class",
                found,
            )
        if others := sorted(folder for folder in inner if folder.casefold() in BELONGINGS):
            raise unsure(
                folders,
                f"{at}{name}/{others[0]}/ is named as what belongs to images, not as images",
                found,
            )
    flat = [name for name in below if folders.stray(f"{at}{name}/")]
    if deeper := [name for name in below if name not in flat] if flat else []:
        beside = f"{flat[0]}/{and_more(flat)} beside it images"
        raise unsure(
            folders,
            f"{at}{deeper[0]}/{and_more(deeper)} has only folders in it, but {beside}",
            found,
        )
    inner = set.intersection(*below.values())
    same = len(below) > 1 and len(inner) > 1
    words = [WORD.search(name.casefold()) for name in below]
    kinds = {list(WORDS)[word.lastindex - 1] for word in words if word}
    if "train" in kinds and len(kinds) > 1 and (same or all(words)):
        would = ", ".join(f"{at}{name}/" for name in sorted(below)[:3])
        raise unsure(
            folders, f"{would} would be the classes, but look like parts of a dataset", found
        )
    if same:
        log.warning(
            "%s: all class folders hold folders of the same names (%s ...): "
            "the classes are %s ..., the upper ones",
            shown(folders.tree.source),
            shown(", ".join(sorted(inner)[:2])),
            shown(", ".join(sorted(below)[:2])),
        )


def _unlabelled(below: list[str], classes: dict[str, list[str]]) -> bool:
    """Whether a folder with the folders ``below`` holds images without classes: loose,
    or all in one folder.
    """
    return len(below) < 2 and not classes.keys() & below


def _say_what_lacks(
    folders: Folders, parts: dict[str, str], without: list[str], held_out: dict[str, object]
) -> None:
    """One line for each part without classes, and one where there is no validation part;
    an error without any.
    """
    source = shown(folders.tree.source)
    if not held_out:
        others = (
            f" (those in {', '.join(shown(parts[p]) for p in without)} have no classes)"
            if without
            else ""
        )
        raise UserError(
            f"dataset.source={source} has {shown(parts['train'])} but no images in val/, valid/, "
            "validation/ or dev/"
            f"{others}: add them, or hold out a share of the training images, "
            f"{setting({'train': parts['train'].rstrip('/')})}"
        )
    for part in without:
        count = sum(name.startswith(parts[part]) for name in folders.images)
        log.warning(
            "%s: the %d images in %s have no classes and are left out",
            source,
            count,
            shown(parts[part]),
        )
    if "val" not in held_out:
        log.warning(
            "%s has no folder of validation images: a share of the training images is held out "
            "(dataset.val_fraction); %s is a test part, which is only reported",
            source,
            shown(parts["test"]),
        )


def _check_names(names: Iterable[str], source: str) -> None:
    """Names must survive a text file, and look different if they are.
    (Cat and cat do: handwriting has a and A.)
    """
    alike: dict[str, str] = {}
    for name in sorted(set(names)):
        if not _is_text(name):
            raise UserError(
                f"{source}: the name of class {shown(name)} is not UTF-8: rename its folder"
            )
        other = alike.setdefault(_looks(name), name)
        if other != name:
            raise UserError(
                f"{source}: the class folders {other!a} and {name!a} look the same, but are "
                "written with different Unicode characters or spaces: "
                "give them one name, or two that differ"
            )


def _looks(name: str) -> str:
    """One spelling of an accent, any space, and nothing that cannot be seen."""
    seen = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join(seen.split())


def _is_text(name: str) -> bool:
    """Whether a name from the disk was valid UTF-8 (Python keeps other bytes as
    lone surrogates).
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
