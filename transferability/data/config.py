"""Settings of datasets: where images come from, and how they are packed."""

import os
import posixpath
import re
from dataclasses import dataclass

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


@dataclass
class GrammarConfig:
    """The random hierarchy behind the embedded images, see ``readers/random_hierarchy.py``."""

    seed: int = 0
    families: int = 2  # families of classes; the first is "natural", the second "man-made"
    classes_per_family: int = 20
    symbols: int = 10  # v: symbols a level
    rules: int = 2  # m: ways to expand one symbol
    levels: int = 3  # L: expansions from a class to the terminals
    shared_levels: int = 1  # rules of the lowest levels that all families share
    patch: int = 4  # pixels a side of one terminal
    noise: float = 0.25
    shift: int = 1  # pixels, cyclic
    brightness: float = 0.2
    train_per_class: int = 30
    val_per_class: int = 100

    def check(self) -> None:
        require(
            self.families == 2, "dataset.grammar.families", self.families, "there are two families"
        )
        counts = (
            "classes_per_family",
            "symbols",
            "rules",
            "levels",
            "patch",
            "train_per_class",
            "val_per_class",
        )
        for key in counts:
            require(
                getattr(self, key) > 0,
                f"dataset.grammar.{key}",
                getattr(self, key),
                "a number above 0",
            )
        for key in ("noise", "shift", "brightness"):
            require(
                getattr(self, key) >= 0, f"dataset.grammar.{key}", getattr(self, key), "at least 0"
            )
        require(
            0 <= self.shared_levels < self.levels,
            "dataset.grammar.shared_levels",
            self.shared_levels,
            f"it goes from 0 to levels-1={self.levels - 1}",
        )
        classes = self.families * self.classes_per_family
        for key, symbols in (("symbols", self.symbols), ("classes_per_family", classes)):
            require(
                symbols * self.rules <= self.symbols**4,
                f"dataset.grammar.{key}",
                getattr(self, key),
                f"{symbols} x {self.rules} rules need as many distinct productions, "
                f"of {self.symbols}^4",
            )


