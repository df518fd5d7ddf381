"""Where images come from: every kind of dataset as a list of classes and of images to pack."""

import csv
import io
import os
import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import yaml
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.folder import IMG_EXTENSIONS

from transferability.config import DatasetConfig
from transferability.datasets import ClassInfo
from transferability.draws import numpy_generator
from transferability.errors import UserError
from transferability.procedural import FAMILIES, make_grammar

REFERENCE = files("transferability.reference")


@dataclass(frozen=True)
class Item:
    """One image: its class, a name for messages, and how to get it, (H, W, 3) uint8 RGB of any size."""

    label: int
    name: str
    load: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Source:
    """A dataset before packing."""

    classes: list[ClassInfo]
    train: list[Item]
    val: list[Item]


def open_source(config: DatasetConfig) -> Source:
    """The images that ``config`` names.

    Raises:
        UserError: the source is missing, empty or not of the stated kind.
    """
    if config.kind == "procedural":
        return _procedural(config)
    if config.source is None:
        raise UserError(f"dataset.source is not set: say where the images of {config.name} are, dataset.source=PATH")
    if config.kind in ("cifar10", "cifar100"):
        return _cifar(config)
    tree = FileTree(config.source)
    return {"tiny_imagenet": _tiny_imagenet, "imagenet": _imagenet, "folder": _folder}[config.kind](tree, config)


class FileTree:
    """The image files of a folder or a zip file, by path relative to it; sorted, whatever the disk's order."""

    def __init__(self, source: str):
        self.source = Path(source).expanduser()
        if not self.source.exists():
            raise UserError(f"dataset.source={source} does not exist")
        self._zip = None
        if self.source.is_dir():
            found = os.walk(self.source, followlinks=True)  # train/ is often a link to another disk
            names = [Path(at, f).relative_to(self.source).as_posix() for at, _, fs in found for f in fs]
        else:
            try:
                self._zip = zipfile.ZipFile(self.source)
            except zipfile.BadZipFile as error:
                raise UserError(f"dataset.source={source} is neither a folder nor a zip file") from error
            names = [i.filename for i in self._zip.infolist() if not i.is_dir()]
        # ._x.jpg and __MACOSX (macOS) and .ipynb_checkpoints hold what looks like images and classes
        self.names = sorted(n for n in names if not n.startswith((".", "__MACOSX/")) and "/." not in n)
        if not self.images(""):
            raise UserError(f"dataset.source={source} has no images in it ({', '.join(IMG_EXTENSIONS)})")

    def images(self, under: str) -> list[str]:
        """Image files below the folder ``under`` ('' for all)."""
        return [n for n in self.names if n.startswith(under) and n.lower().endswith(IMG_EXTENSIONS)]

    def read(self, name: str) -> bytes:
        """The bytes of a file; OSError if they cannot be had, from a zip file too."""
        if self._zip is None:
            return (self.source / name).read_bytes()
        try:
            return self._zip.read(name)
        except (KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise OSError(f"zip: {error}") from error

    def text(self, name: str) -> str:
        try:
            return self.read(name).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.source}/{name} cannot be read: {error}") from error

    def item(self, label: int, name: str) -> Item:
        return Item(label, f"{self.source}/{name}", lambda: decode(self.read(name)))

    def find(self, *names: str) -> str | None:
        """The prefix ('' or 'a/b/') nearest the top with a file or a folder of images of one of ``names``."""
        prefixes = {""} | {f"{p}/" for n in self.names for p in map(str, PurePosixPath(n).parents) if p != "."}
        for prefix in sorted(prefixes, key=lambda p: (p.count("/"), p)):
            if any(f"{prefix}{name}" in self._entries for name in names):
                return prefix
        return None

    @cached_property
    def _entries(self) -> set[str]:
        """All files, and all folders with images below (ILSVRC also has a train/ of annotations)."""
        return set(self.names) | {str(p) for n in self.images("") for p in PurePosixPath(n).parents}


