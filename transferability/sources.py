"""Where images come from: every kind of dataset as a list of classes and of images to pack."""

import csv
import posixpath
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path, PurePosixPath

import numpy as np
import yaml
from torchvision.datasets import CIFAR10, CIFAR100

from transferability.archives import FileTree, reason
from transferability.config import DatasetConfig
from transferability.datasets import ClassInfo
from transferability.decoding import decode
from transferability.draws import numpy_generator
from transferability.errors import UserError, and_more, shown
from transferability.layouts import layout_of, require_images
from transferability.procedural import FAMILIES, make_grammar

REFERENCE = files("transferability.reference")


@dataclass(frozen=True)
class Item:
    """One image: its class, a name for messages, and how to get it, (H, W, 3) uint8 RGB of any size."""

    label: int
    name: str
    load: Callable[[], np.ndarray]
    size: Callable[[], int] | None = None  # bytes of its file, where it has one


@dataclass(frozen=True)
class Source:
    """A dataset before packing. ``held_out``: ``val`` is a share of the training images, not a folder of its own."""

    classes: list[ClassInfo]
    train: list[Item]
    val: list[Item]
    test: list[Item] = field(default_factory=list)
    held_out: bool = False

    @property
    def parts(self) -> dict[str, list[Item]]:
        """What each part is called -> its images, in the order in which they are packed."""
        return {"training": self.train, "validation": self.val} | ({"test": self.test} if self.test else {})

    @property
    def items(self) -> list[Item]:
        return [*self.train, *self.val, *self.test]


def open_source(config: DatasetConfig) -> Source:
    """The images that ``config`` names.

    Raises:
        UserError: the source is missing, empty or not of the stated kind.
    """
    source = _open(config)
    return _with_test(source, config) if config.test_fraction else source


def _open(config: DatasetConfig) -> Source:
    if config.kind == "procedural":
        return _procedural(config)
    if config.source is None:
        raise UserError(f"dataset.source is not set: say where the images of {config.name} are, dataset.source=PATH")
    if config.kind in ("cifar10", "cifar100"):
        return _cifar(config)
    tree = FileTree(config.source)
    if config.kind != "folder":
        require_images(tree)
    return {"tiny_imagenet": _tiny_imagenet, "imagenet": _imagenet, "folder": _folder}[config.kind](tree, config)


def _item(tree: FileTree, config: DatasetConfig, label: int, name: str) -> Item:
    upright, where = config.orientation == "apply", shown(f"{tree.source}/{name}")
    return Item(label, where, lambda: decode(tree.read(name), upright), lambda: tree.size(name))


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
    """The official layout: wnids.txt, train/WNID/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt.

    Or val/WNID/*.JPEG, as it is often sorted.
    """
    root = tree.find("wnids.txt")
    if root is None:
        raise UserError(f"dataset.source={config.source} has no wnids.txt: it is not Tiny-ImageNet's zip or folder")
    wnids = sorted(set(tree.text(f"{root}wnids.txt").split()))
    words = dict(line.split("\t", 1) for line in tree.text(f"{root}words.txt").splitlines() if "\t" in line)
    groups, index = imagenet_groups(), {w: i for i, w in enumerate(wnids)}
    classes = [ClassInfo(words.get(w, w).split(",")[0], w, groups.get(w)) for w in wnids]
    train = [(n, n.removeprefix(f"{root}train/").split("/")[0]) for n in tree.images(f"{root}train/")]
    val = _tiny_imagenet_val(tree, f"{root}val/")
    for name, wnid in train + val:
        if wnid not in index:
            raise UserError(f"{shown(tree.source / name)}: its class {shown(wnid)} is not in wnids.txt")
    train, val = ([_item(tree, config, index[wnid], name) for name, wnid in subset] for subset in (train, val))
    return Source(classes, train, val)