@dataclass
class DatasetConfig:
    """Where images come from and how they are packed."""

    kind: str  # one of READERS, such as folder
    name: str  # names the packed folder and the runs
    folder: str  # the packed dataset
    image_size: int  # pixels a side, as packed
    source: str | None = None  # folder, zip or tar file with the original images
    # area | linear (OpenCV's; linear, without antialias, is the original's) | bilinear | bicubic
    # (Pillow's, with antialias: those of torchvision's and timm's transforms)
    resize: str = "area"
    on_error: str = "fail"  # fail | skip: what a corrupt image does
    # raw | jpeg: how images are stored; jpeg: about a fifth, changed a little
    encoding: str = omit_at("raw")
    jpeg_quality: int = 95  # encoding=jpeg: 1 to 100, colours at full resolution (4:4:4)
    # kind=folder: folders of train, val, test; {}: all are classes; null: by name
    parts: dict[str, str] | None = None
    # kind=folder: the class is the so-manieth folder below that of train, val or test, or below the
    # one that holds all; null: the first, if it holds images itself
    class_level: int | None = omit_at(None)
    # kind=folder: names, or paths below the source, of folders that are left out
    leave_out: list[str] | None = omit_at(None, [])
    # kind=folder: a table of files and classes, by its path below the source, its name there (then
    # all tables of that name), or its path on the disk
    labels: str | None = omit_at(None)
    # the columns of that table: file, class, subset; those that are not named are found; of
    # kind=huggingface those of images (file) and labels (class)
    columns: dict[str, str] | None = omit_at(None, {})
    # kind=folder: a regular expression, found in a file's path below the source; its first group,
    # or all of it, is the class
    pattern: str | None = omit_at(None)
    val_fraction: float = 0.1  # kind=folder without a val folder: the share of each class held out
    # a regular expression, found in a file's path below the source: what its first group, or all of
    # it, matches is held out as a whole, such as the images of a patient
    group: str | None = omit_at(None)
    # the share of each class held out for test, of what a val folder leaves; 0: none
    test_fraction: float = omit_at(0.0)
    # keep (and say so) | drop | fail: equal pictures, see duplicates.py
    duplicates: str = omit_at("keep", "fail")
    val_labels: str | None = None  # kind=imagenet with a flat val folder: wnids, a line per image
    seed: int = 0  # of the order of the packed rows
    # ignore, as the original | apply: what EXIF or TIFF say of turning an image
    orientation: str = omit_at("ignore")
    # squash, as the original: the aspect ratio is not kept | crop: the square in the middle
    fit: str = omit_at("squash")
    grammar: GrammarConfig | None = None

    def check(self) -> None:
        require(self.kind in READERS, "dataset.kind", self.kind, f"one of {', '.join(READERS)}")
        require(self.fit in ("squash", "crop"), "dataset.fit", self.fit, "squash or crop")
        filters = ("area", "linear", "bilinear", "bicubic")
        require(
            self.resize in filters, "dataset.resize", self.resize, f"one of {', '.join(filters)}"
        )
        require(
            self.on_error in ("fail", "skip"), "dataset.on_error", self.on_error, "fail or skip"
        )
        known = ("ignore", "apply")
        require(
            self.orientation in known, "dataset.orientation", self.orientation, "ignore or apply"
        )
        require(self.encoding in ("raw", "jpeg"), "dataset.encoding", self.encoding, "raw or jpeg")
        require(0 < self.jpeg_quality <= 100, "dataset.jpeg_quality", self.jpeg_quality, "1 to 100")
        require(
            self.image_size > 0, "dataset.image_size", self.image_size, "a number of pixels above 0"
        )
        require(
            0 < self.val_fraction < 1, "dataset.val_fraction", self.val_fraction, "between 0 and 1"
        )
        require(
            0 <= self.test_fraction < 1,
            "dataset.test_fraction",
            self.test_fraction,
            "at least 0 and below 1",
        )
        ways = ("keep", "drop", "fail")
        require(
            self.duplicates in ways, "dataset.duplicates", self.duplicates, "keep, drop or fail"
        )
        for key in ("class_level", "leave_out", "labels", "pattern"):
            value = getattr(self, key)
            fits = value is None or self.kind == "folder"
            require(fits, f"dataset.{key}", value, "it is for dataset=folder")
        for key in ("group", "pattern"):
            try:
                re.compile(getattr(self, key) or "")
            except re.error as error:
                wanted = f"a regular expression ({error})"
                require(False, f"dataset.{key}", getattr(self, key), wanted)
        said = [key for key in ("labels", "pattern", "class_level") if getattr(self, key)]
        if len(said) > 1:
            raise UserError(f"dataset.{said[0]} and dataset.{said[1]} both say the classes")
        roles = {"file", "class", "subset"} if self.labels else set()
        roles = {"file", "class"} if self.kind == "huggingface" else roles
        wanted = "names of columns of dataset.labels for file, class and subset"
        require({*(self.columns or ())} <= roles, "dataset.columns", self.columns, wanted)
        level = self.class_level
        require(level is None or level > 0, "dataset.class_level", level, "a number above 0")
        named = all(posixpath.normpath(folder) != "." for folder in self.leave_out or ())
        require(named, "dataset.leave_out", self.leave_out, "names of folders")
        if self.parts:
            fits = "train" in self.parts and self.parts.keys() <= {"train", "val", "test"}
            fits = fits and all(isinstance(folder, str) for folder in self.parts.values())
            require(
                fits,
                "dataset.parts",
                self.parts,
                "folders for train and, where there are any, val and test",
            )
        plain = (
            self.name.isprintable()
            and not {"/", os.sep} & set(self.name)
            and 0 < len(self.name.encode()) <= 100
        )
        require(plain, "dataset.name", repr(self.name), "a folder name of at most 100 bytes")
        if self.embedded:
            self._check_grammar()

    @property
    def embedded(self) -> bool:
        """Whether the images are made, not read: they need no ``source``, and are packed on first
        use.
        """
        return self.kind == "procedural"

    def _check_grammar(self) -> None:
        if self.grammar is None:
            raise UserError("dataset.grammar=None is not possible: kind=procedural needs a grammar")
        self.grammar.check()
        side = self.grammar.patch * 2**self.grammar.levels
        if self.image_size != side:
            raise UserError(
                f"dataset.image_size={self.image_size} is not possible: "
                f"patch x 2^levels is {side} pixels"
            )
