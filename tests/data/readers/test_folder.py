"""One's own folders: what is a class, what it may be called, and what is another dataset."""

import os
from collections import Counter

import pytest

from tests.helpers import (
    class_folders,
    config_of,
    found,
    made,
    packing_refusal,
    refusal,
    write_plain,
    zipped,
)
from transferability.data.pack import pack

# --- classes ---


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_training_and_validation_folders(tmp_path, validation):
    root = class_folders(tmp_path / "own", {"ant": 5, "bee": 3}, "train")
    class_folders(root, {"ant": 1, "bee": 2}, validation)
    for source in (
        root,
        zipped(root, tmp_path / "own.zip"),
        zipped(root, tmp_path / "wrapped.zip", "own/"),
    ):
        names, train, val = found(source)
        assert names == ["ant", "bee"]
        assert Counter(name for name, _ in train) == {"ant": 5, "bee": 3}
        assert Counter(name for name, _ in val) == {"ant": 1, "bee": 2}
        assert all(f"train/{name}/" in path for name, path in train)
        assert all(f"{validation}/{name}/" in path for name, path in val)


def test_layouts_that_do_not_fit_are_refused(tmp_path):
    root = class_folders(tmp_path / "one", {"ant": 2}, "train")
    assert "no images in val/" in refusal(root)
    class_folders(root, {"ant": 2, "bee": 2}, "val")
    message = refusal(root)
    assert "'bee' has validation images but no training images" in message
    root = class_folders(tmp_path / "two", {"ant": 2})
    write_plain(root / "stray.png")
    message = refusal(root)
    assert "stray.png lies outside a class folder" in message and "CLASS/IMAGE" in message


def test_a_folder_that_wraps_the_classes_is_no_class(tmp_path):
    root = class_folders(tmp_path / "pets", {"ant": 4, "bee": 4})
    plain = pack(config_of(root, tmp_path / "plain"))
    for i, below in enumerate(("pets/", "home/me/pets/")):
        archive = zipped(root, tmp_path / f"{i}.zip", below)
        assert found(archive)[0] == ["ant", "bee"]
        assert pack(config_of(archive, tmp_path / f"packed-{i}")).checksum == plain.checksum
    deep = class_folders(tmp_path / "deep", {"ant/all": 4, "bee/young": 4, "bee/old": 4})
    names, train, val = found(deep, class_level=1)
    assert names == ["ant", "bee"] and len(train + val) == 12


def test_a_dataset_inside_itself_is_no_class(tmp_path):
    """It would be one of the images of all others,
    and its validation images training images of theirs.
    """
    root = class_folders(
        tmp_path / "plants", {"rust": 4, "scab": 4, "plants/rust": 4, "plants/scab": 4}
    )
    for source in (
        root,
        zipped(root, tmp_path / "plants.zip"),
        zipped(root, tmp_path / "wrapped.zip", "home/"),
    ):
        assert (
            "plants/ lies beside class folders and contains folders with their names (rust, scab)"
            in refusal(source)
        )
    other = class_folders(
        tmp_path / "other", {"rust": 4, "scab": 4, "more/wilt": 4, "more/spot": 4}
    )
    wanted = "more/ contains only folders, but rust/ and 1 more beside it contains images"
    assert wanted in refusal(other) and "dataset.class_level=1 (3 classes" in refusal(other)
    for name in ("train", "val"):
        class_folders(tmp_path / "split", {"rust": 4, "scab": 4}, name)
    class_folders(tmp_path / "split", {"val/rust": 4}, "val")
    assert "'val' has validation images but no training images" in refusal(tmp_path / "split")


def test_a_class_may_be_called_train(tmp_path):
    counts = {"bus": 4, "train": 4, "tram": 4}
    root = class_folders(tmp_path / "one", counts)
    names, train, val = found(root)
    assert names == ["bus", "train", "tram"] and len(train) == 9 and len(val) == 3
    root = class_folders(class_folders(tmp_path / "two", counts, "train"), counts, "val")
    names, train, val = found(root)
    assert names == ["bus", "train", "tram"] and len(train) == 12 and len(val) == 12


# --- names ---