def _tiny_imagenet_val(tree: FileTree, under: str) -> list[tuple[str, str]]:
    """The file and wnid of each validation image, in the order of the official list: val_0, val_1, val_2 ..."""
    images, listed = tree.images(under), f"{under}val_annotations.txt"
    sorted_to = {n: n.removeprefix(under).split("/")[0] for n in images if re.match(r"n\d{8}/", n.removeprefix(under))}
    if sorted_to and tree.size(listed) < 0:
        number = {n: [int(digits) for digits in re.findall(r"\d+", posixpath.basename(n))] for n in sorted_to}
        return sorted(sorted_to.items(), key=lambda pair: (number[pair[0]], pair[0]))
    lines = [line.split("\t") for line in tree.text(listed).splitlines() if line.strip()]
    if bad := next((line for line in lines if len(line) < 2), None):
        raise UserError(f"{shown(tree.source / listed)}: {shown(bad[0])!r} is not `IMAGE tab WNID ...`")
    place = {posixpath.basename(n): n for n in sorted_to}
    return [(place.get(name, f"{under}images/{name}"), wnid) for name, wnid, *_ in lines]


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
            f"{shown(tree.source / root)}/train/{shown(odd)} is not a wnid folder (n01440764); for other images use "
            "dataset=folder"
        )
    groups, index = imagenet_groups(), {w: i for i, w in enumerate(wnids)}
    train = [_item(tree, config, index[n.removeprefix(f"{root}train/").split("/")[0]], n) for n in train_names]
    val_names = tree.images(f"{root}val/")
    flat = [n for n in val_names if "/" not in n.removeprefix(f"{root}val/")]
    wnid_of = _flat_val_wnids(flat, config) if flat else {}
    val = []
    for name in val_names:
        wnid = wnid_of.get(name) or name.removeprefix(f"{root}val/").split("/")[0]
        if wnid not in index:
            raise UserError(f"{shown(tree.source / name)}: its class {shown(wnid)} has no training folder")
        val.append(_item(tree, config, index[wnid], name))
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
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"dataset.val_labels={shown(config.val_labels)}: {reason(error)}") from error
    found = [(line, wnid.group()) for line in lines if (wnid := re.search(r"n\d{8}", line))]
    if found and all(line.strip() == wnid for line, wnid in found):
        if len(found) != len(names):
            raise UserError(f"dataset.val_labels has {len(found)} wnids, but val/ has {len(names)} images")
        return {name: wnid for name, (_, wnid) in zip(names, found, strict=True)}
    by_stem = {re.split(r"[,\s]", line.strip())[0].rsplit(".", 1)[0]: wnid for line, wnid in found}
    missing = [n for n in names if PurePosixPath(n).stem not in by_stem]
    if missing:
        raise UserError(f"dataset.val_labels={config.val_labels} has no wnid for {shown(missing[0])}")
    return {n: by_stem[PurePosixPath(n).stem] for n in names}


def _folder(tree: FileTree, config: DatasetConfig) -> Source:
    """Any folder of class folders; with parts such as train/ and val/ above them, or with a share held out."""
    layout = layout_of(tree, config.parts)
    names = sorted(layout.train)
    train, val, test = (
        [_item(tree, config, label, n) for label, name in enumerate(names) for n in (part or {}).get(name, [])]
        for part in (layout.train, layout.val, layout.test)
    )
    source = Source([ClassInfo(n) for n in names], train, val, test)
    return source if layout.val is not None else _with_validation(source, config)


def _with_validation(source: Source, config: DatasetConfig) -> Source:
    """Hold out ``val_fraction`` of each class."""
    train, val = [], []
    by_class = _training_by_class(source)
    if single := [name for name, found in by_class if len(found) == 1]:
        raise UserError(
            f"class {single[0]!r}{and_more(single)} of {shown(config.source)} has one image: with it held out to "
            "validate there are no training images; add some, or leave it out"
        )
    for name, found in by_class:
        order = numpy_generator(config.seed, "held out", name).permutation(len(found))
        cut = max(1, round(config.val_fraction * len(found)))
        val += [found[i] for i in sorted(order[:cut])]
        train += [found[i] for i in sorted(order[cut:])]
    return replace(source, train=train, val=val, held_out=True)


def _with_test(source: Source, config: DatasetConfig) -> Source:
    """Take ``test_fraction`` of each class out of its training images; validation stays as it would be without."""
    if source.test:
        raise UserError(
            f"dataset.test_fraction={config.test_fraction}, but {shown(config.source)} has a folder of test images: "
            "set it to 0, or name the other folders in dataset.parts"
        )
    train, test = [], []
    held_out = Counter(item.label for item in source.val if source.held_out)
    for label, (name, found) in enumerate(_training_by_class(source)):
        order = numpy_generator(config.seed, "held out for test", name).permutation(len(found))
        cut = max(1, round(config.test_fraction * (len(found) + held_out[label])))
        test += [found[i] for i in sorted(order[:cut])]
        train += [found[i] for i in sorted(order[cut:])]
    return replace(source, train=train, test=test)


def _training_by_class(source: Source) -> list[tuple[str, list[Item]]]:
    """The wnid or name of each class, and its training images."""
    items = [[] for _ in source.classes]
    for item in source.train:
        items[item.label].append(item)
    return [(c.wnid or c.name, found) for c, found in zip(source.classes, items, strict=True)]
