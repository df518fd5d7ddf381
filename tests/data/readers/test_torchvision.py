"""Datasets of torchvision in their official layouts: what torchvision's own classes give."""

import csv
import io
import json

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from tests.helpers import config_of, refusal
from transferability.data.pack import pack
from transferability.data.readers import read_dataset
from transferability.data.readers.torchvision_datasets import KNOWN

DRAW = np.random.default_rng(0)
ABC = ("ant", "bee", "cat")


def pictures(root, *paths):
    """PNG whatever their names say: decoded alike by all."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        out = io.BytesIO()
        Image.fromarray(DRAW.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(out, "PNG")
        (root / path).write_bytes(out.getvalue())


def texts(root, **files):
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content if isinstance(content, str) else "\n".join(content) + "\n")


def flowers(root):
    base = root / "flowers-102"
    pictures(base, *(f"jpg/image_{i:05d}.jpg" for i in range(1, 13)))
    scipy.io.savemat(base / "imagelabels.mat", {"labels": [102, 1, 2] * 4})
    ids = {"trnid": [3, 1, 2], "valid": [4, 5, 6], "tstid": [9, 8, 7, 12, 11, 10]}
    scipy.io.savemat(base / "setid.mat", ids)


def pets(root):
    base = root / "oxford-iiit-pet"
    names = [f"{c}_{i}" for c in ("great_ant", "bee", "Cat") for i in range(4)]
    pictures(base, *(f"images/{name}.jpg" for name in names))
    lists = [f"{name} {1 + k // 4} 1 1" for k, name in enumerate(names)]
    texts(base, **{"annotations/trainval.txt": lists[::2], "annotations/test.txt": lists[1::2]})


def food(root):
    base = root / "food-101"
    pictures(base, *(f"images/{c}/{i}.jpg" for c in ABC for i in range(4)))
    for part, numbers in (("train", (2, 0)), ("test", (3, 1))):
        listed = json.dumps({c: [f"{c}/{i}" for i in numbers] for c in ABC})
        texts(base, **{f"meta/{part}.json": listed})


def textures(root):
    base = root / "dtd" / "dtd"
    pictures(base, *(f"images/{c}/{c}_{i}.jpg" for c in ABC for i in range(6)))
    for k, part in enumerate(("train", "val", "test")):
        listed = [f"{c}/{c}_{i}.jpg" for c in ABC for i in (k, k + 3)]
        texts(base, **{f"labels/{part}1.txt": listed})


def eurosat(root):
    pictures(root / "eurosat" / "2750", *(f"{c}/{c}_{i}.jpg" for c in ABC for i in range(4)))


def caltech(root):
    base = root / "caltech101" / "101_ObjectCategories"
    names = ("BACKGROUND_Google", *ABC)
    pictures(base, *(f"{c}/image_{i:04d}.jpg" for c in names for i in range(1, 5)))


def signs(root):
    base = root / "gtsrb"
    pictures(base / "GTSRB" / "Training", *(f"{c:05d}/{i}.ppm" for c in range(3) for i in range(4)))
    pictures(base / "GTSRB" / "Final_Test" / "Images", *(f"{i:05d}.ppm" for i in range(6)))
    with open(base / "GT-final_test.csv", "w") as file:
        table = csv.writer(file, delimiter=";")
        table.writerows([("Filename", "ClassId"), *((f"{i:05d}.ppm", i % 3) for i in range(6))])


def aircraft(root):
    base = root / "fgvc-aircraft-2013b" / "data"
    pictures(base, *(f"images/{i:07d}.jpg" for i in range(18)))
    texts(base, **{"variants.txt": ("707 320", *ABC[:2])})
    for k, part in enumerate(("train", "val", "test")):
        listed = [f"{i:07d} {('707 320', *ABC[:2])[i % 3]}" for i in range(6 * k, 6 * k + 6)]
        texts(base, **{f"images_variant_{part}.txt": listed})


def stl(root):
    base = root / "stl10_binary"
    base.mkdir()
    for part in ("train", "test"):
        DRAW.integers(0, 256, (6, 3, 96, 96), dtype=np.uint8).tofile(base / f"{part}_X.bin")
        np.array([1, 2, 3] * 2, np.uint8).tofile(base / f"{part}_y.bin")
    texts(base, **{"class_names.txt": ABC, "fold_indices.txt": ""})


def house_numbers(root):
    for part in ("train", "test"):
        images = DRAW.integers(0, 256, (32, 32, 3, 6), dtype=np.uint8)
        labels = np.array([10, 1, 2] * 2)[:, None]
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": images, "y": labels})


LAYOUTS = {
    "Flowers102": (flowers, None),
    "OxfordIIITPet": (pets, ["Great Ant", "Bee", "Cat"]),
    "Food101": (food, list(ABC)),
    "DTD": (textures, list(ABC)),
    "EuroSAT": (eurosat, list(ABC)),
    "Caltech101": (caltech, list(ABC)),
    "GTSRB": (signs, ["0", "1", "2"]),
    "FGVCAircraft": (aircraft, ["707 320", "ant", "bee"]),
    "STL10": (stl, list(ABC)),
    "SVHN": (house_numbers, ["0", "1", "2"]),
}


@pytest.fixture
def unchecked(monkeypatch):
    """Without the checksums of the published files."""
    for name in ("flowers102", "stl10", "svhn"):
        monkeypatch.setattr(getattr(datasets, name), "check_integrity", lambda *_: True)


@pytest.mark.parametrize("name", LAYOUTS)
def test_it_is_what_torchvisions_own_class_gives(tmp_path, unchecked, name):
    layout, names = LAYOUTS[name]
    layout(tmp_path)
    source = read_dataset(config_of(tmp_path, kind="torchvision", name=name, val_fraction=0.3))
    found = {
        "train": [*source.train, *(source.val if "val" not in KNOWN[name] else [])],
        "val": source.val,
        "test": source.test,
    }
    for part, settings in KNOWN[name].items():
        theirs = getattr(datasets, name)(tmp_path, **settings)
        wanted = [(label, np.asarray(image.convert("RGB")).tobytes()) for image, label in theirs]
        ours = [(item.label, item.load().tobytes()) for item in found[part]]
        assert sorted(ours) == sorted(wanted) and len({o for _, o in ours}) == len(wanted) > 2
    assert bool(source.test) == ("test" in KNOWN[name]) and source.val
    classes = [c.name for c in source.classes]
    assert classes == (names or list(datasets.Flowers102.classes))


def test_it_packs(tmp_path):
    food(tmp_path / "root")
    config = config_of(tmp_path / "root", tmp_path / "packed", "torchvision", name="Food101")
    packed = pack(config)
    assert (packed.n_train, packed.n_val, packed.n_test) == (3, 3, 6)
    assert pack(config).checksum == packed.checksum


def test_what_is_not_there_is_refused(tmp_path, monkeypatch):
    message = refusal(tmp_path, kind="torchvision", name="Flower102")
    assert "dataset.name=Flower102 is not one of torchvision's" in message
    assert message.endswith("did you mean Flowers102?")

    def offline(*_, **__):
        raise OSError("no network")

    for name in ("download_url", "download_and_extract_archive"):
        monkeypatch.setattr(datasets.flowers102, name, offline)
    assert refusal(tmp_path, kind="torchvision", name="Flowers102") == (
        f"Flowers102 is not in dataset.source={tmp_path} and cannot be downloaded (no network): "
        "put torchvision's files there"
    )


def test_every_known_dataset_is_torchvisions():
    assert [name for name in KNOWN if name not in datasets.__all__] == []
