import hashlib
import io
import os
import pickle
import shutil
import stat
import struct
import tracemalloc
import zipfile
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps
from torchvision.datasets import CIFAR10, CIFAR100

from transferability.config import DatasetConfig
from transferability.errors import UserError
from transferability.pack import pack
from transferability.sources import archives, open_source
from transferability.sources.cifar import cifar_groups
from transferability.sources.decoding import _warn_of_dark_images, decode
from transferability.sources.imagenet import imagenet_groups

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


@pytest.mark.parametrize("below", ["", "images/"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_sorted_val_of_tiny_imagenet_is_the_same_dataset(below, listed, tmp_path):
    """val/WNID/IMAGE, as it is often made for an ImageFolder, with or without the list that it was made by."""
    root = tiny_imagenet(tmp_path / "official")
    list_path = Path("val", "val_annotations.txt")
    with open(root / list_path, "a") as file:
        for i in range(8, 12):  # val_10 comes after val_9
            write(root / "val" / "images" / f"val_{i}.JPEG", 100 + i)
            file.write(f"val_{i}.JPEG\t{WNIDS[i % 4]}\t0\t32\t44\t62\n")
    official = pack(config_of("tiny_imagenet", root, tmp_path / "packed"))
    again = shutil.copytree(root, tmp_path / "sorted")
    for line in (again / list_path).read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (again / "val" / wnid / below).mkdir(parents=True, exist_ok=True)
        (again / "val" / "images" / name).rename(again / "val" / wnid / below / name)
    (again / "val" / "images").rmdir()
    if not listed:
        (again / list_path).unlink()
    for source in (again, zipped(again, tmp_path / "sorted.zip")):
        assert pack(config_of("tiny_imagenet", source, tmp_path / f"p-{source.name}")).checksum == official.checksum
    (again / "val" / WNIDS[0]).rename(again / "val" / "n00000001")
    if not listed:
        assert "its class n00000001 is not in wnids.txt" in refusal("tiny_imagenet", again)


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


@pytest.mark.parametrize("validation", ["val", "validation"])
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
    deep = class_folders(tmp_path / "deep", {"ant/all": 4, "bee/young": 4, "bee/old": 4})
    names, train, val = found("folder", deep)
    assert names == ["ant", "bee"] and len(train + val) == 12


@pytest.mark.parametrize("below", ["./", "./pets/", ".\\", "pets\\"])
def test_a_zip_may_spell_its_paths_otherwise(below, tmp_path):
    """As ``zip -r a.zip ./*`` elsewhere, and programs of Windows do; the checksum is that of the folder."""
    root = class_folders(tmp_path / "pets", {"ant": 4, "bee": 4})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        for path in sorted(root.rglob("*")):
            name = below + path.relative_to(root).as_posix() + "/" * path.is_dir()
            out.writestr(
                name.replace("/", "\\") if "\\" in below else name, b"" if path.is_dir() else path.read_bytes()
            )
    assert found("folder", tmp_path / "a.zip")[0] == ["ant", "bee"]
    packed = [
        pack(config_of("folder", source, tmp_path / f"packed-{source.stem}")) for source in (root, tmp_path / "a.zip")
    ]
    assert packed[0].checksum == packed[1].checksum


def test_a_backslash_beside_slashes_is_one(tmp_path):
    root = class_folders(tmp_path / "pets", {"ant": 4, "b\\ee": 4})
    for source in (root, zipped(root, tmp_path / "a.zip")):
        assert found("folder", source)[0] == ["ant", "b\\ee"]


def test_a_dataset_inside_itself_is_no_class(tmp_path):
    """It would be one of the images of all others, and its validation images training images of theirs."""
    root = class_folders(tmp_path / "plants", {"rust": 4, "scab": 4, "plants/rust": 4, "plants/scab": 4})
    for source in (root, zipped(root, tmp_path / "plants.zip"), zipped(root, tmp_path / "wrapped.zip", "home/")):
        assert "plants/ lies beside class folders and holds folders of their names (rust, scab)" in refusal(
            "folder", source
        )
    other = class_folders(tmp_path / "other", {"rust": 4, "scab": 4, "more/wilt": 4, "more/spot": 4})
    wanted = "more/ has only folders in it, but rust/ and 1 more beside it images"
    assert wanted in refusal("folder", other) and "dataset.parts={}" in refusal("folder", other)
    for name in ("train", "val"):
        class_folders(tmp_path / "split", {"rust": 4, "scab": 4}, name)
    class_folders(tmp_path / "split", {"val/rust": 4}, "val")
    assert "'val' has validation images but no training images" in refusal("folder", tmp_path / "split")


def test_a_class_of_one_image_is_told_so(tmp_path):
    root = class_folders(tmp_path / "one", {"ant": 4, "bee": 1, "wasp": 1})
    assert "class 'bee' and 1 more of" in refusal("folder", root) and "has one image: with it held out" in refusal(
        "folder", root
    )
    root = class_folders(class_folders(tmp_path / "two", {"ant": 1, "bee": 1}, "train"), {"ant": 1, "bee": 1}, "val")
    assert found("folder", root)[0] == ["ant", "bee"], "nothing is held out of it"


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


def test_links_never_lead_in_circles(tmp_path, caplog):
    root = class_folders(tmp_path / "own", {"ant": 4, "bee": 4})
    plain = found("folder", root)
    (root / "ant" / "self").symlink_to(root / "ant")
    (root / "ant" / "up").symlink_to("..")
    (root / "bee" / "up").symlink_to(root)
    (root / "bee" / "knot").symlink_to("knot")
    assert found("folder", root) == plain
    lines = sorted(r.getMessage().removeprefix(f"{root}/") for r in caplog.records)
    assert lines[1:] == [
        f"{at} is left out: it is a link to a folder that it lies in" for at in ("ant/self", "ant/up", "bee/up")
    ]
    assert lines[0] == f"{root}: 1 other files (1 *) are no images and left out"  # the knot


def test_two_folders_that_link_to_each_other_end(tmp_path):
    root = class_folders(tmp_path / "own", {"ant": 4, "bee": 4})
    (root / "ant" / "b").symlink_to(root / "bee")
    (root / "bee" / "a").symlink_to(root / "ant")
    names, train, val = found("folder", root)
    assert names == ["ant", "bee"] and len(train + val) == 16  # each through the link once more, and no deeper


def test_a_source_that_is_neither_file_nor_folder_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    for source in (tmp_path / "pipe.zip", "/dev/zero"):
        assert "neither a folder nor a zip or tar file" in refusal("folder", source)
    for source in ("~nobody-of-this-name/x", "x" * 5000, "a\0b"):
        assert refusal("folder", source).startswith("dataset.source=")


# --- names ---

ODD = {
    "line end": "a\nb",
    "tab": "a\tb",
    "html": "<script>alert(1)<&>",
    "leading dash": "-rf",
    "quotes and commas": "\"a\",'b',`c`",
    "backslash": "a\\b",
    "percent and braces": "%s {0} ${x}",
    "trailing space": " a ",
    "very long": "x" * 245,
    "right to left": "\u202eabc",
    "emoji": "\U0001f41d",
}


@pytest.mark.parametrize("name", ODD.values(), ids=ODD.keys())
def test_odd_names_pack_and_stay_as_they_are(tmp_path, name):
    root = class_folders(tmp_path / "own", {name: 3, "other": 3})
    write(root / "other" / f"{name}.png", 77)
    packed = pack(config_of("folder", root, tmp_path / "packed"))
    assert {c.name for c in packed.classes} == {name, "other"}
    assert (packed.images[:, 0, 0, 0] == 77).sum() == 1
    (root / name / "000.png").write_bytes(b"")
    message = refused_packing("folder", root, tmp_path / "failed")
    assert message.isprintable() and "empty file" in message


def undecodable(folder, name):
    """A path whose last part is no UTF-8, as bytes."""
    path = os.fsencode(folder) + b"/" + name
    try:
        os.mkdir(path)
        os.rmdir(path)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    return path


def test_a_file_name_of_other_bytes_than_utf8_is_only_escaped(tmp_path):
    root = class_folders(tmp_path / "own", {"ant": 3})
    path = undecodable(root / "ant", b"caf\xe9.png")
    write(root / "x.png", 77)
    os.rename(root / "x.png", path)
    assert (pack(config_of("folder", root, tmp_path / "packed")).images[:, 0, 0, 0] == 77).sum() == 1
    with open(path, "wb"):
        pass
    packed = pack(config_of("folder", root, tmp_path / "skipped", on_error="skip"))
    assert list(packed.meta["skipped"]) == [f"{root}/ant/caf\\udce9.png"]


def test_a_class_name_of_other_bytes_than_utf8_is_refused(tmp_path):
    root = class_folders(tmp_path / "own", {"ant": 3, "x": 3})
    os.rename(root / "x", undecodable(root, b"caf\xe9"))
    message = refused_packing("folder", root, tmp_path / "packed")
    assert message == f"{root}: the name of class caf\\udce9 is not UTF-8: rename its folder"


def test_classes_that_differ_only_in_unicode_normalisation_are_refused(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    one = class_folders(tmp_path / "one", {composed: 3, decomposed: 3})
    if len(list(one.iterdir())) == 1:
        pytest.skip("this file system holds one of them")
    other = class_folders(class_folders(tmp_path / "other", {composed: 3}, "train"), {decomposed: 3}, "val")
    for root in (one, other):
        message = refused_packing("folder", root, tmp_path / "packed")
        assert "'cafe\\u0301' and 'caf\\xe9' look the same" in message and "give them one name" in message
    alone = class_folders(tmp_path / "alone", {decomposed: 3, "x": 3})
    assert pack(config_of("folder", alone, tmp_path / "packed")).classes[0].name == decomposed


def test_classes_that_differ_only_in_case_are_two(tmp_path):
    root = class_folders(tmp_path / "letters", {"a": 3, "A": 3})
    if len(list(root.iterdir())) == 1:
        pytest.skip("this file system holds one of them")
    assert found("folder", root)[0] == ["A", "a"]


def test_wnids_that_are_listed_twice_count_once(tmp_path):
    root = tiny_imagenet(tmp_path / "tiny")
    plain = found("tiny_imagenet", root)
    with open(root / "wnids.txt", "a") as file:
        file.write(f"{GOLDFISH}\n\n")
    assert found("tiny_imagenet", root) == plain


def test_lists_that_are_damaged_are_one_clear_line(tmp_path):
    root = tiny_imagenet(tmp_path / "tiny")
    annotations = root / "val" / "val_annotations.txt"
    good = annotations.read_text()
    annotations.write_text(good + "\n")
    assert len(found("tiny_imagenet", root)[2]) == 8
    annotations.write_text(good + "val_9.JPEG\n")
    assert "val_annotations.txt: 'val_9.JPEG' is not `IMAGE tab WNID ...`" in refusal("tiny_imagenet", root)
    annotations.write_bytes(b"\xff\xfe" + good.encode())
    assert "val_annotations.txt cannot be read" in refusal("tiny_imagenet", root)
    annotations.write_text(good)
    (root / "wnids.txt").unlink()
    os.mkfifo(root / "wnids.txt")
    assert "wnids.txt cannot be read: a pipe" in refusal("tiny_imagenet", root)
    labels = tmp_path / "labels.txt"
    labels.write_bytes(b"\xff\xfen01443537")
    message = refusal("imagenet", imagenet(tmp_path / "imagenet", flat=True), val_labels=str(labels))
    assert "labels.txt: 'utf-8' codec can't decode" in message


@pytest.mark.parametrize("name", ["../../../secret.JPEG", "/secret.JPEG", "absent.JPEG"])
def test_a_list_cannot_name_files_outside_the_source(tmp_path, name):
    root = tiny_imagenet(tmp_path / "tiny")
    write(tmp_path / "secret.JPEG", 200)
    with open(root / "val" / "val_annotations.txt", "a") as file:
        file.write(f"{name}\t{GOLDFISH}\t0\t1\t2\t3\n")
    for i, source in enumerate((root, zipped(root, tmp_path / "tiny.zip"))):
        message = refused_packing("tiny_imagenet", source, tmp_path / f"failed-{i}")
        assert f"{name} cannot be read (No such file or directory)" in message
        packed = pack(config_of("tiny_imagenet", source, tmp_path / f"packed-{i}", on_error="skip"))
        assert len(packed.meta["skipped"]) == 1 and not (packed.images == 200).any()


# --- zip files that somebody else made ---


def picture(value=0):
    out = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def foreign(path, *entries, method=zipfile.ZIP_DEFLATED):
    """A zip file of two good classes and of ``entries``, (ZipInfo or name, data)."""
    good = [(f"{name}/{i}.png", picture(i)) for name in ("ant", "bee") for i in range(4)]
    with zipfile.ZipFile(path, "w", method) as out:
        for name, data in [*good, *entries]:
            out.writestr(name, data)
    return path


def everything(root):
    return {p.relative_to(root).as_posix() for p in root.rglob("*")}


def refused_packing(kind, source, folder, **settings):
    """The one line with which packing is refused; nothing new is anywhere near, but for the lock."""
    near = Path(folder).parent
    before = everything(near)
    with pytest.raises(UserError) as error:
        pack(config_of(kind, source, folder, **settings))
    assert everything(near) - before <= {f".{Path(folder).name}.lock"}
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.jpg",
        "ant/../../evil.jpg",
        "/abs.jpg",
        "C:\\evil.jpg",
        "c:/evil.jpg",
        "..\\..\\evil.jpg",
        "//h/e.jpg",
    ],
)
def test_a_zip_file_whose_names_lead_outside_is_refused(tmp_path, monkeypatch, name):
    work = tmp_path / "a" / "b" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    archive = foreign(work / "z.zip", (name, picture()))
    before = everything(tmp_path)
    message = refused_packing("folder", archive, work / "packed")
    assert f"the entry {name} points outside it" in message and "make it again" in message
    assert everything(tmp_path) - before == {"a/b/work/.packed.lock"}
    assert not Path("/abs.jpg").exists()


def test_packing_a_zip_file_writes_the_packed_folder_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    archive = foreign(tmp_path / "z.zip", ("ant/...png", picture(9)), ("ant/~.png", picture(9)))
    before = everything(tmp_path)
    pack(config_of("folder", archive, tmp_path / "data" / "packed"))
    written = {f"data/packed/{name}" for name in ("images.npy", "labels.npy", "dataset.json")}
    assert everything(tmp_path) - before == {"data", "data/packed", "data/.packed.lock", *written}


def test_a_link_in_a_zip_file_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(200))
    link = zipfile.ZipInfo("ant/link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    archive = foreign(tmp_path / "z.zip", (link, str(tmp_path / "secret.png")))
    message = refused_packing("folder", archive, tmp_path / "failed")
    assert "ant/link.png cannot be read (a symbolic link in a zip file; zip what it points to)" in message
    packed = pack(config_of("folder", archive, tmp_path / "packed", on_error="skip"))
    assert len(packed.images) == 8 and not (packed.images == 200).any()


def patched(archive, name, **values):
    """The archive with fields of the central directory's entry ``name`` overwritten."""
    fields = {"flags": (8, "<H"), "method": (10, "<H"), "size": (24, "<I")}
    data = bytearray(archive.read_bytes())
    at = data.rindex(name.encode()) - 46
    assert data[at : at + 4] == b"PK\1\2"
    for key, value in values.items():
        offset, form = fields[key]
        struct.pack_into(form, data, at + offset, value)
    archive.write_bytes(data)
    return archive


def test_an_encrypted_zip_file_is_refused(tmp_path):
    archive = patched(foreign(tmp_path / "z.zip", ("ant/x.png", picture())), "ant/x.png", flags=1)
    message = refused_packing("folder", archive, tmp_path / "packed")
    assert "the entry ant/x.png is encrypted: unzip it with its password and give the folder" in message


def test_a_method_of_compression_that_is_not_known_is_named(tmp_path):
    archive = patched(foreign(tmp_path / "z.zip", ("ant/x.png", picture())), "ant/x.png", method=9)
    message = refused_packing("folder", archive, tmp_path / "packed")
    assert "ant/x.png cannot be read (zip: " in message and "on_error=skip" in message


@pytest.mark.parametrize("claim", [None, 100], ids=["honest", "lying"])
def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch, claim):
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 20)
    archive = foreign(tmp_path / "z.zip", ("ant/x.png", bytes(100 << 20)))
    assert archive.stat().st_size < 200_000
    if claim:
        patched(archive, "ant/x.png", size=claim)
    tracemalloc.start()
    message = refused_packing("folder", archive, tmp_path / "packed")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "ant/x.png cannot be read (" in message
    assert ("zip: " if claim else "104,857,600 bytes, one image may have 1,048,576") in message
    assert peak < 8 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_in_other_methods_of_compression_is_one_clear_line(tmp_path, method):
    noise = np.random.default_rng(0).bytes(2000)
    archive = foreign(tmp_path / "z.zip", ("ant/x.png", picture() + noise), method=method)
    assert found("folder", archive)[0] == ["ant", "bee"]
    data = bytearray(archive.read_bytes())
    at = data.index(b"ant/x.png") + 30
    data[at : at + 40] = bytes(40)
    archive.write_bytes(data)
    assert "ant/x.png cannot be read (" in refused_packing("folder", archive, tmp_path / "packed")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_zip_file_that_is_cut_off_is_refused(tmp_path, keep):
    archive = foreign(tmp_path / "z.zip")
    data = archive.read_bytes()
    archive.write_bytes(data[: int(keep * len(data))])
    message = refused_packing("folder", archive, tmp_path / "packed")
    assert "neither a folder nor a zip or tar file, or the file is cut off: get it again" in message


