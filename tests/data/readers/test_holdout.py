"""Validation and test images that are held out of the training images."""

from collections import Counter

import numpy as np
import pytest
import torch

import experiments.pack
from tests.helpers import (
    class_folders,
    config_of,
    found,
    make_source,
    own_folder,
    packing_refusal,
    refusal,
    three_subsets,
)
from tests.miniature import shrunk
from transferability.data.pack import pack
from transferability.data.packed import verify
from transferability.errors import UserError

# --- validation ---


def test_a_share_of_each_class_is_held_out(tmp_path):
    counts = {"ant": 20, "bee": 37, "cat": 4}
    root = class_folders(tmp_path / "own", counts)
    every = {(name, f"{name}/{i:03d}.png") for name, count in counts.items() for i in range(count)}
    for fraction, expected in (
        (0.1, {"ant": 2, "bee": 4, "cat": 1}),
        (0.5, {"ant": 10, "bee": 18, "cat": 2}),
    ):
        names, train, val = found(root, val_fraction=fraction)
        assert names == ["ant", "bee", "cat"]
        assert Counter(name for name, _ in val) == expected
        assert set(train) | set(val) == every and len(train) + len(val) == len(every)
        assert found(root, val_fraction=fraction) == (names, train, val)
        other = found(root, val_fraction=fraction, seed=1)[2]
        assert Counter(name for name, _ in other) == expected and other != val


def test_what_is_held_out_of_a_class_does_not_depend_on_the_others(tmp_path):
    root = class_folders(tmp_path / "own", {"bee": 30, "cat": 30})
    val = found(root)[2]
    before = {path for name, path in val if name == "bee"}
    assert before != {path.replace("cat/", "bee/") for name, path in val if name == "cat"}
    class_folders(root, {"ant": 12})
    assert {path for name, path in found(root)[2] if name == "bee"} == before


def test_a_class_of_one_image_is_told_so(tmp_path):
    root = class_folders(tmp_path / "one", {"ant": 4, "bee": 1, "wasp": 1})
    assert "class 'bee' and 1 more in" in refusal(root) and "only one image of class" in refusal(
        root
    )
    root = class_folders(
        class_folders(tmp_path / "two", {"ant": 1, "bee": 1}, "train"), {"ant": 1, "bee": 1}, "val"
    )
    assert found(root)[0] == ["ant", "bee"], "nothing is held out of it"


# --- test ---


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_share_of_each_class_is_held_out_for_test(tmp_path, encoding):
    source = own_folder(tmp_path / "source")
    settings = {"encoding": encoding, "jpeg_quality": 100}
    without = pack(config_of(source, tmp_path / "without", **settings))
    packed = pack(config_of(source, tmp_path / "packed", test_fraction=0.2, **settings))
    assert (packed.n_train, packed.n_val, packed.n_test) == (28, 4, 8)
    assert packed.meta["n_test"] == 8
    train, val, test = three_subsets(packed)
    assert [label for label, _ in test] == [0] * 4 + [1] * 4
    assert [label for label, _ in val] == [0, 0, 1, 1]
    assert sorted(train + val + test) == sorted(
        three_subsets(without)[0] + three_subsets(without)[1]
    )
    assert val == three_subsets(without)[1], "validation is what it would be without"
    assert packed.train_rows([0, 1]).tolist() == list(range(28)) and packed.val_rows(
        [0, 1]
    ).tolist() == [
        28,
        29,
        30,
        31,
    ]
    assert packed.test_rows([0, 1]).tolist() == list(range(32, 40)) and packed.val_rows(
        [1]
    ).tolist() == [row for row in range(28, 32) if packed.labels[row] == 1]
    assert np.array_equal(packed.images_on(torch.device("cpu")).numpy(), packed.images[:])
    verify(packed)
    again = pack(config_of(source, tmp_path / "again", test_fraction=0.2, **settings))
    assert again.checksum == packed.checksum
    other = pack(config_of(source, tmp_path / "other", test_fraction=0.2, seed=1, **settings))
    assert three_subsets(other)[2] != test
    if encoding == "raw":
        own_folder(source, classes=("ant", "bee", "cat"))
        more = pack(config_of(source, tmp_path / "more", test_fraction=0.2))
        assert [pair for pair in three_subsets(more)[2] if pair[0] < 2] == test, (
            "the share of a class is its own"
        )


def test_a_share_for_test_comes_from_the_training_images_where_validation_has_a_folder(tmp_path):
    packed = pack(
        config_of(
            make_source(tmp_path / "source", n_train=10), tmp_path / "packed", test_fraction=0.1
        )
    )
    assert (packed.n_train, packed.n_val, packed.n_test) == (27, 9, 3)
    assert (packed.images[packed.test_rows([0, 1, 2])][:, 0, 0, 1] == 0).all()
    for wrong in (-0.1, 1.0):
        with pytest.raises(UserError, match=f"dataset.test_fraction={wrong} must be"):
            config_of("x", tmp_path, test_fraction=wrong).check()


def test_a_class_that_a_share_for_test_empties_is_named(tmp_path):
    source = own_folder(tmp_path / "source", count=2)
    assert "class 'ant' and 1 more" in packing_refusal(
        config_of(source, tmp_path / "packed", test_fraction=0.1)
    )


def test_a_test_part_of_embedded_images(tmp_path, capsys):
    config = shrunk(tmp_path, "+dataset.test_fraction=0.25")
    experiments.pack.main(config)
    assert (
        ": 8 classes (4 natural, 4 man-made), 72 training, "
        "40 validation and 24 test images of 16x16, checksum "
    ) in (capsys.readouterr().out)
    packed = pack(config.dataset)
    assert (packed.n_train, packed.n_val, packed.n_test) == (72, 40, 24)
    assert np.bincount(packed.labels[packed.test_rows(list(range(8)))]).tolist() == [3] * 8
