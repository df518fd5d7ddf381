"""Settings of datasets: where images come from, and how they are packed."""

import os
import posixpath
import re
from dataclasses import dataclass
from typing import Annotated, Any

from transferability.bounds import Bound, above, at_least, between, check_bounds, one_of
from transferability.errors import UserError, require
from transferability.fingerprint import omit_at

# By dataset.kind, the file of data/readers/ that opens such datasets.
READERS = {
    "procedural": "random_hierarchy",
    "tiny_imagenet": "tiny_imagenet",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "imagenet": "imagenet",
    "torchvision": "torchvision_datasets",
    "huggingface": "huggingface",
    "folder": "folder",
}
PATHS = ("folder", "source", "val_labels")  # of the dataset


TWO = Bound(lambda families: families == 2, "2: there are two families")
SHARE = Bound(lambda share: 0 < share < 1, "above 0 and below 1")
FOLDER = Bound(lambda path: posixpath.normpath(path) != ".", "names of folders")


def _is_folder_name(name: str) -> bool:
    return name.isprintable() and not {"/", os.sep} & {*name} and 0 < len(name.encode()) <= 100


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and bool(value)


FOLDER_NAME = Bound(_is_folder_name, "a folder name of at most 100 bytes")


@dataclass
class GrammarConfig:
    """The random hierarchy behind the synthetic images, see ``readers/random_hierarchy.py``."""

    seed: int = 0
    # families of classes; the first is "natural", the second "man-made"
    families: Annotated[int, TWO] = 2
    classes_per_family: Annotated[int, above(0)] = 20
    symbols: Annotated[int, above(0)] = 10  # v: symbols a level
    rules: Annotated[int, above(0)] = 2  # m: ways to expand one symbol
    levels: Annotated[int, above(0)] = 3  # L: expansions from a class to the terminals
    shared_levels: int = 1  # rules of the lowest levels that all families share
    patch: Annotated[int, above(0)] = 4  # pixels a side of one terminal
    noise: Annotated[float, at_least(0)] = 0.25
    shift: Annotated[int, at_least(0)] = 1  # pixels, cyclic
    brightness: Annotated[float, at_least(0)] = 0.2
    train_per_class: Annotated[int, above(0)] = 30
    val_per_class: Annotated[int, above(0)] = 100

    def check(self) -> None:
        check_bounds(self, "dataset.grammar.")
        require(
            0 <= self.shared_levels < self.levels,
            "dataset.grammar.shared_levels",
            self.shared_levels,
            f"from 0 to levels-1={self.levels - 1}",
        )
        classes = self.families * self.classes_per_family
        for key, symbols in (("symbols", self.symbols), ("classes_per_family", classes)):
            require(
                symbols * self.rules <= self.symbols**4,
                f"dataset.grammar.{key}",
                getattr(self, key),
                f"such that {symbols} x {self.rules} rules, as many distinct productions, are at "
                f"most {self.symbols}^4",
            )