def test_a_name_that_a_zip_file_has_twice_is_one_image(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = foreign(tmp_path / "z.zip", ("ant/0.png", picture(77)))
    packed = pack(config_of("folder", archive, tmp_path / "packed"))
    assert len(packed.images) == 8 and (packed.images[:, 0, 0, 0] == 77).sum() == 1


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
    reference = resources.files("transferability.reference")
    parts = yaml.safe_load((reference / "cifar_natural_manmade.yaml").read_text())["cifar100"]
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


# --- what image files say beside their pixels ---


def file_of(image: np.ndarray, kind: str, orientation: int | None = None) -> bytes:
    """An image file without loss, that says how it is to be turned."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation or 1
    how = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif, "lossless": True}
    Image.fromarray(image).save(out, kind, **(how if orientation else {}))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_ignored_or_applied_in_every_format(kind, orientation):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    data = file_of(image, kind, orientation)
    assert (decode(data) == image).all()
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode(data, upright=True), upright)


def test_orientation_is_a_setting_of_the_pack(tmp_path):
    for name in ("ant", "bee"):
        for i in range(4):
            (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
            image = np.full((SIDE, SIDE, 3), i, np.uint8)
            image[0] = 200
            (tmp_path / "own" / name / f"{i}.png").write_bytes(file_of(image, "PNG", 6))
    plain = pack(config_of("folder", tmp_path / "own", tmp_path / "plain"))
    turned = pack(config_of("folder", tmp_path / "own", tmp_path / "turned", orientation="apply"))
    assert (plain.images[:, 0] == 200).all() and (turned.images[:, :, -1] == 200).all()
    assert "orientation" not in plain.meta["settings"] and turned.meta["settings"]["orientation"] == "apply"


def test_images_that_are_not_read_are_not_called_corrupt(tmp_path, caplog):
    draw, root = np.random.default_rng(0), class_folders(tmp_path / "own", {"ant": 4, "bee": 4})
    for values, what in (
        (draw.random((8, 8)).astype(np.float32), "TIFF of 32 bits a value, floating point"),
        (draw.integers(0, 4096, (8, 8)).astype(np.int32), "TIFF of 32 bits a value with signs"),
    ):
        (root / "ant" / "odd.tif").write_bytes(file_of(values, "TIFF"))
        message = refused_packing("folder", root, tmp_path / "packed")
        assert f"ant/odd.tif is not supported ({what}; 8 and 16 are: convert it)" in message
    few, many = draw.integers(0, 4096, (16, 16)).astype(np.uint16), draw.integers(0, 65536, (16, 16)).astype(np.uint16)
    _warn_of_dark_images.cache_clear()
    for kind in ("TIFF", "PNG"):
        assert (decode(file_of(many, kind))[..., 0] == many >> 8).all() and not caplog.messages
    for kind in ("TIFF", "PNG"):
        assert (decode(file_of(few, kind))[..., 0] == few >> 8).all()
    assert caplog.text.count("of images with 16 bits a value the highest 8 are packed, and some use 12 bits") == 1
