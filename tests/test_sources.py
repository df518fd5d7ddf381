import hashlib
import os
import pickle
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from transferability.config import DatasetConfig
from transferability.errors import UserError
from transferability.pack import pack
from transferability.sources import REFERENCE, cifar_groups, imagenet_groups, open_source

SIDE = 6
GOLDFISH, SALAMANDER, BACKPACK, CONVERTIBLE = WNIDS = ("n01443537", "n01629819", "n02769748", "n03100240")
GROUPS = ["natural", "natural", "man-made", "man-made"]


def write(path, value=0):
    """A plain image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(path, "PNG")  # also when it is named .JPEG


def config_of(kind, source, folder="unused", **settings):
    settings = {"image_size": SIDE, **settings}
    return DatasetConfig(kind, "some", str(folder), source=str(source), **settings)


def found(kind, source, **settings):
    """Class names, and the (class, path below the source) pairs of training and of validation images."""
    opened = open_source(config_of(kind, source, **settings))
    names = [c.name for c in opened.classes]
    return names, *(
        [(names[item.label], item.name.removeprefix(f"{source}/")) for item in items]
        for items in (opened.train, opened.val)
    )


def refusal(kind, source, **settings):
    with pytest.raises(UserError) as error:
        open_source(config_of(kind, source, **settings))
    assert "\n" not in str(error.value)
    return str(error.value)


def zipped(source, archive, below=""):
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(source.rglob("*")):
            out.write(path, below + path.relative_to(source).as_posix())
    return archive


# --- Tiny-ImageNet ---


def tiny_imagenet(root):
    """Its official layout in miniature: values 10 x class + image, validation from 100 on."""
    for c, wnid in enumerate(WNIDS):
        for i in range(3):
            write(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", 10 * c + i)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("x\t0\t0\t5\t5\n")
    annotations = []
    for i in range(8):
        write(root / "val" / "images" / f"val_{i}.JPEG", 100 + i)
        annotations.append(f"val_{i}.JPEG\t{WNIDS[i % 4]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    write(root / "test" / "images" / "test_0.JPEG")
    (root / "wnids.txt").write_text("\n".join(reversed(WNIDS)) + "\n")
    words = ("goldfish, Carassius auratus", "European fire salamander", "backpack, back pack", "convertible")
    lines = [f"{wnid}\t{word}\n" for wnid, word in zip(WNIDS, words, strict=True)]
    (root / "words.txt").write_text("n00001740\tentity\n" + "".join(lines))
    return root


def test_tiny_imagenet_as_a_folder_and_as_a_zip_file(tmp_path):
    folder = tiny_imagenet(tmp_path / "tiny-imagenet-200")
    sources = [
        folder,
        zipped(folder, tmp_path / "bare.zip"),
        zipped(folder, tmp_path / "wrapped.zip", "tiny-imagenet-200/"),
        tmp_path / "around",
    ]
    shutil.copytree(folder, tmp_path / "around" / "tiny-imagenet-200")
    packs = [pack(config_of("tiny_imagenet", s, tmp_path / f"packed-{i}")) for i, s in enumerate(sources)]
    assert len({p.checksum for p in packs}) == 1
    packed = packs[0]
    assert packed.n_train == 12 and packed.meta["n_val"] == 8
    names = ["goldfish", "European fire salamander", "backpack", "convertible"]
    assert [c.name for c in packed.classes] == names
    assert [c.wnid for c in packed.classes] == list(WNIDS) and [c.group for c in packed.classes] == GROUPS
    value = packed.images[:, 0, 0, 0].astype(int)
    assert packed.labels[:12].tolist() == (value[:12] // 10).tolist()
    assert packed.labels[12:].tolist() == ((value[12:] - 100) % 4).tolist()
    assert sorted(value) == sorted([10 * c + i for c in range(4) for i in range(3)] + list(range(100, 108)))


def test_what_is_not_tiny_imagenet_is_refused(tmp_path):
    write(tmp_path / "other" / "cat" / "x.png")
    assert "no wnids.txt" in refusal("tiny_imagenet", tmp_path / "other")
    for missing in ("words.txt", "val/val_annotations.txt"):
        root = tiny_imagenet(tmp_path / missing.replace("/", "-"))
        archive = zipped(root, tmp_path / "whole.zip")
        (root / missing).unlink()
        assert f"{missing} cannot be read" in refusal("tiny_imagenet", root)
        assert f"{missing} cannot be read" in refusal("tiny_imagenet", zipped(root, archive))
    root = tiny_imagenet(tmp_path / "cut")
    (root / "wnids.txt").write_text("\n".join(WNIDS[:3]))
    assert f"its class {CONVERTIBLE} is not in wnids.txt" in refusal("tiny_imagenet", root)


# --- ImageNet ---


def imagenet(root, flat=False):
    """train/WNID/ and val/WNID/, or a flat val/ in which image i is of class 3, 0, 1, 2, 3, 0."""
    for wnid in WNIDS:
        for i in range(2):
            write(root / "train" / wnid / f"{wnid}_{i}.JPEG")
    for i in range(6):
        wnid = WNIDS[(i + 3) % 4]
        write(root / "val" / ("" if flat else wnid) / f"ILSVRC2012_val_{i + 1:08d}.JPEG")
    return root


def val_wnids(source, **settings):
    """The wnids of the six validation images in order of file name."""
    val = found("imagenet", source, **settings)[2]
    return [wnid for wnid, _ in sorted(val, key=lambda pair: pair[1].rsplit("/", 1)[1])]


EXPECTED = [WNIDS[(i + 3) % 4] for i in range(6)]


def test_imagenet_as_folders(tmp_path):
    root = imagenet(tmp_path / "imagenet")
    names, train, val = found("imagenet", root)
    assert names == list(WNIDS)
    assert sorted(train) == [(w, f"train/{w}/{w}_{i}.JPEG") for w in WNIDS for i in range(2)]
    assert len(val) == 6 and all(path.startswith(f"val/{wnid}/") for wnid, path in val)
    classes = open_source(config_of("imagenet", root)).classes
    assert [(c.wnid, c.group) for c in classes] == list(zip(WNIDS, GROUPS, strict=True))
    assert val_wnids(zipped(root, tmp_path / "imagenet.zip", "a/b/")) == EXPECTED


@pytest.mark.parametrize(
    "line",
    [
        "{wnid}\n",
        "ILSVRC2012_val_{number:08d}.JPEG {wnid}\n",
        "ILSVRC2012_val_{number:08d}\t{wnid}\n",
        "ILSVRC2012_val_{number:08d},{wnid} 85 1 499 272 {wnid} 7 7 9 9\n",
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_imagenet_with_a_flat_validation_folder(tmp_path, line, backwards):
    root = imagenet(tmp_path / "imagenet", flat=True)
    lines = [line.format(number=i + 1, wnid=wnid) for i, wnid in enumerate(EXPECTED)]
    if "number" in line:  # lines that name their image may come in any order, below a heading
        lines = ["ImageId,PredictionString\n", *(reversed(lines) if backwards else lines)]
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(lines))
    assert val_wnids(root, val_labels=str(labels)) == EXPECTED
    assert val_wnids(zipped(root, tmp_path / "imagenet.zip"), val_labels=str(labels)) == EXPECTED


def test_validation_labels_that_do_not_fit_are_refused(tmp_path):
    root = imagenet(tmp_path / "imagenet", flat=True)
    assert "set dataset.val_labels" in refusal("imagenet", root)
    assert "No such file" in refusal("imagenet", root, val_labels=str(tmp_path / "absent.txt"))
    labels = tmp_path / "labels.txt"
    for wnids in (EXPECTED[:-1], [*EXPECTED, GOLDFISH]):
        labels.write_text("\n".join(wnids))
        message = refusal("imagenet", root, val_labels=str(labels))
        assert f"has {len(wnids)} wnids" in message and "6 images" in message
    labels.write_text("".join(f"ILSVRC2012_val_{i:08d} {GOLDFISH}\n" for i in range(1, 6)))
    assert "no wnid for val/ILSVRC2012_val_00000006" in refusal("imagenet", root, val_labels=str(labels))
    labels.write_text("".join(f"ILSVRC2012_val_{i:08d}.JPEG {i}\n" for i in range(1, 7)))  # Caffe's numbers
    assert "no wnid for" in refusal("imagenet", root, val_labels=str(labels))
    labels.write_text("\n".join([*EXPECTED[:-1], "n01440764"]))
    assert "n01440764 has no training folder" in refusal("imagenet", root, val_labels=str(labels))


def test_what_is_not_imagenet_is_refused(tmp_path):
    write(tmp_path / "flat" / "cat" / "x.png")
    assert "no folder train/" in refusal("imagenet", tmp_path / "flat")
    write(tmp_path / "pets" / "train" / "cat" / "x.png")
    message = refusal("imagenet", tmp_path / "pets")
    assert "train/cat is not a wnid folder" in message and "dataset=folder" in message
    root = imagenet(tmp_path / "imagenet")
    shutil.rmtree(root / "train" / BACKPACK)
    assert f"{BACKPACK} has no training folder" in refusal("imagenet", root)


def test_the_folders_of_annotations_beside_the_images_are_no_images(tmp_path):
    root = tmp_path / "ILSVRC"
    imagenet(root / "Data" / "CLS-LOC")
    for wnid in WNIDS:
        folder = root / "Annotations" / "CLS-LOC" / "train" / wnid
        folder.mkdir(parents=True)
        (folder / f"{wnid}_0.xml").write_text("<annotation/>")
    names, train, val = found("imagenet", root)
    assert names == list(WNIDS) and len(train) == 8 and len(val) == 6


# --- one's own folder ---


def class_folders(root, counts, subset=""):
    for name, count in counts.items():
        for i in range(count):
            write(root / subset / name / f"{i:03d}.png", i)
    return root


def test_a_share_of_each_class_is_held_out(tmp_path):
    counts = {"ant": 20, "bee": 37, "cat": 4}
    root = class_folders(tmp_path / "own", counts)
    every = {(name, f"{name}/{i:03d}.png") for name, count in counts.items() for i in range(count)}
    for fraction, expected in (
        (0.1, {"ant": 2, "bee": 4, "cat": 1}),
        (0.5, {"ant": 10, "bee": 18, "cat": 2}),
    ):
        names, train, val = found("folder", root, val_fraction=fraction)
        assert names == ["ant", "bee", "cat"]
        assert Counter(name for name, _ in val) == expected
        assert set(train) | set(val) == every and len(train) + len(val) == len(every)
        assert found("folder", root, val_fraction=fraction) == (names, train, val)
        other = found("folder", root, val_fraction=fraction, seed=1)[2]
        assert Counter(name for name, _ in other) == expected and other != val


def test_what_is_held_out_of_a_class_does_not_depend_on_the_others(tmp_path):
    root = class_folders(tmp_path / "own", {"bee": 30, "cat": 30})
    val = found("folder", root)[2]
    before = {path for name, path in val if name == "bee"}
    assert before != {path.replace("cat/", "bee/") for name, path in val if name == "cat"}
    class_folders(root, {"ant": 12})
    assert {path for name, path in found("folder", root)[2] if name == "bee"} == before


@pytest.mark.parametrize("validation", ["val", "validation", "test"])
def test_training_and_validation_folders(tmp_path, validation):
    root = class_folders(tmp_path / "own", {"ant": 5, "bee": 3}, "train")
    class_folders(root, {"ant": 1, "bee": 2}, validation)
    for source in (root, zipped(root, tmp_path / "own.zip"), zipped(root, tmp_path / "wrapped.zip", "own/")):
        names, train, val = found("folder", source)
        assert names == ["ant", "bee"]
        assert Counter(name for name, _ in train) == {"ant": 5, "bee": 3}
        assert Counter(name for name, _ in val) == {"ant": 1, "bee": 2}
        assert all(f"train/{name}/" in path for name, path in train)
        assert all(f"{validation}/{name}/" in path for name, path in val)


def test_layouts_that_do_not_fit_are_refused(tmp_path):
    root = class_folders(tmp_path / "one", {"ant": 2}, "train")
    assert "no images in val/" in refusal("folder", root)
    class_folders(root, {"ant": 2, "bee": 2}, "val")
    message = refusal("folder", root)
    assert "'bee' has validation images but no training images" in message
    root = class_folders(tmp_path / "two", {"ant": 2})
    write(root / "stray.png")
    message = refusal("folder", root)
    assert "stray.png lies outside a class folder" in message and "CLASS/IMAGE" in message


def test_a_folder_that_wraps_the_classes_is_no_class(tmp_path):
    root = class_folders(tmp_path / "pets", {"ant": 4, "bee": 4})
    plain = pack(config_of("folder", root, tmp_path / "plain"))
    for i, below in enumerate(("pets/", "home/me/pets/")):
        archive = zipped(root, tmp_path / f"{i}.zip", below)
        assert found("folder", archive)[0] == ["ant", "bee"]
        assert pack(config_of("folder", archive, tmp_path / f"packed-{i}")).checksum == plain.checksum
    deep = class_folders(tmp_path / "deep", {"ant": 4, "bee/young": 4, "bee/old": 4})
    names, train, val = found("folder", deep)
    assert names == ["ant", "bee"] and len(train + val) == 12


def test_a_class_may_be_called_train(tmp_path):
    counts = {"bus": 4, "train": 4, "tram": 4}
    root = class_folders(tmp_path / "one", counts)
    names, train, val = found("folder", root)
    assert names == ["bus", "train", "tram"] and len(train) == 9 and len(val) == 3
    root = class_folders(class_folders(tmp_path / "two", counts, "train"), counts, "val")
    names, train, val = found("folder", root)
    assert names == ["bus", "train", "tram"] and len(train) == 12 and len(val) == 12


def test_any_name_will_do(tmp_path):
    names = ["a b", "c,d", 'e "f"', "g'h", "ä ö", "i.j", "100%", "[k]"]
    root = class_folders(tmp_path / "own, really", dict.fromkeys(names, 3))
    write(root / "a b" / 'x, y "z" (1).png', 77)
    packed = pack(config_of("folder", root, tmp_path / "packed"))
    assert [c.name for c in packed.classes] == sorted(names)
    assert packed.n_train + packed.meta["n_val"] == 25
    assert (packed.images[:, 0, 0, 0] == 77).sum() == 1
    archived = pack(config_of("folder", zipped(root, tmp_path / "own, really.zip"), tmp_path / "archived"))
    assert archived.checksum == packed.checksum


def test_what_systems_and_editors_hide_is_no_image(tmp_path):
    root = class_folders(tmp_path / "own", {"ant": 3, "bee": 3})
    plain = found("folder", root)
    write(root / ".ipynb_checkpoints" / "x.png")
    write(root / "ant" / ".ipynb_checkpoints" / "000-checkpoint.png")
    (root / "ant" / "._000.png").write_bytes(b"\0\5\x16\7")
    (root / "ant" / "Thumbs.db").write_bytes(b"x")
    assert found("folder", root) == plain
    write(root / "__MACOSX" / "ant" / "x.png")
    assert found("folder", zipped(root, tmp_path / "own.zip"))[0] == ["ant", "bee"]


def test_links_are_followed(tmp_path):
    class_folders(class_folders(tmp_path / "disk", {"ant": 3}, "train"), {"ant": 2}, "val")
    (tmp_path / "here").mkdir()
    for name in ("train", "val"):
        (tmp_path / "here" / name).symlink_to(tmp_path / "disk" / name)
    names, train, val = found("folder", tmp_path / "here")
    assert names == ["ant"] and len(train) == 3 and len(val) == 2


# --- CIFAR ---


def cifar(root, kind, monkeypatch):
    """torchvision's files in miniature; returns (labels, images) of training and validation."""
    published, key = {
        "cifar10": (CIFAR10, "labels"),
        "cifar100": (CIFAR100, "fine_labels"),
    }[kind]
    names = sorted(cifar_groups(kind))
    draw = np.random.default_rng(0)
    folder = root / published.base_folder
    folder.mkdir(parents=True)

    def dump(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    subsets, lists = [], {}
    for subset, files, copies in (("train_list", ("one", "two"), 2), ("test_list", ("three",), 1)):
        labels, images, lists[subset] = [], [], []
        for file in files:
            drawn = draw.permutation(np.repeat(np.arange(len(names)), copies)).tolist()
            data = draw.integers(0, 256, (len(drawn), 3072), dtype=np.uint8)
            lists[subset].append([file, dump(file, {"data": data, key: drawn})])
            labels += drawn
            images += [row.reshape(3, 32, 32).transpose(1, 2, 0) for row in data]
        subsets.append((labels, images))
    meta = {**published.meta, "md5": dump(published.meta["filename"], {published.meta["key"]: names})}
    for attribute, value in {**lists, "meta": meta}.items():  # the checksums of the published files
        monkeypatch.setattr(published, attribute, value)
    return subsets


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_comes_through_torchvision(tmp_path, monkeypatch, kind):
    expected = cifar(tmp_path / "torchvision", kind, monkeypatch)
    packed = pack(config_of(kind, tmp_path / "torchvision", tmp_path / "packed", image_size=32))
    n = {"cifar10": 10, "cifar100": 100}[kind]
    assert packed.n_train == 4 * n and packed.meta["n_val"] == n
    groups = cifar_groups(kind)
    assert [(c.name, c.group) for c in packed.classes] == sorted(groups.items())
    for rows, (labels, images) in zip((slice(0, 4 * n), slice(4 * n, None)), expected, strict=True):
        there = sorted((int(label), image.tobytes()) for label, image in zip(labels, images, strict=True))
        here = zip(packed.labels[rows], packed.images[rows], strict=True)
        assert sorted((int(label), image.tobytes()) for label, image in here) == there


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_that_cannot_be_downloaded_is_one_clear_line(tmp_path, monkeypatch, kind):
    for published in (CIFAR10, CIFAR100):
        monkeypatch.setattr(published, "url", "http://127.0.0.1:1/cifar.tar.gz")  # nobody answers there
    message = refusal(kind, tmp_path / "torchvision")
    assert message.startswith(f"{kind} is not in dataset.source=") and "cannot be downloaded" in message


def test_the_groups_of_classes():
    assert Counter(imagenet_groups().values()) == {"natural": 449, "man-made": 551}
    assert Counter(cifar_groups("cifar10").values()) == {"natural": 6, "man-made": 4}
    assert Counter(cifar_groups("cifar100").values()) == {"natural": 70, "man-made": 30}
    parts = yaml.safe_load((REFERENCE / "cifar_natural_manmade.yaml").read_text())["cifar100"]
    superclasses = {name: members for part in parts.values() for name, members in part.items()}
    assert len(superclasses) == sum(map(len, parts.values())) == 20
    assert {len(members) for members in superclasses.values()} == {5}
    assert len({name for members in superclasses.values() for name in members}) == 100
    groups = cifar_groups("cifar100")
    assert (groups["oak_tree"], groups["rocket"], groups["baby"]) == ("natural", "man-made", "natural")


# --- real files ---


def test_the_classes_of_the_real_tiny_imagenet():
    path = Path(os.environ.get("TRANSFERABILITY_TEST_DATA", "absent")) / "tiny-imagenet-200.zip"
    if not path.exists():
        pytest.skip("TRANSFERABILITY_TEST_DATA has no tiny-imagenet-200.zip")
    source = open_source(config_of("tiny_imagenet", path))
    assert len(source.classes) == 200
    assert Counter(c.group for c in source.classes) == {"natural": 72, "man-made": 128}
    assert (source.classes[0].wnid, source.classes[0].name) == ("n01443537", "goldfish")
    assert Counter(item.label for item in source.train) == dict.fromkeys(range(200), 500)
    assert Counter(item.label for item in source.val) == dict.fromkeys(range(200), 50)
    assert source.train[0].load().shape == source.val[-1].load().shape == (64, 64, 3)
