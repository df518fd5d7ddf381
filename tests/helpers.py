"""What tests share: images, folders and archives of them and what becomes of those, networks,
the files of a store, and the settings of a written command.
"""

import io
import json
import os
import re
import shlex
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from experiments.cli import CONF
from experiments.overrides import of_advice
from transferability.data.batch import Batch
from transferability.data.config import DatasetConfig
from transferability.data.pack import pack
from transferability.data.packed import open_dataset
from transferability.data.readers import read_dataset
from transferability.errors import UserError
from transferability.networks import KINDS, NetworkConfig
from transferability.networks.sequential import SequentialNetwork
from transferability.study.config import Config, changed, load

# --- images ---

SIDE = 6
HEIF = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def write(path, image):
    """An RGB or gray array as a file whose name says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_plain(path, value=0):
    """A plain image, PNG also where its name says JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(plain_png(value))


def plain_png(value=0):
    """The file of a plain image."""
    out = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def picture(value, kind="PNG"):
    """A file of noise that ``value`` says."""
    out = io.BytesIO()
    draw = np.random.default_rng(value)
    Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(out, kind)
    return out.getvalue()


def coded(label, subset, i):
    """An image that says what it is: class, subset and number in the three channels."""
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    image[:] = (10 + 40 * label, 100 * subset, i)
    return image


# --- folders of images ---


def make_source(root, n_train=7, n_val=3, classes=("ant", "bee", "cat"), backwards=False):
    """train/CLASS/I.png and val/CLASS/I.png."""
    todo = [
        (root / name / c / f"{i}.png", coded(label, subset, i))
        for subset, (name, count) in enumerate((("train", n_train), ("val", n_val)))
        for label, c in enumerate(classes)
        for i in range(count)
    ]
    for path, image in reversed(todo) if backwards else todo:
        write(path, image)
    return root


def own_folder(root, count=20, classes=("ant", "bee")):
    for label, c in enumerate(classes):
        for i in range(count):
            write(root / c / f"{i:02d}.png", coded(label, 0, i))
    return root


def class_folders(root, counts, subset=""):
    for name, count in counts.items():
        for i in range(count):
            write_plain(root / subset / name / f"{i:03d}.png", i)
    return root


FOLDER = object()  # in made(): an empty folder


def classes(under="", count=3, names=("ant", "bee")):
    """Paths of images below class folders."""
    return [f"{under}{name}/{i}.png" for name in names for i in range(count)]


def flat(under, count=3):
    return [f"{under}{i}.png" for i in range(count)]


def made(root, *paths, **contents):
    """``root`` with a picture of its own at each path; ``contents``:
    path -> bytes, or FOLDER for an empty folder.
    """
    for value, path in enumerate([*paths, *contents]):
        data = contents.get(path, picture(value))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if data is FOLDER:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)
    return root


GOLDFISH, SALAMANDER, BACKPACK, CONVERTIBLE = WNIDS = (
    "n01443537",
    "n01629819",
    "n02769748",
    "n03100240",
)
GROUPS = ["natural", "natural", "man-made", "man-made"]


def imagenet(root, flat=False):
    """train/WNID/ and val/WNID/, or a flat val/ in which image i is of class 3, 0, 1, 2, 3, 0."""
    for wnid in WNIDS:
        for i in range(2):
            write_plain(root / "train" / wnid / f"{wnid}_{i}.JPEG")
    for i in range(6):
        wnid = WNIDS[(i + 3) % 4]
        write_plain(root / "val" / ("" if flat else wnid) / f"ILSVRC2012_val_{i + 1:08d}.JPEG")
    return root


def real(name):
    """A file of images that the repository does not hold."""
    path = Path(os.environ.get("TRANSFERABILITY_TEST_DATA", "absent")) / name
    if not path.exists():
        pytest.skip(f"TRANSFERABILITY_TEST_DATA has no {name}")
    return path


# --- archives ---


def zipped(root, archive=None, below=""):
    archive = archive or root.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(root.rglob("*")):
            out.write(path, below + path.relative_to(root).as_posix())
    return archive


def tarred(root, kind="", below="."):
    path = root.with_suffix(f".tar.{kind}" if kind else ".tar")
    with tarfile.open(path, f"w:{kind}") as out:
        out.add(root, below)
    return path


# --- what is opened ---


def config_of(source, folder="unused", kind="folder", **settings):
    settings = {"name": "some", "image_size": SIDE, **settings}
    return DatasetConfig(kind, source=str(source), folder=str(folder), **settings)


def found(source, **settings):
    """Class names, and the (class, path below the source)
    pairs of training and of validation images.
    """
    opened = read_dataset(config_of(source, **settings))
    names = [c.name for c in opened.classes]
    return names, *(
        [(names[item.label], item.name.removeprefix(f"{source}/")) for item in items]
        for items in (opened.train, opened.val)
    )


