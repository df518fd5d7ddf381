"""One photograph, patient or video on one side only: groups, and the raw files of cameras."""

import io

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tests.helpers import (
    classes,
    config_of,
    counts,
    lines,
    made,
    packing_refusal,
    refusal,
    zipped,
)
from transferability.data.config import GrammarConfig
from transferability.data.decode import UnsupportedError, decode
from transferability.data.pack import pack
from transferability.data.readers import read_dataset
from transferability.errors import UserError

# --- groups ---


def patients(root, per_class=10, images=4, names=("ill", "well")):
    """CLASS/patientN_I.png; patient 0 is in all classes."""
    paths = [
        f"{c}/patient{0 if p == 0 else p + 100 * k}_{i}.png"
        for k, c in enumerate(names)
        for p in range(per_class)
        for i in range(images)
    ]
    return made(root, *paths)


def groups_of(source, **settings):
    opened = read_dataset(config_of(source, **settings))
    return [{item.group for item in part} for part in (opened.train, opened.val, opened.test)]


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_on_one_side(tmp_path, seed):
    root = patients(tmp_path / "own")
    settings = {"val_fraction": 0.2, "test_fraction": 0.2, "seed": seed}
    alone = groups_of(root, group=r"patient(\d+)_", **settings)
    assert all(not a & b for a, b in ((alone[0], alone[1]), (alone[0], alone[2]), alone[1:]))
    assert set.union(*alone) == {"0", *(str(p + 100 * k) for k in (0, 1) for p in range(1, 10))}
    found = counts(root, group=r"patient(\d+)_", **settings)
    assert found == [{"ill": 24, "well": 24}, {"ill": 8, "well": 8}, {"ill": 8, "well": 8}]
    assert groups_of(root, group=r"patient\d+", **settings)[1] == {f"patient{g}" for g in alone[1]}
    assert groups_of(root, group=r"patient(\d+)_", **settings) == alone, "the same every time"
    assert groups_of(zipped(root), group=r"patient(\d+)_", **settings) == alone
    split = read_dataset(config_of(root, **settings))
    shared = [{i.name.split("_")[0] for i in part} for part in (split.train, split.val)]
    assert shared[0] & shared[1], "without groups there are patients on both sides"


def test_groups_of_many_sizes_are_held_out_as_far_as_they_fit(tmp_path):
    sizes = [40, 20, 10, 5, 5, 3, 3, 2, 2, 1, 1, 1]
    paths = [
        f"{c}/v{k}-{g}/{i}.png"
        for k, c in enumerate("ab")
        for g, n in enumerate(sizes)
        for i in range(n)
    ]
    root = made(tmp_path / "own", *paths)
    for seed in range(5):
        train, val, _ = counts(root, group=r"v[^/]+", class_level=1, val_fraction=0.2, seed=seed)
        assert all(15 <= val[c] <= 19 and train[c] == 93 - val[c] for c in "ab")
    big = made(
        tmp_path / "big", *[f"{c}/{g}_{i}.png" for c in "ab" for g in "xyz" for i in range(9)]
    )
    with pytest.raises(UserError, match="no training images of it left"):
        read_dataset(config_of(made(tmp_path / "one", *classes()), group="ant|bee"))
    assert counts(big, group=r"(./.)_")[1] == {"a": 9, "b": 9}, "one group at least"


def test_parts_that_share_a_group_are_an_error(tmp_path):
    root = patients(tmp_path / "own" / "train")
    made(tmp_path / "own", "val/ill/patient3_9.png", "val/well/patient999_9.png")
    message = refusal(tmp_path / "own", group=r"patient(\d+)")
    assert "group '3' has training and validation images (" in message
    assert f"{root}/ill/patient3_0.png and {tmp_path}/own/val/ill/patient3_9.png" in message
    (tmp_path / "own" / "val").rename(tmp_path / "own" / "test")
    assert "group '3' has training and test images" in refusal(
        tmp_path / "own", group=r"patient(\d+)", seed=4
    ) or "group '3' has validation and test images" in refusal(
        tmp_path / "own", group=r"patient(\d+)", seed=4
    )
    (tmp_path / "own" / "test" / "ill" / "patient3_9.png").rename(
        tmp_path / "own" / "test" / "ill" / "patient998_9.png"
    )
    assert counts(tmp_path / "own", group=r"patient(\d+)")[2] == {"ill": 1, "well": 1}