def test_any_name_will_do(tmp_path):
    names = ["a b", "c,d", 'e "f"', "g'h", "ä ö", "i.j", "100%", "[k]"]
    root = class_folders(tmp_path / "own, really", dict.fromkeys(names, 3))
    write_plain(root / "a b" / 'x, y "z" (1).png', 77)
    packed = pack(config_of(root, tmp_path / "packed"))
    assert [c.name for c in packed.classes] == sorted(names)
    assert packed.n_train + packed.meta["n_val"] == 25
    assert (packed.images[:, 0, 0, 0] == 77).sum() == 1
    archived = pack(config_of(zipped(root, tmp_path / "own, really.zip"), tmp_path / "archived"))
    assert archived.checksum == packed.checksum


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
    write_plain(root / "other" / f"{name}.png", 77)
    packed = pack(config_of(root, tmp_path / "packed"))
    assert {c.name for c in packed.classes} == {name, "other"}
    assert (packed.images[:, 0, 0, 0] == 77).sum() == 1
    (root / name / "000.png").write_bytes(b"")
    message = packing_refusal(config_of(root, tmp_path / "failed"))
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
    root = class_folders(tmp_path / "own", {"ant": 3, "bee": 3})
    path = undecodable(root / "ant", b"caf\xe9.png")
    write_plain(root / "x.png", 77)
    os.rename(root / "x.png", path)
    assert (pack(config_of(root, tmp_path / "packed")).images[:, 0, 0, 0] == 77).sum() == 1
    with open(path, "wb"):
        pass
    packed = pack(config_of(root, tmp_path / "skipped", on_error="skip"))
    assert list(packed.meta["skipped"]) == [f"{root}/ant/caf\\udce9.png"]


def test_a_class_name_of_other_bytes_than_utf8_is_refused(tmp_path):
    root = class_folders(tmp_path / "own", {"ant": 3, "x": 3})
    os.rename(root / "x", undecodable(root, b"caf\xe9"))
    message = packing_refusal(config_of(root, tmp_path / "packed"))
    assert message == f"{root}: the name of class caf\\udce9 is not UTF-8: rename its folder"


def test_classes_that_differ_only_in_unicode_normalisation_are_refused(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    one = class_folders(tmp_path / "one", {composed: 3, decomposed: 3})
    if len(list(one.iterdir())) == 1:
        pytest.skip("this file system holds one of them")
    other = class_folders(
        class_folders(tmp_path / "other", {composed: 3}, "train"), {decomposed: 3}, "val"
    )
    for root in (one, other):
        message = packing_refusal(config_of(root, tmp_path / "packed"))
        assert (
            "'cafe\\u0301' and 'caf\\xe9' look the same" in message
            and "give them one name" in message
        )
    alone = class_folders(tmp_path / "alone", {decomposed: 3, "x": 3})
    assert pack(config_of(alone, tmp_path / "packed")).classes[0].name == decomposed


def test_classes_that_differ_only_in_case_are_two(tmp_path):
    root = class_folders(tmp_path / "letters", {"a": 3, "A": 3})
    if len(list(root.iterdir())) == 1:
        pytest.skip("this file system holds one of them")
    assert found(root)[0] == ["A", "a"]


# --- datasets as they are published ---

WNID = "n01443537"
PUBLISHED = {
    "tiny_imagenet": [
        f"t/train/{WNID}/images/0.JPEG",
        "t/val/images/0.JPEG",
        "t/test/images/1.JPEG",
        "t/wnids.txt",
    ],
    "imagenet": [f"ILSVRC/Data/CLS-LOC/train/{WNID}/0.JPEG", "ILSVRC/Data/CLS-LOC/val/0.JPEG"],
    "cifar10": [
        f"cifar-10-batches-py/{name}" for name in ("data_batch_1", "test_batch", "batches.meta")
    ],
    "cifar100": [f"cifar-100-python/{name}" for name in ("train", "test", "meta")],
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_dataset_given_as_a_folder_names_its_own_configuration(tmp_path, kind):
    paths = PUBLISHED[kind]
    contents = {path: b"\x80" for path in paths if not path.endswith(".JPEG")}
    root = made(tmp_path, *(path for path in paths if path not in contents), **contents)
    assert refusal(root).endswith(f"these look like the files of {kind}: set dataset={kind}")
