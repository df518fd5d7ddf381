"""Folders as people have them: which of them are training, validation and test images, and which are classes.

``CLASS/IMAGE``, or folders of such folders that are named as the parts of a dataset are: ``train``, ``Training``,
``seg_train``, ``train_images``; ``val``, ``valid``, ``validation``, ``dev``; ``test``, ``testing``. What does not fit
is an error: a wrong guess would be a wrong dataset that nobody notices.
"""

import logging
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from transferability.archives import TEXTS, FileTree
from transferability.errors import UserError, and_more, shown

log = logging.getLogger(__name__)

_KINDS = r"(train(?:ing|val)?)|(val(?:id(?:ation)?)?|dev)|(test(?:ing)?)"
_WORD = re.compile(rf"(?<![a-z])(?:{_KINDS}|(pred(?:ict(?:ions?)?)?))(?:set)?(?![a-z])")
_GLUED = re.compile(rf"(?:{_KINDS})(?:set)?")  # the traindata that lies beside testdata
PARTS = ("train", "val", "test")  # in the order of the rows of a pack
_WORDS = {"train": "training", "val": "validation", "test": "test", "pred": "test"}
# Folders that hold images, and what belongs to them, in lower case; no class is called so.
BELONGINGS = {"annotations", "labels", "masks", "trimaps"}
HOLDERS = {"images", "imgs", "jpegimages", *BELONGINGS}
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True)
class Layout:
    """The image files of each class. ``val`` None: to be held out of ``train``. ``test`` None: there is none."""

    train: dict[str, list[str]]
    val: dict[str, list[str]] | None = None
    test: dict[str, list[str]] | None = None


def layout_of(tree: FileTree, stated: dict[str, str] | None = None) -> Layout:
    """Which files are of which class and part; ``stated``: part -> its folder, {} for none.

    Raises:
        UserError: there are no images, or it cannot be told for sure.
    """
    try:
        require_images(tree)
        if others := [n for n in tree.names if not n.lower().endswith(TEXTS) and not tree.is_image(n)]:
            log.warning("%s: %s are no images and left out", shown(tree.source), _counted(others))
        folders = _Folders(tree)
        _check_links(folders, others)
        parts = _found_parts(folders) if stated is None else _stated_parts(folders, stated)
        return _layout(folders, parts, stated is not None)
    except UserError as error:
        if kind := _published(tree):
            raise UserError(f"{error}; these look like the files of {kind}: set dataset={kind}") from error
        raise


def require_images(tree: FileTree) -> None:
    """See that there are any.

    Raises:
        UserError: there are none; says what is there.
    """
    if any(map(tree.is_image, tree.names)):
        return
    packed = [name for name in tree.names if name.lower().endswith(ARCHIVES)]
    if packed:
        what = f"but archives: {shown(packed[0])}{and_more(packed)}; unpack them, or give one as dataset.source"
        if not tree.source.is_dir():
            what = f"but archives: {shown(packed[0])}{and_more(packed)}; unpack all of it and give the folder"
    else:
        what = f"but {_counted(tree.names)}" if tree.names else "and no files"
    raise UserError(f"dataset.source={shown(tree.source)} has no images in it, {what}")


def _check_links(folders: "_Folders", names: list[str]) -> None:
    """A link that stands where folders are may be a class or a part; one beside the images of a class is a file."""
    for name in names:
        above = name[: name.rfind("/") + 1]
        if not folders.stray(above) and folders.tree.is_lost(name):
            raise UserError(
                f"{shown(folders.tree.source / name)} is a link that is not followed or leads nowhere: put there what "
                "it points to, or take it away"
            )


def _counted(names: list[str]) -> str:
    endings = Counter(f"*{posixpath.splitext(name)[1]}" for name in names).most_common(4)
    dots = ", ..." if sum(count for _, count in endings) < len(names) else ""
    return f"{len(names)} other files ({', '.join(f'{count} {shown(ending)}' for ending, count in endings)}{dots})"


def _published(tree: FileTree) -> str | None:
    """The configuration that reads what the tree looks like: a dataset as its authors publish it."""
    bases = {posixpath.basename(name) for name in tree.names}
    if "wnids.txt" in bases:
        return "tiny_imagenet"
    if {"data_batch_1", "test_batch"} <= bases:
        return "cifar10"
    if {"train", "test", "meta"} <= bases or "cifar-100-python.tar.gz" in bases:
        return "cifar100"
    if "cifar-10-python.tar.gz" in bases:
        return "cifar10"
    wnids = any(re.search(r"(^|/)train/n\d{8}/", name) for name in tree.names)
    return "imagenet" if wnids or any(name.startswith("ILSVRC2012_img_") for name in bases) else None