@dataclass
class DatasetConfig:
    """Where images come from and how they are packed."""

    kind: Annotated[str, one_of(*READERS)]
    name: Annotated[str, FOLDER_NAME]  # names the packed folder and the runs
    folder: str  # the packed dataset
    image_size: Annotated[int, above(0)]  # pixels a side, as packed
    source: str | None = None  # folder, zip or tar file with the original images
    # area, linear: OpenCV's (linear, without antialias, is the original's); bilinear, bicubic:
    # Pillow's, with antialias, those of torchvision's and timm's transforms
    resize: Annotated[str, one_of("area", "linear", "bilinear", "bicubic")] = "area"
    on_error: Annotated[str, one_of("fail", "skip")] = "fail"  # what a corrupt image does
    # how images are stored; jpeg: about a fifth, changed a little
    encoding: Annotated[str, one_of("raw", "jpeg")] = omit_at("raw")
    # encoding=jpeg: colors at full resolution (4:4:4)
    jpeg_quality: Annotated[int, Bound(lambda q: 0 < q <= 100, "from 1 to 100")] = 95
    # kind=folder: folders of train, val, test; {}: all are classes; null: by name
    parts: dict[str, str] | None = None
    # kind=folder: the level of the folders that are classes, below the folder of train, val or
    # test, or below the one that holds all; null: 1, if these hold images themselves
    class_level: Annotated[int | None, above(0)] = omit_at(None)
    # kind=folder: names, or paths below the source, of folders that are left out; of files and
    # folders where a * stands for any part of a name
    leave_out: Annotated[list[str] | None, FOLDER] = omit_at(None, [])
    # kind=folder: a table of files and classes, by its path below the source, its name there (then
    # all tables of that name), or its path on the disk
    labels: str | None = omit_at(None)
    # the columns of that table: file, class (or a list of those that say 0 or 1), subset (null:
    # none); those that are not named are found; of kind=huggingface those of images (file) and
    # labels (class)
    columns: dict[str, Any] | None = omit_at(None, {})
    # kind=folder: a regular expression, found in a file's path below the source; its first group,
    # or all of it, is the class
    pattern: str | None = omit_at(None)
    # kind=folder without a val folder: the share of each class held out
    val_fraction: Annotated[float, SHARE] = 0.1
    # a regular expression, found in a file's path below the source: what its first group, or all of
    # it, matches is held out as a whole, such as the images of a patient
    group: str | None = omit_at(None)
    # the share of each class held out for test, of what a val folder leaves; 0: none
    test_fraction: Annotated[float, between(0, 1)] = omit_at(0.0)
    # keep (and say so) equal pictures, see duplicates.py
    duplicates: Annotated[str, one_of("keep", "drop", "fail")] = omit_at("keep", "fail")
    val_labels: str | None = None  # kind=imagenet with a flat val folder: wnids, a line per image
    seed: int = 0  # of the order of the packed rows
    # what EXIF or TIFF say of turning an image; ignore, as the original
    orientation: Annotated[str, one_of("ignore", "apply")] = omit_at("ignore")
    # squash, as the original: the aspect ratio is not kept; crop: the square in the middle
    fit: Annotated[str, one_of("squash", "crop")] = omit_at("squash")
    grammar: GrammarConfig | None = None

    def check(self) -> None:
        """Raises:
        UserError: an impossible value.
        """
        check_bounds(self, "dataset.")
        for key in ("class_level", "leave_out", "labels", "pattern"):
            value = getattr(self, key)
            fits = value is None or self.kind == "folder"
            require(fits, f"dataset.{key}", value, "null: it is for dataset=folder")
        for key in ("group", "pattern"):
            try:
                re.compile(getattr(self, key) or "")
            except re.error as error:
                wanted = f"a regular expression ({error})"
                require(False, f"dataset.{key}", getattr(self, key), wanted)
        said = [key for key in ("labels", "pattern", "class_level") if getattr(self, key)]
        if len(said) > 1:
            raise UserError(f"dataset.{said[0]} and dataset.{said[1]} both define the classes")
        roles = {"file", "class", "subset"} if self.labels else set()
        roles = {"file", "class"} if self.kind == "huggingface" else roles
        wanted = (
            f"names of columns for {', '.join(sorted(roles))}"
            if roles
            else "null: it is for dataset.labels and dataset=huggingface"
        )
        fits = {*(self.columns or ())} <= roles and all(
            isinstance(name, str)
            or (role == "subset" and name is None)
            or (self.labels and role == "class" and _is_list_of_names(name))
            for role, name in (self.columns or {}).items()
        )
        require(fits, "dataset.columns", self.columns, wanted)
        if self.parts:
            fits = "train" in self.parts and self.parts.keys() <= {"train", "val", "test"}
            fits = fits and all(isinstance(folder, str) for folder in self.parts.values())
            wanted = "folders for train and, where there are any, val and test"
            require(fits, "dataset.parts", self.parts, wanted)
        if self.synthetic:
            self._check_grammar()

    @property
    def synthetic(self) -> bool:
        """Whether the images are made, not read: they need no ``source``, and are packed on first
        use.
        """
        return self.kind == "procedural"

    def _check_grammar(self) -> None:
        if self.grammar is None:
            raise UserError("dataset.grammar=null is not possible: kind=procedural needs a grammar")
        self.grammar.check()
        side = self.grammar.patch * 2**self.grammar.levels
        wanted = f"patch x 2^levels = {side} pixels"
        require(self.image_size == side, "dataset.image_size", self.image_size, wanted)