def counts(source, **settings):
    """Of training, validation and test the number of images of each class."""
    opened = read_dataset(config_of(source, **settings))
    return [
        dict(Counter(opened.classes[item.label].name for item in items))
        for items in (opened.train, opened.val, opened.test)
    ]


def both(count):
    return dict.fromkeys(("ant", "bee"), count)


def refusal(source, **settings):
    """The one line with which opening is refused."""
    with pytest.raises(UserError) as error:
        read_dataset(config_of(source, **settings))
    assert "\n" not in str(error.value)
    return str(error.value)


def offers(message):
    """The settings of the dataset that a refusal offers, each as config_of takes them."""
    said = re.findall(r"(?:or set |, or )((?:\"?dataset\.\S+?=.+?)) \(\d+ classes: ", message)
    parsed = [OverridesParser.create().parse_overrides(shlex.split(words)) for words in said]
    return [{o.key_or_group.removeprefix("dataset."): o.value() for o in some} for some in parsed]


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


# --- what is packed ---


def packing_refusal(config):
    """The one line with which packing is refused;
    nothing new is anywhere near, but for the lock.
    """
    folder = Path(config.folder)
    before = everything(folder.parent)
    with pytest.raises(UserError) as error:
        pack(config)
    assert everything(folder.parent) - before <= {f".{folder.name}.lock"}
    assert "\n" not in str(error.value)
    return str(error.value)


def everything(root):
    return {p.relative_to(root).as_posix() for p in root.rglob("*")}


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def numbers(packed, rows):
    """(class, number) of each image, as coded() wrote them."""
    return sorted(
        zip(packed.labels[rows].tolist(), packed.images[rows][:, 0, 0, 2].tolist(), strict=True)
    )


def three_subsets(packed):
    every = list(range(len(packed.classes)))
    return [
        numbers(packed, rows)
        for rows in (packed.train_rows(every), packed.val_rows(every), packed.test_rows(every))
    ]


# --- stores ---


def results_of(store):
    """What must not depend on how a run was executed."""
    names = ("spec.json", "weights.safetensors", "predictions.safetensors", "metrics.jsonl")
    return {
        f"{p.parent.name}/{p.name}": p.read_bytes() for p in store.glob("*/*") if p.name in names
    }


def snapshot(folder):
    """When each file below ``folder`` was last written."""
    return {
        str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock" and p.is_file()
    }


# --- written commands ---


def overrides(command):
    """The settings a command gives, also inside OVERRIDES="...",
    but not Hydra's own and study=NAME.
    """
    words = [
        re.sub(
            "^(SOURCE|WEIGHTS|MINUTES)=", lambda m: m[0].lower(), word.removeprefix("OVERRIDES=")
        )
        for word in shlex.split(command, comments=True)
    ]
    given = [
        part
        for word in words
        for part in word.split()
        if re.match(r"\+?(?!hydra|study=NAME)[a-z_./-]+=", part)
    ]
    commands = {"experiments.advise", "experiments.benchmarks.advice", "advice"}
    short = commands.intersection(words) and any(word.startswith("source=") for word in given)
    return of_advice(given) if short else given


# --- damage ---


def described(folder, change):
    """dataset.json, changed in place."""
    path = folder / "dataset.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))
    open_dataset.cache_clear()


def resaved(name, change):
    """A damage: an array file, loaded, changed and saved."""
    return lambda folder: np.save(folder / name, change(np.load(folder / name)))


def rewritten(name, change):
    """A damage: the bytes of a file, changed."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def redescribed(**values):
    return lambda folder: described(folder, lambda d: d.update(values))


# --- networks ---


def equal(a: dict, b: dict) -> bool:
    """Whether two states of a network are the same, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def composed(*overrides: str) -> Config:
    """The configuration of these overrides, as large as it is."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load(compose("config", [*overrides]))


def network_of(key: str, **settings) -> NetworkConfig:
    """``torchvision resnet18`` as the configuration makes it."""
    kind, model = key.split()
    if kind == "timm":
        pytest.importorskip("timm", reason="timm is not installed")
    return KINDS[kind](name=model, kind=kind, model=model, **settings)


def network_config(name: str, **values) -> NetworkConfig:
    """conf/network/NAME.yaml with ``values`` in place of its own."""
    return changed(composed(f"network={name}").network, values)


def batch_of(size: int, crop: int, count: int = 2, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, size, size, 3), generator=draw, dtype=torch.uint8)
    zeros = torch.zeros(count, dtype=torch.int64)
    return Batch(images, zeros, zeros, zeros, zeros.bool(), crop)


def outputs(network: SequentialNetwork, batch: Batch) -> list[torch.Tensor]:
    """The output of the input and of every layer."""
    x = network.input(batch)
    out = [x]
    for layer in network.layers:
        x = layer(x)
        out.append(x)
    return out
