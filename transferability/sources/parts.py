"""Which folders of a tree are its training, validation and test images,
by their names or as the user says.
"""

import logging
import posixpath
import re
from collections import Counter
from collections.abc import Iterable

from transferability.errors import UserError, shown
from transferability.sources.trees import FileTree

log = logging.getLogger(__name__)

_KINDS = r"(train(?:ing|val)?)|(val(?:id(?:ation)?)?|dev)|(test(?:ing)?)"
WORD = re.compile(rf"(?<![a-z])(?:{_KINDS}|(pred(?:ict(?:ions?)?)?))(?:set)?(?![a-z])")
_GLUED = re.compile(rf"(?:{_KINDS})(?:set)?")  # the traindata that lies beside testdata
PARTS = ("train", "val", "test")  # in the order of the rows of a pack
WORDS = {"train": "training", "val": "validation", "test": "test", "pred": "test"}


class Folders:
    """The folders of a tree that have images below, each with its images (in it)
    and its folders (names).
    """

    def __init__(self, tree: FileTree):
        self.tree, self.images, self.below, self.own = tree, tree.images(""), {}, {}
        for name in self.images:
            folder, slash, _ = name.rpartition("/")
            self.own.setdefault(folder + slash, []).append(name)
        for path in self.own:
            parts = path.split("/")[:-1]
            for depth, folder in enumerate(parts):
                self.below.setdefault("".join(f"{part}/" for part in parts[:depth]), set()).add(
                    folder
                )

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
                what = (
                    f"its {len(files)} files are none, the first is {shown(files[0])}"
                    if files
                    else "it is empty"
                )
                raise UserError(
                    f"class {shown(name)} has no images ({shown(tree.source / folder)}: {what}): "
                    "add some, or take the folder away"
                )
        out: dict[str, list[str]] = {}
        for name in self.images:
            if name.startswith(at):
                out.setdefault(name.removeprefix(at).split("/")[0], []).append(name)
        return out


def _named_as_parts(names: Iterable[str]) -> dict[str, str]:
    """Of folders side by side those that are named as parts -> train | val | test | pred.

    They are the word itself, or the word with what it has before and after it in common with
    another part's; beside such folders also a "pred" with anything before or after it.
    """
    found = {}
    for name in names:
        text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()
        if len(words := list(WORD.finditer(text)) or list(_GLUED.finditer(text))) == 1:
            found[name] = (
                (text[: words[0].start()], text[words[0].end() :]),
                list(WORDS)[words[0].lastindex - 1],
            )
    kinds = Counter(frame for frame, _ in set(found.values()))
    sure = {
        name: kind for name, (frame, kind) in found.items() if frame == ("", "") or kinds[frame] > 1
    }
    return sure | {name: kind for name, (_, kind) in found.items() if sure and kind == "pred"}


def found_parts(folders: Folders) -> dict[str, str]:
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
    top = above_classes(folders)
    if not roots:
        if one := named.get(top, {}):
            (name,) = one
            # of classes of vehicles one is called train
            if one[name] != "train" or len(folders.folders(top)) < 3:
                what = (
                    f"{top}{name}/ is named as a part of a dataset, "
                    "and is none beside class folders"
                )
                raise unsure(folders, what, {})
        return {}
    root = roots[0]
    if len(roots) > 1 and roots[1].count("/") == root.count("/"):
        both = " and ".join(f"{at}{next(iter(named[at]))}/" for at in roots[:2])
        raise unsure(
            folders, f"{both} are parts inside other folders; put the parts above the classes", {}
        )
    return _checked(folders, root, named[root])


def _checked(folders: Folders, root: str, named: dict[str, str]) -> dict[str, str]:
    """Part -> its folder in ``root``, if each is there once and nothing else is."""
    paths = {part: f"{root}{name}" for name, part in named.items()}
    stated = {part: path for part, path in paths.items() if part != "pred"}
    if twice := [part for part, count in Counter(named.values()).items() if count > 1]:
        both = " and ".join(f"{root}{name}/" for name, part in named.items() if part == twice[0])
        raise unsure(folders, f"{both} are both named as {WORDS[twice[0]]} images", {})
    inside = tuple(f"{path}/" for path in paths.values())
    if outside := [name for name in folders.images if not name.startswith(inside)]:
        above = root if outside[0].startswith(root) else ""
        beside = above + "".join(outside[0].removeprefix(above).partition("/")[:2])
        what = f"{beside} lies beside {', '.join(sorted(inside))} and is none"
        raise unsure(folders, what, stated)
    if "train" not in paths:
        raise unsure(
            folders, f"{', '.join(inside)} are named as parts, but there is no train/", stated
        )
    if stray := folders.stray(f"{paths['train']}/"):
        raise unsure(folders, f"{stray[0]} lies outside a class folder", stated)
    return {part: _inner(folders, f"{path}/") for part, path in paths.items()}


def _inner(folders: Folders, at: str) -> str:
    """``at``, or the folder in it that is all it holds and has its name once more."""
    below = folders.folders(at)
    if (
        folders.stray(at)
        or len(below) != 1
        or below[0].casefold() != posixpath.basename(at[:-1]).casefold()
    ):
        return at
    return _inner(folders, f"{at}{below[0]}/")


def unsure(folders: Folders, what: str, parts: dict[str, str]) -> UserError:
    """An error that says ``what`` is not clear, and the setting that would make it so;
    ``parts`` are known already.
    """
    wanted = setting(parts if "train" in parts else {"train": "FOLDER", "val": "FOLDER"})
    return UserError(
        f"dataset.source={shown(folders.tree.source)}: {shown(what)}; take it away or rename it, "
        "or say which folders "
        f"are which, {wanted} (what is not named is left out), or that all are classes, "
        '"dataset.parts={}"'
    )


def setting(parts: dict[str, str]) -> str:
    """``dataset.parts`` as one writes it on a command line."""
    quoted = {
        part: path if re.fullmatch(r"[\w./-]+", path) else repr(path)
        for part, path in parts.items()
    }
    listed = ", ".join(f"{part}: {quoted[part]}" for part in PARTS if part in parts)
    return f'"dataset.parts={{{shown(listed)}}}"'


def stated_parts(folders: Folders, parts: dict[str, str]) -> dict[str, str]:
    """Part -> its folder, as the user says."""
    paths = {part: f"{posixpath.normpath(folder)}/" for part, folder in parts.items()}
    for part, path in paths.items():
        if path not in folders.below and path not in folders.own:
            raise UserError(
                f"dataset.parts: {part}: {shown(parts[part])} is no folder with images in it"
            )
        if other := next((p for p, at in paths.items() if p != part and at.startswith(path)), None):
            raise UserError(f"dataset.parts: the folder of {other} lies in that of {part}")
    if paths and (
        out := [name for name in folders.images if not name.startswith(tuple(paths.values()))]
    ):
        source = shown(folders.tree.source)
        log.warning(
            "%s: %d images are in no folder of dataset.parts and left out", source, len(out)
        )
    return paths


def above_classes(folders: Folders) -> str:
    """The folder whose folders are the classes: one that wraps them all,
    as most zip files have, is no class.
    """
    at = ""
    while not folders.stray(at) and len(folders.folders(at)) == 1:
        below = f"{at}{folders.folders(at)[0]}/"
        if folders.stray(below) and not folders.folders(below):
            break  # the only class
        at = below
    return at
