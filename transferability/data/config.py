"""Settings of datasets: where images come from, and how they are packed."""

import os
import posixpath
import re
from dataclasses import dataclass
from typing import Annotated, Any

from transferability.bounds import Bound, above, at_least, between, check_bounds, one_of
from transferability.errors import UserError, require
from transferability.fingerprint import omit_at

# dataset.kind -> module in data/readers/
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
PATHS = ("folder", "source", "val_labels")  # settings of a dataset that are paths


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
    """The random hierarchy of the synthetic images, see ``readers/random_hierarchy.py``."""

    seed: int = 0
    # families of classes; the first is "natural", the second "man-made"
    families: Annotated[int, TWO] = 2
    classes_per_family: Annotated[int, above(0)] = 20
    symbols: Annotated[int, above(0)] = 10  # v: symbols per level
    rules: Annotated[int, above(0)] = 2  # m: productions per symbol
    levels: Annotated[int, above(0)] = 3  # L: expansions from a class to the terminals
    shared_levels: int = 1  # lowest levels whose rules all families share
    patch: Annotated[int, above(0)] = 4  # side of a terminal in pixels
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
    folder: str  # of the packed dataset
    image_size: Annotated[int, above(0)]  # side of a packed image in pixels
    source: str | None = None  # folder, zip or tar file with the original images
    # area, linear: OpenCV (linear, without antialiasing, as in the paper); bilinear, bicubic:
    # Pillow with antialiasing, as in torchvision's and timm's transforms
    resize: Annotated[str, one_of("area", "linear", "bilinear", "bicubic")] = "area"
    on_error: Annotated[str, one_of("fail", "skip")] = "fail"  # on a corrupt image
    # how images are stored; jpeg: about a fifth of the size, with small changes
    encoding: Annotated[str, one_of("raw", "jpeg")] = omit_at("raw")
    # encoding=jpeg: colors at full resolution (4:4:4)
    jpeg_quality: Annotated[int, Bound(lambda q: 0 < q <= 100, "from 1 to 100")] = 95
    # kind=folder: folders of train, val and test; {}: all folders are classes; null: by name
    parts: dict[str, str] | None = None
    # kind=folder: the level of the class folders below the folder of each subset, or below the one
    # that contains all classes; null: 1, if the folders of this level contain images directly
    class_level: Annotated[int | None, above(0)] = omit_at(None)
    # kind=folder: folders to leave out, by name or by path below the source; an entry with a *,
    # which stands for any part of a name, applies to files, too
    leave_out: Annotated[list[str] | None, FOLDER] = omit_at(None, [])
    # kind=folder: a table of files and classes, by its path below the source, its name (all tables
    # of this name below the source), or its path on disk
    labels: str | None = omit_at(None)
    # the columns of this table: file, class (or a list of one-hot columns), subset (null: none);
    # other columns are found automatically. kind=huggingface: the columns of images (file) and
    # labels (class)
    columns: dict[str, Any] | None = omit_at(None, {})
    # kind=folder: a regular expression that is searched in a file's path below the source; the
    # match of its first group, or its entire match, is the class
    pattern: str | None = omit_at(None)
    # without validation images in the source: the share held out per class
    val_fraction: Annotated[float, SHARE] = 0.1
    # a regular expression that is searched in a file's path below the source: images with the same
    # match, such as those of a patient, are in one subset; or a column of the table of labels
    group: str | None = omit_at(None)
    # the share held out for test per class, of the images that are not in a val folder; 0: none
    test_fraction: Annotated[float, between(0, 1)] = omit_at(0.0)
    # keep: with a warning; see duplicates.py
    duplicates: Annotated[str, one_of("keep", "drop", "fail")] = omit_at("keep", "fail")
    val_labels: str | None = None  # kind=imagenet with a flat val folder: file of wnids
    seed: int = 0  # of the order of packed rows, and of held-out images
    # orientation tags of EXIF or TIFF; ignore, as in the paper
    orientation: Annotated[str, one_of("ignore", "apply")] = omit_at("ignore")
    # squash, as in the paper: the aspect ratio is not preserved; crop: the central square
    fit: Annotated[str, one_of("squash", "crop")] = omit_at("squash")
    grammar: GrammarConfig | None = None

    def check(self) -> None:
        """Check the values.

        Raises:
            UserError: a value is invalid.
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
        """Whether images are generated; they need no ``source`` and are packed on first use."""
        return self.kind == "procedural"

    def _check_grammar(self) -> None:
        if self.grammar is None:
            raise UserError("dataset.grammar=null is not possible: kind=procedural needs a grammar")
        self.grammar.check()
        side = self.grammar.patch * 2**self.grammar.levels
        wanted = f"patch x 2^levels = {side} pixels"
        require(self.image_size == side, "dataset.image_size", self.image_size, wanted)