def decode(data: bytes) -> np.ndarray:
    """An encoded image as (H, W, 3) uint8 RGB.

    OpenCV decodes (as Caffe did; EXIF rotation ignored, as then). A JPEG that does not end as one is given to
    Pillow, which refuses truncated files where OpenCV fills in grey.

    Raises:
        ValueError: not a whole image.
    """
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-64:]:
        try:
            Image.open(io.BytesIO(data)).load()
        except (OSError, SyntaxError) as error:
            raise ValueError(str(error)) from error
    image = None
    if data:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error as error:
            raise ValueError(f"OpenCV: {error.err}") from error
    if image is None:
        raise ValueError("empty file" if not data else "not an image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def imagenet_groups() -> dict[str, str]:
    """wnid -> natural | man-made for ILSVRC's 1000 classes."""
    with (REFERENCE / "ilsvrc12_natural_manmade.csv").open() as file:
        return {row["wnid"]: row["group"] for row in csv.DictReader(file)}


def cifar_groups(kind: str) -> dict[str, str]:
    """class name -> natural | man-made for cifar10 or cifar100."""
    groups = yaml.safe_load((REFERENCE / "cifar_natural_manmade.yaml").read_text())[kind]
    return {name: group for group, parts in groups.items() for names in parts.values() for name in names}


def _procedural(config: DatasetConfig) -> Source:
    grammar = make_grammar(config.grammar)
    per_family, classes = config.grammar.classes_per_family, []
    subsets = {"train": [], "val": []}
    counts = {"train": config.grammar.train_per_class, "val": config.grammar.val_per_class}
    for family, group in enumerate(FAMILIES):
        for own in range(per_family):
            label = len(classes)
            classes.append(ClassInfo(f"{group}-{own:02d}", None, group))
            for subset, count in counts.items():
                for i in range(count):
                    subsets[subset].append(
                        Item(
                            label,
                            f"{classes[-1].name}/{subset}/{i}",
                            lambda f=family, c=own, s=subset, k=i: grammar.image(f, c, s, k),
                        )
                    )
    return Source(classes, subsets["train"], subsets["val"])


def _cifar(config: DatasetConfig) -> Source:
    """CIFAR through torchvision, which downloads it to ``dataset.source`` when it is not there."""
    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[config.kind]
    subsets = {}
    for subset, train in (("train", True), ("val", False)):
        try:
            data = dataset(config.source, train=train, download=True)
        except Exception as error:
            raise UserError(
                f"{config.kind} is not in dataset.source={config.source} and cannot be downloaded "
                f"({type(error).__name__}): put torchvision's files there"
            ) from error
        images, labels = data.data, data.targets
        subsets[subset] = [
            Item(label, f"{config.kind}/{subset}/{i}", lambda a=images, k=i: a[k]) for i, label in enumerate(labels)
        ]
    group_of = cifar_groups(config.kind)
    return Source([ClassInfo(n, None, group_of[n]) for n in data.classes], subsets["train"], subsets["val"])


def _tiny_imagenet(tree: FileTree, config: DatasetConfig) -> Source:
    """The official layout: wnids.txt, train/WNID/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt."""
    root = tree.find("wnids.txt")
    if root is None:
        raise UserError(f"dataset.source={config.source} has no wnids.txt: it is not Tiny-ImageNet's zip or folder")
    wnids = sorted(tree.text(f"{root}wnids.txt").split())
    words = dict(line.split("\t", 1) for line in tree.text(f"{root}words.txt").splitlines() if "\t" in line)
    groups, index = imagenet_groups(), {w: i for i, w in enumerate(wnids)}
    classes = [ClassInfo(words.get(w, w).split(",")[0], w, groups.get(w)) for w in wnids]
    train = [(n, n.removeprefix(f"{root}train/").split("/")[0]) for n in tree.images(f"{root}train/")]
    lines = [line.split("\t") for line in tree.text(f"{root}val/val_annotations.txt").splitlines()]
    val = [(f"{root}val/images/{name}", wnid) for name, wnid, *_ in lines]
    for name, wnid in train + val:
        if wnid not in index:
            raise UserError(f"{config.source}/{name}: its class {wnid} is not in wnids.txt")
    train, val = ([tree.item(index[wnid], name) for name, wnid in subset] for subset in (train, val))
    return Source(classes, train, val)


def _imagenet(tree: FileTree, config: DatasetConfig) -> Source:
    """Folders of wnid folders (train/, val/), or a flat val/ with ``dataset.val_labels``."""
    root = tree.find("train")
    if root is None:
        raise UserError(f"dataset.source={config.source} has no folder train/ with a folder a wnid in it")
    train_names = tree.images(f"{root}train/")
    wnids = sorted({n.removeprefix(f"{root}train/").split("/")[0] for n in train_names})
    if not all(re.fullmatch(r"n\d{8}", w) for w in wnids):
        odd = next(w for w in wnids if not re.fullmatch(r"n\d{8}", w))
        raise UserError(
            f"{config.source}/{root}train/{odd} is not a wnid folder (n01440764); for other images use dataset=folder"
        )
    groups, index = imagenet_groups(), {w: i for i, w in enumerate(wnids)}
    train = [tree.item(index[n.removeprefix(f"{root}train/").split("/")[0]], n) for n in train_names]
    val_names = tree.images(f"{root}val/")
    flat = [n for n in val_names if "/" not in n.removeprefix(f"{root}val/")]
    wnid_of = _flat_val_wnids(flat, config) if flat else {}
    val = []
    for name in val_names:
        wnid = wnid_of.get(name) or name.removeprefix(f"{root}val/").split("/")[0]
        if wnid not in index:
            raise UserError(f"{config.source}/{name}: its class {wnid} has no training folder")
        val.append(tree.item(index[wnid], name))
    return Source([ClassInfo(w, w, groups.get(w)) for w in wnids], train, val)


def _flat_val_wnids(names: list[str], config: DatasetConfig) -> dict[str, str]:
    """The wnid of each validation image, from lines ``wnid`` in file order, or lines that hold file name and wnid."""
    if config.val_labels is None:
        raise UserError(
            f"{config.source}/val is flat: set dataset.val_labels to a text file with the wnid of each image (a line "
            "per image in the order of file names, or `name wnid`, as in LOC_val_solution.csv)"
        )
    try:
        lines = Path(config.val_labels).read_text().splitlines()
    except OSError as error:
        raise UserError(f"dataset.val_labels={config.val_labels}: {error.strerror}") from error
    found = [(line, wnid.group()) for line in lines if (wnid := re.search(r"n\d{8}", line))]
    if found and all(line.strip() == wnid for line, wnid in found):
        if len(found) != len(names):
            raise UserError(f"dataset.val_labels has {len(found)} wnids, but val/ has {len(names)} images")
        return {name: wnid for name, (_, wnid) in zip(names, found, strict=True)}
    by_stem = {re.split(r"[,\s]", line.strip())[0].rsplit(".", 1)[0]: wnid for line, wnid in found}
    missing = [n for n in names if PurePosixPath(n).stem not in by_stem]
    if missing:
        raise UserError(f"dataset.val_labels={config.val_labels} has no wnid for {missing[0]}")
    return {n: by_stem[PurePosixPath(n).stem] for n in names}


def _folder(tree: FileTree, config: DatasetConfig) -> Source:
    """Any folder of class folders; with train/ and val/ above them, or with a share of each class held out."""
    root = tree.find("train")
    beside = () if root is None else (f"{root}{v}/" for v in ("val", "validation", "test"))
    under = next((folder for folder in beside if tree.images(folder)), None)
    held_out = root is None or (under is None and _is_class(tree, f"{root}train/"))
    if held_out:
        by_class = _by_class(tree, _above_classes(tree))
    else:
        by_class = _by_class(tree, f"{root}train/")
        if under is None:
            raise UserError(f"dataset.source={config.source} has train/ but no images in val/, validation/ or test/")
        val_by_class = _by_class(tree, under)
        if extra := sorted(val_by_class.keys() - by_class.keys()):
            raise UserError(f"class {extra[0]!r} has validation images but no training images in {config.source}")
    names = sorted(by_class)
    train, val = [], []
    for label, name in enumerate(names):
        if held_out:
            found = by_class[name]
            order = numpy_generator(config.seed, "held out", name).permutation(len(found))
            cut = max(1, round(config.val_fraction * len(found)))
            val += [tree.item(label, found[i]) for i in sorted(order[:cut])]
            train += [tree.item(label, found[i]) for i in sorted(order[cut:])]
        else:
            train += [tree.item(label, n) for n in by_class[name]]
            val += [tree.item(label, n) for n in val_by_class.get(name, [])]
    return Source([ClassInfo(n) for n in names], train, val)


def _is_class(tree: FileTree, folder: str) -> bool:
    """Whether images lie right in ``folder``: CIFAR-100, for one, has a class called train."""
    return any("/" not in name.removeprefix(folder) for name in tree.images(folder))


def _above_classes(tree: FileTree) -> str:
    """The folder whose folders are the classes: one that wraps them all, as most zip files have, is no class."""
    above = [posixpath.dirname(posixpath.dirname(name)) for name in tree.images("")]
    common = posixpath.commonpath(above)
    return f"{common}/" if common else ""


def _by_class(tree: FileTree, under: str) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for name in tree.images(under):
        parts = name.removeprefix(under).split("/")
        if len(parts) < 2:
            raise UserError(f"{tree.source}/{name} lies outside a class folder: images belong in CLASS/IMAGE")
        out.setdefault(parts[0], []).append(name)
    return out
