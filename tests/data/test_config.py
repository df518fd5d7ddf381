"""What the settings of a dataset may be: one line for each that is impossible, with its name."""

from dataclasses import replace

import pytest

from transferability.data.config import DatasetConfig, GrammarConfig
from transferability.errors import UserError

FOLDER = DatasetConfig("folder", "own", "packed", 32, "images")
SYNTHETIC = DatasetConfig("procedural", "own", "packed", 32, grammar=GrammarConfig())


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("kind", "mnist", "procedural, tiny_imagenet, .* or folder"),
        ("image_size", 0, "a number above 0"),
        ("resize", "nearest", "area, linear, bilinear or bicubic"),
        ("fit", "pad", "squash or crop"),
        ("on_error", "warn", "fail or skip"),
        ("encoding", "png", "raw or jpeg"),
        ("jpeg_quality", 101, "from 1 to 100"),
        ("orientation", "turn", "ignore or apply"),
        ("val_fraction", 0.0, "above 0 and below 1"),
        ("val_fraction", 1.0, "above 0 and below 1"),
        ("test_fraction", 1.0, "at least 0 and below 1"),
        ("duplicates", "ask", "keep, drop or fail"),
        ("class_level", 0, "a number above 0, or null"),
        ("leave_out", ["masks", "."], "names of folders, or null"),
        ("name", "a/b", "a folder name of at most 100 bytes"),
        ("name", "", "a folder name of at most 100 bytes"),
        ("name", "ä" * 51, "a folder name of at most 100 bytes"),
        ("parts", {"val": "b"}, "folders for train and, where there are any, val and test"),
        ("columns", {"file": "a"}, "null: it is for dataset.labels and"),
        ("pattern", "(", "a regular expression"),
    ],
)
def test_an_impossible_value_is_named(key, value, wanted):
    FOLDER.check()
    with pytest.raises(UserError, match=rf"^dataset\.{key}=.* must be {wanted}"):
        replace(FOLDER, **{key: value}).check()


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("families", 3, "2: there are two families"),
        ("classes_per_family", 0, "a number above 0"),
        ("levels", 0, "a number above 0"),
        ("noise", -0.1, "at least 0"),
        ("shared_levels", 3, "from 0 to levels-1=2"),
        (
            "rules",
            10**4,
            r"such that 10 x 10000 rules, as many distinct productions, are at most 10\^4",
        ),
    ],
)
def test_an_impossible_grammar_is_named(key, value, wanted):
    SYNTHETIC.check()
    grammar = replace(SYNTHETIC.grammar, **{key: value})
    named = "symbols" if key == "rules" else key
    with pytest.raises(UserError, match=rf"^dataset\.grammar\.{named}=.* must be {wanted}"):
        replace(SYNTHETIC, grammar=grammar).check()


def test_the_size_of_synthetic_images_is_that_of_their_grammar():
    with pytest.raises(UserError, match=r"dataset\.image_size=16 must be patch x 2\^levels = 32"):
        replace(SYNTHETIC, image_size=16).check()