def test_what_is_no_group_is_an_error(tmp_path):
    root = made(patients(tmp_path / "own"), "ill/unknown.png")
    assert "dataset.group=patient is found nowhere in ill/unknown.png" in refusal(
        root, group="patient"
    )
    with pytest.raises(UserError, match=r"dataset\.group=\(x must be a regular expression"):
        config_of(root, group="(x").check()
    grammar = GrammarConfig(levels=2, train_per_class=2, val_per_class=1)
    made_up = config_of("", kind="procedural", image_size=16, grammar=grammar, group="x")
    with pytest.raises(UserError, match="is for images in files, not for procedural"):
        read_dataset(made_up)


def test_a_pack_says_by_what_it_was_grouped(tmp_path):
    root = patients(tmp_path / "own")
    config = config_of(root, tmp_path / "packed", group=r"patient(\d+)")
    assert pack(config).meta["settings"]["group"] == r"patient(\d+)"
    assert "(group)" in packing_refusal(config_of(root, tmp_path / "packed"))


# --- raw files of cameras ---


def test_raw_files_beside_photographs_are_left_out_with_a_line(tmp_path, caplog):
    """A NEF file is a TIFF file whose first picture is a thumbnail."""
    out = io.BytesIO()
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(out, "TIFF")
    names = [f"{c}/DSC_{i}.{e}" for c in ("ant", "bee") for i in range(3) for e in ("NEF", "dng")]
    root = made(tmp_path / "own", *classes(), **dict.fromkeys(names, out.getvalue()))
    assert counts(root)[0] == {"ant": 2, "bee": 2}
    (line,) = lines(caplog)
    assert line == (
        f"{root}: 12 raw camera files are left out, the first ant/DSC_0.NEF: convert those that "
        "have no JPEG or PNG version"
    )
    only = made(tmp_path / "only", **{name: out.getvalue() for name in names})
    assert "has no images in it, but 12 other files (6 *.NEF, 6 *.dng)" in refusal(only)


def tiff(**tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, (kind, value) in tags.items():
        info.tagtype[int(tag[1:])] = kind
        info[int(tag[1:])] = value
    out = io.BytesIO()
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(out, "TIFF", tiffinfo=info)
    return out.getvalue()


@pytest.mark.parametrize(
    ("tags", "raw"),
    [
        ({"t50706": (1, b"\x01\x04\x00\x00")}, True),  # DNGVersion
        ({"t254": (4, 1), "t330": (4, 8)}, True),  # a thumbnail, and where the others are
        ({"t254": (4, 1)}, False),
        ({}, False),
    ],
)
def test_a_raw_file_of_another_name_is_known_by_its_tags(tmp_path, caplog, tags, raw):
    data = tiff(**tags)
    if not raw:
        assert decode(data).shape == (12, 16, 3)
        return
    with pytest.raises(UnsupportedError, match="a raw camera file"):
        decode(data)
    names = ["ant/DSC_1.tif", "bee/photograph"]
    root = made(tmp_path / "own", *classes(count=20), **dict.fromkeys(names, data))
    packed = pack(config_of(root, tmp_path / "packed"))
    assert sorted(packed.meta["skipped"]) == [f"{root}/{name}" for name in names]
    assert packed.n_train + packed.n_val == 40
    assert lines(caplog)[0] == (
        "skipped 2 raw camera files (1 of class ant, 1 of class bee); the first: "
        f"{root}/ant/DSC_1.tif is not supported (a raw camera file, which begins with a "
        "thumbnail: convert it)"
    )
    (root / "ant" / "broken.png").write_bytes(b"no image")
    assert "broken.png is corrupt" in packing_refusal(config_of(root, tmp_path / "failed"))