class _Folders:
    """The folders of a tree that have images below, each with its images (in it) and its folders (names)."""

    def __init__(self, tree: FileTree):
        self.tree, self.images, self.below, self.own = tree, tree.images(""), {}, {}
        for name in self.images:
            folder, slash, _ = name.rpartition("/")
            self.own.setdefault(folder + slash, []).append(name)
        for path in self.own:
            parts = path.split("/")[:-1]
            for depth, folder in enumerate(parts):
                self.below.setdefault("".join(f"{part}/" for part in parts[:depth]), set()).add(folder)

    def folders(self, at: str) -> list[str]:
        return sorted(self.below.get(at, ()))

    def stray(self, at: str) -> list[str]:
        """The images right in a folder."""
        return self.own.get(at, [])

    def classes(self, at: str) -> dict[str, list[str]]:
        """Images by the folder of ``at`` that they lie in.

        Raises:
            UserError: an image lies in none, or a folder has no images.
        """
        tree = self.tree
        if stray := self.stray(at):
            where = shown(tree.source / stray[0])
            raise UserError(f"{where} lies outside a class folder: images belong in CLASS/IMAGE")
        for folder in tree.folders:
            name = folder.removeprefix(at)
            if folder.startswith(at) and "/" not in name and name not in self.below.get(at, ()):
                files = [n for n in tree.names if n.startswith(f"{folder}/")]
                what = f"its {len(files)} files are none, the first is {shown(files[0])}" if files else "it is empty"
                raise UserError(
                    f"class {shown(name)} has no images ({shown(tree.source / folder)}: {what}): add some, or take the "
                    "folder away"
                )
        out: dict[str, list[str]] = {}
        for name in self.images:
            if name.startswith(at):
                out.setdefault(name.removeprefix(at).split("/")[0], []).append(name)
        return out


def _named_as_parts(names: Iterable[str]) -> dict[str, str]:
    """Of folders side by side those that are named as parts -> train | val | test | pred.

    They are the word itself, or the word with what it has before and after it in common with another part's; beside
    such folders also a "pred" with anything before or after it.
    """
    found = {}
    for name in names:
        text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()
        if len(words := list(_WORD.finditer(text)) or list(_GLUED.finditer(text))) == 1:
            found[name] = (text[: words[0].start()], text[words[0].end() :]), list(_WORDS)[words[0].lastindex - 1]
    kinds = Counter(frame for frame, _ in set(found.values()))
    sure = {name: kind for name, (frame, kind) in found.items() if frame == ("", "") or kinds[frame] > 1}
    return sure | {name: kind for name, (_, kind) in found.items() if sure and kind == "pred"}


def _found_parts(folders: _Folders) -> dict[str, str]:
    """Part -> its folder, by the names of folders; none if they are classes.

    Raises:
        UserError: folders are named as parts, but not so that it can be told which is which.
    """
    named = {at: parts for at in folders.below if (parts := _named_as_parts(folders.folders(at)))}

    def has_parts(at: str) -> bool:
        """Whether it is more than one nested folder of a class that happens to be called so."""
        trains = [f"{at}{name}/" for name, part in named[at].items() if part == "train"]
        return len(named[at]) > 1 or any(not folders.stray(train) for train in trains)

    roots = sorted((at for at in named if has_parts(at)), key=lambda at: (at.count("/"), at))
    top = _above_classes(folders)
    if not roots:
        if one := named.get(top, {}):
            (name,) = one
            if one[name] != "train" or len(folders.folders(top)) < 3:  # of classes of vehicles one is called train
                what = f"{top}{name}/ is named as a part of a dataset, and is none beside class folders"
                raise _unsure(folders, what, {})
        return {}
    root = roots[0]
    if len(roots) > 1 and roots[1].count("/") == root.count("/"):
        both = " and ".join(f"{at}{next(iter(named[at]))}/" for at in roots[:2])
        raise _unsure(folders, f"{both} are parts inside other folders; put the parts above the classes", {})
    return _checked(folders, root, named[root])


