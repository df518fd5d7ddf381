"""Tiny-ImageNet, in its official layout and sorted."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers import (
    CONVERTIBLE,
    GOLDFISH,
    GROUPS,
    WNIDS,
    config_of,
    found,
    imagenet,
    packing_refusal,
    real,
    refusal,
    write_plain,
    zipped,
)
from transferability.data.pack import pack
from transferability.data.readers import read_dataset


def tiny_imagenet(root):
    """Its official layout in miniature: values 10 x class + image, validation from 100 on."""
    for c, wnid in enumerate(WNIDS):
        for i in range(3):
            write_plain(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", 10 * c + i)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("x\t0\t0\t5\t5\n")
    annotations = []
    for i in range(8):
        write_plain(root / "val" / "images" / f"val_{i}.JPEG", 100 + i)
        annotations.append(f"val_{i}.JPEG\t{WNIDS[i % 4]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    write_plain(root / "test" / "images" / "test_0.JPEG")
    (root / "wnids.txt").write_text("\n".join(reversed(WNIDS)) + "\n")
    words = (
        "goldfish, Carassius auratus",
        "European fire salamander",
        "backpack, back pack",
        "convertible",
    )
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
    packs = [
        pack(config_of(s, tmp_path / f"packed-{i}", kind="tiny_imagenet"))
        for i, s in enumerate(sources)
    ]
    assert len({p.checksum for p in packs}) == 1
    packed = packs[0]
    assert packed.n_train == 12 and packed.meta["n_val"] == 8
    names = ["goldfish", "European fire salamander", "backpack", "convertible"]
    assert [c.name for c in packed.classes] == names
    assert [c.wnid for c in packed.classes] == list(WNIDS) and [
        c.group for c in packed.classes
    ] == GROUPS
    value = packed.images[:, 0, 0, 0].astype(int)
    assert packed.labels[:12].tolist() == (value[:12] // 10).tolist()
    assert packed.labels[12:].tolist() == ((value[12:] - 100) % 4).tolist()
    assert sorted(value) == sorted(
        [10 * c + i for c in range(4) for i in range(3)] + list(range(100, 108))
    )


@pytest.mark.parametrize("below", ["", "images/"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_sorted_val_of_tiny_imagenet_is_the_same_dataset(below, listed, tmp_path):
    """val/WNID/IMAGE, as it is often made for an ImageFolder,
    with or without the list that it was made by.
    """
    root = tiny_imagenet(tmp_path / "official")
    list_path = Path("val", "val_annotations.txt")
    with open(root / list_path, "a") as file:
        for i in range(8, 12):  # val_10 comes after val_9
            write_plain(root / "val" / "images" / f"val_{i}.JPEG", 100 + i)
            file.write(f"val_{i}.JPEG\t{WNIDS[i % 4]}\t0\t32\t44\t62\n")
    official = pack(config_of(root, tmp_path / "packed", kind="tiny_imagenet"))
    again = shutil.copytree(root, tmp_path / "sorted")
    for line in (again / list_path).read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (again / "val" / wnid / below).mkdir(parents=True, exist_ok=True)
        (again / "val" / "images" / name).rename(again / "val" / wnid / below / name)
    (again / "val" / "images").rmdir()
    if not listed:
        (again / list_path).unlink()
    for source in (again, zipped(again, tmp_path / "sorted.zip")):
        assert (
            pack(config_of(source, tmp_path / f"p-{source.name}", kind="tiny_imagenet")).checksum
            == official.checksum
        )
    (again / "val" / WNIDS[0]).rename(again / "val" / "n00000001")
    if not listed:
        assert "its class n00000001 is not in wnids.txt" in refusal(again, kind="tiny_imagenet")


def test_what_is_not_tiny_imagenet_is_refused(tmp_path):
    write_plain(tmp_path / "other" / "cat" / "x.png")
    assert "no wnids.txt" in refusal(tmp_path / "other", kind="tiny_imagenet")
    for missing in ("words.txt", "val/val_annotations.txt"):
        root = tiny_imagenet(tmp_path / missing.replace("/", "-"))
        archive = zipped(root, tmp_path / "whole.zip")
        (root / missing).unlink()
        assert f"{missing} cannot be read" in refusal(root, kind="tiny_imagenet")
        assert f"{missing} cannot be read" in refusal(zipped(root, archive), kind="tiny_imagenet")
    root = tiny_imagenet(tmp_path / "cut")
    (root / "wnids.txt").write_text("\n".join(WNIDS[:3]))
    assert f"its class {CONVERTIBLE} is not in wnids.txt" in refusal(root, kind="tiny_imagenet")


def test_wnids_that_are_listed_twice_count_once(tmp_path):
    root = tiny_imagenet(tmp_path / "tiny")
    plain = found(root, kind="tiny_imagenet")
    with open(root / "wnids.txt", "a") as file:
        file.write(f"{GOLDFISH}\n\n")
    assert found(root, kind="tiny_imagenet") == plain


def test_lists_that_are_damaged_are_one_clear_line(tmp_path):
    root = tiny_imagenet(tmp_path / "tiny")
    annotations = root / "val" / "val_annotations.txt"
    good = annotations.read_text()
    annotations.write_text(good + "\n")
    assert len(found(root, kind="tiny_imagenet")[2]) == 8
    annotations.write_text(good + "val_9.JPEG\n")
    assert "val_annotations.txt: 'val_9.JPEG' is not `IMAGE tab WNID ...`" in refusal(
        root, kind="tiny_imagenet"
    )
    annotations.write_bytes(b"\xff\xfe" + good.encode())
    assert "val_annotations.txt cannot be read" in refusal(root, kind="tiny_imagenet")
    annotations.write_text(good)
    (root / "wnids.txt").unlink()
    os.mkfifo(root / "wnids.txt")
    assert "wnids.txt cannot be read: a pipe" in refusal(root, kind="tiny_imagenet")
    labels = tmp_path / "labels.txt"
    labels.write_bytes(b"\xff\xfen01443537")
    message = refusal(
        imagenet(tmp_path / "imagenet", flat=True), val_labels=str(labels), kind="imagenet"
    )
    assert "labels.txt: 'utf-8' codec can't decode" in message


@pytest.mark.parametrize("name", ["../../../secret.JPEG", "/secret.JPEG", "absent.JPEG"])
def test_a_list_cannot_name_files_outside_the_source(tmp_path, name):
    root = tiny_imagenet(tmp_path / "tiny")
    write_plain(tmp_path / "secret.JPEG", 200)
    with open(root / "val" / "val_annotations.txt", "a") as file:
        file.write(f"{name}\t{GOLDFISH}\t0\t1\t2\t3\n")
    for i, source in enumerate((root, zipped(root, tmp_path / "tiny.zip"))):
        message = packing_refusal(config_of(source, tmp_path / f"failed-{i}", kind="tiny_imagenet"))
        assert f"{name} cannot be read (No such file or directory)" in message
        packed = pack(
            config_of(source, tmp_path / f"packed-{i}", on_error="skip", kind="tiny_imagenet")
        )
        assert len(packed.meta["skipped"]) == 1 and not (packed.images == 200).any()


def test_the_classes_of_the_real_tiny_imagenet():
    source = read_dataset(config_of(real("tiny-imagenet-200.zip"), kind="tiny_imagenet"))
    assert len(source.classes) == 200
    assert Counter(c.group for c in source.classes) == {"natural": 72, "man-made": 128}
    assert (source.classes[0].wnid, source.classes[0].name) == ("n01443537", "goldfish")
    assert Counter(item.label for item in source.train) == dict.fromkeys(range(200), 500)
    assert Counter(item.label for item in source.val) == dict.fromkeys(range(200), 50)
    assert source.train[0].load().shape == source.val[-1].load().shape == (64, 64, 3)
