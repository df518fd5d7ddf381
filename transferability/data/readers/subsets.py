"""Find the folders of training, validation and test images, by name or by ``dataset.parts``."""

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from transferability.data.readers.file_tree import FileTree
from transferability.errors import UserError

# Names of subset folders, in lower case (case is ignored): those of Hugging Face's imagefolder and
# of public datasets (Intel's image scenes, Kaggle's cats and dogs).
_KEYWORDS = {
    **dict.fromkeys(("train", "training", "seg_train", "training_set"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("seg_test", "test_set"), "test"),
    **dict.fromkeys(("pred", "prediction", "predictions", "seg_pred"), "pred"),
}
# Words that make a name look like a subset's: separate from the rest of the name, or joined to it.
_KINDS = (
    r"(?:(?P<train>train(?:ing|val)?)|(?P<val>val(?:id(?:ation)?)?|dev)"
    r"|(?P<test>test(?:ing)?|evaluation|eval)|(?P<pred>pred(?:ict(?:ions?)?)?))(?:[-_ .]?set)?"
)
_WORD = re.compile(rf"(?<![a-z]){_KINDS}(?![a-z])")
_GLUED = re.compile(rf"^{_KINDS}|{_KINDS.replace('?P<', '?P<end_')}$")
# What generic names of subsets contain besides such a word: train_images, test-data, val2.
_HOLDERS = {"", "data", "dataset", "folder", "image", "images", "imgs", "jpg", "photos", "pictures"}
# Names of folders that accompany images, or (NO_CLASSES) contain them, in lower case: not classes.
ACCOMPANYING = {"annotations", "labels", "masks", "previews", "thumbnails", "thumbs", "trimaps"}
NO_CLASSES = {"images", "imgs", "jpegimages", *ACCOMPANYING}
SUBSETS = ("train", "val", "test")  # in the order of the rows of a pack
WORDS = {"train": "training", "val": "validation", "test": "test", "pred": "test"}


class AmbiguousError(UserError):
    """Raised if the role of a folder is unclear.

    ``subsets``: the folders of the known subsets. ``odd``: what may have to be added to
    ``dataset.leave_out``, such as the name of a folder.
    """

    def __init__(
        self,
        what: str,
        subsets: dict[str, str] | None = None,
        odd: str | tuple[str, ...] | None = None,
    ):
        super().__init__(what)
        self.subsets, self.odd = subsets or {}, (odd,) if isinstance(odd, str) else odd or ()


class Folders:
    """The folders of a tree that contain images at any depth, with their images and subfolders.

    ``leave_out``: folders to leave out, by name or path. An entry in which ``*`` stands for any
    part of a name applies to files, too.
    """

    def __init__(self, tree: FileTree, leave_out: Iterable[str] = ()):
        self.tree, self.below, self.own = tree, dict[str, set[str]](), dict[str, list[str]]()
        entries = [posixpath.normpath(entry) for entry in leave_out]
        self.left_out = {entry: _as_pattern(entry) for entry in entries}
        self.images = [name for name in tree.images("") if not self.leaves_out(name)]
        for name in self.images:
            folder, slash, _ = name.rpartition("/")
            self.own.setdefault(folder + slash, []).append(name)
        for path in self.own:
            parts = path.split("/")[:-1]
            for depth, folder in enumerate(parts):
                self.below.setdefault("".join(f"{part}/" for part in parts[:depth]), set()).add(
                    folder
                )

    def leaves_out(self, path: str) -> bool:
        """Whether ``path`` (a folder ends in a slash), or a folder above it, is left out."""
        return any(pattern.search(f"/{path}") for pattern in self.left_out.values())

    def folders(self, at: str) -> list[str]:
        return sorted(self.below.get(at, ()))

    def direct_images(self, at: str) -> list[str]:
        """The images in the folder ``at``, without those in its subfolders."""
        return self.own.get(at, [])

    def classes(self, at: str, level: int = 1) -> dict[str, list[str]]:
        """Class -> its images. The class is the ``level``-th folder below ``at``.

        Raises:
            AmbiguousError: an image lies in no such folder.
            UserError: such a folder has no images.
        """
        tree, out = self.tree, dict[str, list[str]]()
        for name in self.images:
            if name.startswith(at):
                above = name.removeprefix(at).split("/")[:-1]
                if len(above) < level:
                    of = f" (dataset.class_level={level})" if level > 1 else ""
                    raise AmbiguousError(f"{name} lies outside a class folder{of}")
                out.setdefault(above[level - 1], []).append(name)
        for folder in tree.folders:
            names = folder.removeprefix(at).split("/")
            if (
                folder.startswith(at)
                and len(names) == level
                and names[-1] not in out
                and not self.leaves_out(f"{folder}/")
            ):
                files = [n for n in tree.names if n.startswith(f"{folder}/")]
                what = (
                    f"its {len(files)} files are not images, the first is {files[0]}"
                    if files
                    else "it is empty"
                )
                raise UserError(
                    f"class {names[-1]} has no images ({tree.source / folder}: "
                    f"{what}): add some, or remove the folder"
                )
        return out


def _as_pattern(entry: str) -> re.Pattern[str]:
    """Compile an entry of dataset.leave_out into a pattern for paths that begin with a slash."""
    end = "(?:/|$)" if "*" in entry else "/"
    return re.compile(f"/{'[^/]*'.join(map(re.escape, entry.split('*')))}{end}")


def subset_of_folder(name: str) -> str | None:
    """The subset (train, val, test or pred) of a folder by its name; None for other names."""
    return _KEYWORDS.get(name.casefold())


def _keywords(names: Iterable[str]) -> dict[str, str]:
    return {name: subset for name in names if (subset := subset_of_folder(name))}


def look_like_subsets(names: Collection[str]) -> bool:
    """Whether sibling folders look like subsets by names that are not keywords: train_images;
    traindata and testdata; rps and rps-test-set; steam train and test tube without others.
    """
    found = {name: word for name in names if not subset_of_folder(name) and (word := word_of(name))}
    others = {_letters(name) for name in names if name not in found}
    words = found.values()
    whole = [word for word in words if word.whole]
    return (
        any(word.rest in _HOLDERS for word in words)
        or any(word.rest in others for word in whole)
        or any(len({w.subset for w in words if w.rest == word.rest}) > 1 for word in words)
        or (len(whole) == len(names) and len({word.subset for word in whole}) > 1)
    )


class _Word(NamedTuple):
    """The subset (train, val, test or pred) of a word in a name, the other letters of the name, and
    whether the word stands by itself.
    """

    subset: str
    rest: str
    whole: bool


def word_of(name: str) -> _Word | None:
    """The only word for a subset in a name; None if there is none or more than one."""
    text = _spelled(name)
    whole = list(_WORD.finditer(text))
    words = whole or list(_GLUED.finditer(text))
    if len(words) != 1 or words[0].lastgroup is None:
        return None
    rest = text[: words[0].start()] + text[words[0].end() :]
    return _Word(words[0].lastgroup.removeprefix("end_"), _letters(rest), bool(whole))


def found_subsets(folders: Folders) -> dict[str, str]:
    """Subset -> its folder, by the names of folders; empty if the folders are classes.

    Raises:
        AmbiguousError: folders are named like subsets, but their roles are unclear.
    """
    named = {at: subsets for at in folders.below if (subsets := _keywords(folders.folders(at)))}

    def has_subsets(at: str) -> bool:
        """Whether ``at`` has subsets, and not just one folder of a class with such a name."""
        trains = [f"{at}{name}/" for name, subset in named[at].items() if subset == "train"]
        return len(named[at]) > 1 or any(not folders.direct_images(train) for train in trains)

    roots = sorted((at for at in named if has_subsets(at)), key=lambda at: (at.count("/"), at))
    top = class_root(folders)
    if not roots:
        if one := named.get(top, {}):
            (name,) = one
            # train may be a class of vehicles
            if one[name] != "train" or len(folders.folders(top)) < 3:
                what = (
                    f"{top}{name}/ is named like a subset of a dataset, but lies beside class "
                    "folders"
                )
                raise AmbiguousError(what, odd=name)
        return {}
    root = roots[0]
    if len(roots) > 1 and roots[1].count("/") == root.count("/"):
        both = " and ".join(f"{at}{next(iter(named[at]))}/" for at in roots[:2])
        raise AmbiguousError(
            f"{both} are subsets inside other folders; put the subsets above the classes"
        )
    return _checked(folders, root, named[root])


def _checked(folders: Folders, root: str, named: dict[str, str]) -> dict[str, str]:
    """Subset -> its folder in ``root``, if each occurs once and nothing lies beside them."""
    paths = {subset: f"{root}{name}" for name, subset in named.items()}
    stated = {subset: path for subset, path in paths.items() if subset != "pred"}
    if twice := [subset for subset, count in Counter(named.values()).items() if count > 1]:
        both = " and ".join(
            f"{root}{name}/" for name, subset in named.items() if subset == twice[0]
        )
        raise AmbiguousError(f"{both} are both named like {WORDS[twice[0]]} images", stated)
    inside = tuple(f"{path}/" for path in paths.values())
    if outside := [name for name in folders.images if not name.startswith(inside)]:
        above = root if outside[0].startswith(root) else ""
        beside = above + "".join(outside[0].removeprefix(above).partition("/")[:2])
        what = f"{beside} lies beside {', '.join(sorted(inside))} and is not a subset"
        raise AmbiguousError(what, stated, posixpath.basename(beside.rstrip("/")))
    if "train" not in paths:
        raise AmbiguousError(
            f"{', '.join(inside)} are named like subsets, but there is no train/", stated
        )
    if stray := folders.direct_images(f"{paths['train']}/"):
        raise AmbiguousError(f"{stray[0]} lies outside a class folder", stated)
    return {subset: _inner(folders, f"{path}/") for subset, path in paths.items()}


def _inner(folders: Folders, at: str) -> str:
    """``at``, or the folder of the same name inside if ``at`` contains nothing else."""
    below = folders.folders(at)
    if (
        folders.direct_images(at)
        or len(below) != 1
        or below[0].casefold() != posixpath.basename(at[:-1]).casefold()
    ):
        return at
    return _inner(folders, f"{at}{below[0]}/")


def stated_subsets(folders: Folders, subsets: dict[str, str]) -> dict[str, str]:
    """Subset -> its folder, as in ``dataset.parts``."""
    paths = {subset: f"{posixpath.normpath(folder)}/" for subset, folder in subsets.items()}
    for subset, path in paths.items():
        if path not in folders.below and path not in folders.own:
            raise UserError(
                f"dataset.parts: {subset}: {subsets[subset]} is not a folder with images in it"
            )
        if other := next(
            (p for p, at in paths.items() if p != subset and at.startswith(path)), None
        ):
            raise UserError(f"dataset.parts: the folder of {other} lies inside that of {subset}")
    return paths


def class_root(folders: Folders) -> str:
    """The folder that contains the class folders. A folder around all of them, as in most zip
    files, is not a class.
    """
    at = ""
    while not folders.direct_images(at) and len(folders.folders(at)) == 1:
        below = f"{at}{folders.folders(at)[0]}/"
        if folders.direct_images(below) and not folders.folders(below):
            break  # the only class
        at = below
    return at


def split_files(tree: FileTree) -> list[str]:
    """Files whose names suggest lists of training and test images."""

    def lists(name: str) -> bool:
        base, ending = posixpath.splitext(posixpath.basename(name))
        word = subset_named(base) in SUBSETS or "split" in base.casefold()
        return word and ending.lower() in (".csv", ".json", ".mat", ".txt")

    return [name for name in tree.names if lists(name)]


def subset_named(name: str) -> str | None:
    """The subset (train, val, test or pred) by the only such word in a name; None without one. For
    values in tables, splits on the hub and files; folders have exact names (``subset_of_folder``).
    """
    word = word_of(name)
    return word.subset if word and word.whole else None


def _spelled(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()


def _letters(text: str) -> str:
    return re.sub(r"[\W\d_]+", "", text.casefold())
