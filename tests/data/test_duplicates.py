"""Duplicate images: counted and named, refused, or dropped."""

import re
from dataclasses import replace

import pytest

from tests.helpers import (
    coded,
    config_of,
    make_source,
    numbers,
    own_folder,
    packing_refusal,
    three_subsets,
    write,
)
from transferability.data.pack import pack
from transferability.data.packed import verify
from transferability.errors import UserError


def with_copies(root, way="png"):
    """make_source, and copies: of an ant in its class and in another,
    of a cat in the other subset.
    """
    make_source(root)
    for name in ("train/ant/copy", "train/ant/again", "train/bee/ant"):
        write(root / f"{name}.{way}", coded(0, 0, 1))
    write(root / f"val/cat/train.{way}", coded(2, 0, 4))
    return root


FOUND = {
    "within a class": {"pictures": 1, "first": ["train/ant/1.png", "train/ant/again.bmp"]},
    "in several classes": {"pictures": 1, "first": ["train/ant/1.png", "train/bee/ant.bmp"]},
    "in several parts": {"pictures": 1, "first": ["train/cat/4.png", "val/cat/train.bmp"]},
}


def found_in(root):
    return {
        kind: {"pictures": f["pictures"], "first": [f"{root}/{name}" for name in f["first"]]}
        for kind, f in FOUND.items()
    }


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_equal_pictures_are_counted_and_named_and_kept(tmp_path, caplog, encoding):
    plain = pack(
        config_of(make_source(tmp_path / "plain"), tmp_path / "packed-plain", encoding=encoding)
    )
    assert "duplicates" not in plain.meta and not caplog.records
    source = with_copies(tmp_path / "source", "bmp")
    config = config_of(source, tmp_path / "packed", encoding=encoding)
    packed = pack(config)
    assert packed.meta["duplicates"] == found_in(source) and len(packed.labels) == 34
    assert "duplicates" not in packed.meta["settings"]
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == (
        f"some has duplicate images: 1 within a class (first {source}/train/ant/1.png and "
        f"{source}/train/ant/again.bmp), 1 in several classes (first {source}/train/ant/1.png and "
        f"{source}/train/bee/ant.bmp), 1 in several subsets (first {source}/train/cat/4.png and "
        f"{source}/val/cat/train.bmp); duplicates inflate or distort accuracy: "
        "dataset.duplicates=drop removes them"
    )
    with pytest.raises(
        UserError,
        match=r"has duplicate images: 1 within a class .*: remove them",
    ):
        pack(replace(config, duplicates="fail"))
    verify(packed)


def test_equal_pictures_are_refused(tmp_path):
    source = with_copies(tmp_path / "source")
    message = packing_refusal(config_of(source, tmp_path / "packed", duplicates="fail"))
    assert (
        message.startswith(f"{source} has duplicate images: 1 within a class (first ")
        and "drop, or keep" in message
    )
    fine = config_of(make_source(tmp_path / "fine"), tmp_path / "packed", duplicates="fail")
    checksum = pack(fine).checksum
    assert pack(replace(fine, duplicates="keep")).checksum == checksum, "the same pack"
    with pytest.raises(UserError, match=r"dataset.duplicates=ask must be"):
        replace(fine, duplicates="ask").check()


def test_of_equal_pictures_one_stays_and_of_those_in_two_classes_none(tmp_path, caplog):
    source = with_copies(tmp_path / "source")
    (source / "train" / "bee" / "bad.png").write_bytes(b"")
    packed = pack(config_of(source, tmp_path / "packed", duplicates="drop", on_error="skip"))
    assert numbers(packed, packed.train_rows([0])) == [(0, i) for i in (0, 2, 3, 4, 5, 6)]
    assert numbers(packed, packed.train_rows([1])) == [(1, i) for i in range(7)]
    assert numbers(packed, packed.train_rows([2])) == [(2, i) for i in (0, 1, 2, 3, 5, 6)], (
        "validation keeps its own"
    )
    assert numbers(packed, packed.val_rows([2])) == [(2, 0), (2, 1), (2, 2), (2, 4)]
    assert (
        packed.meta["settings"]["duplicates"] == "drop"
        and packed.meta["duplicates"].keys() == FOUND.keys()
    )
    assert "some: 5 images dropped, of duplicate images: 1 within a class (first " in caplog.text
    assert (
        pack(config_of(source, tmp_path / "packed", duplicates="drop", on_error="skip")).checksum
        == packed.checksum
    )
    verify(packed)


def test_a_class_that_is_a_link_to_another_is_noticed(tmp_path):
    source = own_folder(tmp_path / "source", count=5)
    (source / "cat").symlink_to("ant")
    packed = pack(config_of(source, tmp_path / "packed"))
    assert packed.meta["duplicates"]["in several classes"]["pictures"] == 5
    message = packing_refusal(config_of(source, tmp_path / "dropped", duplicates="drop"))
    assert re.search(
        r"no training images of class 'ant' and 1 more in .*: the 4 it had are left out, the first",
        message,
    )
    assert "is equal to" in message


def test_a_test_part_keeps_its_pictures(tmp_path):
    source = tmp_path / "source"
    for part, own in (
        ("train", (0, 1, 2, 10, 20)),
        ("val", (10, 11, 20, 21)),
        ("test", (20, 21, 22)),
    ):
        for label, name in enumerate(("ant", "bee")):
            for i in own:
                write(source / part / name / f"{i}.png", coded(label, 0, i))
    packed = pack(config_of(source, tmp_path / "packed", duplicates="drop"))
    assert packed.meta["duplicates"]["in several parts"]["pictures"] == 6
    assert [[i for label, i in part if not label] for part in three_subsets(packed)] == [
        [0, 1, 2],
        [10, 11],
        [20, 21, 22],
    ]