def _checked(folders: _Folders, root: str, named: dict[str, str]) -> dict[str, str]:
    """Part -> its folder in ``root``, if each is there once and nothing else is."""
    paths = {part: f"{root}{name}" for name, part in named.items()}
    stated = {part: path for part, path in paths.items() if part != "pred"}
    if twice := [part for part, count in Counter(named.values()).items() if count > 1]:
        both = " and ".join(f"{root}{name}/" for name, part in named.items() if part == twice[0])
        raise _unsure(folders, f"{both} are both named as {_WORDS[twice[0]]} images", {})
    inside = tuple(f"{path}/" for path in paths.values())
    if outside := [name for name in folders.images if not name.startswith(inside)]:
        above = root if outside[0].startswith(root) else ""
        beside = above + "".join(outside[0].removeprefix(above).partition("/")[:2])
        what = f"{beside} lies beside {', '.join(sorted(inside))} and is none"
        raise _unsure(folders, what, stated)
    if "train" not in paths:
        raise _unsure(folders, f"{', '.join(inside)} are named as parts, but there is no train/", stated)
    if stray := folders.stray(f"{paths['train']}/"):
        raise _unsure(folders, f"{stray[0]} lies outside a class folder", stated)
    return {part: _inner(folders, f"{path}/") for part, path in paths.items()}


def _inner(folders: _Folders, at: str) -> str:
    """``at``, or the folder in it that is all it holds and has its name once more."""
    below = folders.folders(at)
    if folders.stray(at) or len(below) != 1 or below[0].casefold() != posixpath.basename(at[:-1]).casefold():
        return at
    return _inner(folders, f"{at}{below[0]}/")


def _unsure(folders: _Folders, what: str, parts: dict[str, str]) -> UserError:
    wanted = _setting(parts if "train" in parts else {"train": "FOLDER", "val": "FOLDER"})
    return UserError(
        f"dataset.source={shown(folders.tree.source)}: {shown(what)}; take it away or rename it, or say which folders "
        f'are which, {wanted} (what is not named is left out), or that all are classes, "dataset.parts={{}}"'
    )


def _setting(parts: dict[str, str]) -> str:
    """``dataset.parts`` as one writes it on a command line."""
    quoted = {part: path if re.fullmatch(r"[\w./-]+", path) else repr(path) for part, path in parts.items()}
    listed = ", ".join(f"{part}: {quoted[part]}" for part in PARTS if part in parts)
    return f'"dataset.parts={{{shown(listed)}}}"'


def _stated_parts(folders: _Folders, parts: dict[str, str]) -> dict[str, str]:
    """Part -> its folder, as the user says."""
    paths = {part: f"{posixpath.normpath(folder)}/" for part, folder in parts.items()}
    for part, path in paths.items():
        if path not in folders.below and path not in folders.own:
            raise UserError(f"dataset.parts: {part}: {shown(parts[part])} is no folder with images in it")
        if other := next((p for p, at in paths.items() if p != part and at.startswith(path)), None):
            raise UserError(f"dataset.parts: the folder of {other} lies in that of {part}")
    if paths and (out := [name for name in folders.images if not name.startswith(tuple(paths.values()))]):
        source = shown(folders.tree.source)
        log.warning("%s: %d images are in no folder of dataset.parts and left out", source, len(out))
    return paths


def _above_classes(folders: _Folders) -> str:
    """The folder whose folders are the classes: one that wraps them all, as most zip files have, is no class."""
    at = ""
    while not folders.stray(at) and len(folders.folders(at)) == 1:
        below = f"{at}{folders.folders(at)[0]}/"
        if folders.stray(below) and not folders.folders(below):
            break  # the only class
        at = below
    return at


def _layout(folders: _Folders, parts: dict[str, str], stated: bool) -> Layout:
    """The classes of each part; a found (not stated) part of images without classes is left out."""
    source = shown(folders.tree.source)
    at = parts["train"] if parts else _above_classes(folders)
    train = folders.classes(at)
    if not stated:
        _check_that_they_are_classes(folders, at, parts)
    if len(train) == 1:
        log.warning("%s: there is one class only, %s: a task needs at least two", source, shown(min(train)))
    guessed = [] if stated else [part for part in ("test", "pred") if part in parts]
    without = [part for part in guessed if _unlabelled(folders.folders(parts[part]), train)]
    held_out = {part: folders.classes(parts[part]) for part in ("val", "test") if part in parts and part not in without}
    _check_names([name for classes in (train, *held_out.values()) for name in classes], source)
    for part, classes in held_out.items():
        if extra := sorted(classes.keys() - train.keys()):
            raise UserError(
                f"class {extra[0]!r}{and_more(extra)} has {_WORDS[part]} images but no training images in {source}: "
                "add some, or take its folder away"
            )
    if parts and not stated:
        _say_what_lacks(folders, parts, without, held_out)
    return Layout(train, held_out.get("val"), held_out.get("test"))


def _check_that_they_are_classes(folders: _Folders, at: str, parts: dict[str, str]) -> None:
    """Look into folders that would be classes; one line where they look like something else, too.

    Raises:
        UserError: the folders that would be classes look like parts, or one of them holds the others once more, or
            what is not of one class.
    """
    below = {name: set(folders.folders(f"{at}{name}/")) for name in folders.folders(at)}
    found = {part: path.rstrip("/") for part, path in parts.items()}
    for name, inner in below.items():
        if len(inner & below.keys()) > 1:
            again = ", ".join(sorted(inner & below.keys())[:2])
            raise _unsure(
                folders, f"{at}{name}/ lies beside class folders and holds folders of their names ({again})", found
            )
        if name.casefold() in HOLDERS:
            raise _unsure(
                folders, f"{at}{name}/ is named as what holds images, or belongs to them, not as a class", found
            )
        if others := sorted(folder for folder in inner if folder.casefold() in BELONGINGS):
            raise _unsure(folders, f"{at}{name}/{others[0]}/ is named as what belongs to images, not as images", found)
    flat = [name for name in below if folders.stray(f"{at}{name}/")]
    if deeper := [name for name in below if name not in flat] if flat else []:
        beside = f"{flat[0]}/{and_more(flat)} beside it images"
        raise _unsure(folders, f"{at}{deeper[0]}/{and_more(deeper)} has only folders in it, but {beside}", found)
    inner = set.intersection(*below.values())
    same = len(below) > 1 and len(inner) > 1
    words = [_WORD.search(name.casefold()) for name in below]
    kinds = {list(_WORDS)[word.lastindex - 1] for word in words if word}
    if "train" in kinds and len(kinds) > 1 and (same or all(words)):
        would = ", ".join(f"{at}{name}/" for name in sorted(below)[:3])
        raise _unsure(folders, f"{would} would be the classes, but look like parts of a dataset", found)
    if same:
        log.warning(
            "%s: all class folders hold folders of the same names (%s ...): the classes are %s ..., the upper ones",
            shown(folders.tree.source),
            shown(", ".join(sorted(inner)[:2])),
            shown(", ".join(sorted(below)[:2])),
        )


def _unlabelled(below: list[str], classes: dict[str, list[str]]) -> bool:
    """Whether a folder with the folders ``below`` holds images without classes: loose, or all in one folder."""
    return len(below) < 2 and not classes.keys() & below


def _say_what_lacks(folders: _Folders, parts: dict[str, str], without: list[str], held_out: dict[str, object]) -> None:
    """One line for each part without classes, and one where there is no validation part; an error without any."""
    source = shown(folders.tree.source)
    if not held_out:
        others = f" (those in {', '.join(shown(parts[p]) for p in without)} have no classes)" if without else ""
        raise UserError(
            f"dataset.source={source} has {shown(parts['train'])} but no images in val/, valid/, validation/ or dev/"
            f"{others}: add them, or hold out a share of the training images, "
            f"{_setting({'train': parts['train'].rstrip('/')})}"
        )
    for part in without:
        count = sum(name.startswith(parts[part]) for name in folders.images)
        log.warning("%s: the %d images in %s have no classes and are left out", source, count, shown(parts[part]))
    if "val" not in held_out:
        log.warning(
            "%s has no folder of validation images: a share of the training images is held out (dataset.val_fraction); "
            "%s is a test part, which is only reported",
            source,
            shown(parts["test"]),
        )


def _check_names(names: Iterable[str], source: str) -> None:
    """Names must survive a text file, and look different if they are. (Cat and cat do: handwriting has a and A.)"""
    alike: dict[str, str] = {}
    for name in sorted(set(names)):
        if not _is_text(name):
            raise UserError(f"{source}: the name of class {shown(name)} is not UTF-8: rename its folder")
        other = alike.setdefault(_looks(name), name)
        if other != name:
            raise UserError(
                f"{source}: the class folders {other!a} and {name!a} look the same, but are "
                "written with different Unicode characters or spaces: give them one name, or two that differ"
            )


def _looks(name: str) -> str:
    """One spelling of an accent, any space, and nothing that cannot be seen."""
    seen = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join(seen.split())


def _is_text(name: str) -> bool:
    """Whether a name from the disk was valid UTF-8 (Python keeps other bytes as lone surrogates)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
