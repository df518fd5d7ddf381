"""Folders that are no classes: never packed as such without a word, and what is offered works."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io

from experiments.pack import main
from tests.helpers import classes, config_of, counts, flat, lines, made, offers, refusal, zipped
from tests.spreadsheet import spreadsheet
from transferability.data.pack import pack
from transferability.errors import UserError

NAMES = [f"ISIC_{i:04d}" for i in range(12)]
PARTS = [f"part_{1 + i // 6}/{name}.png" for i, name in enumerate(NAMES)]


def csv_of(names, kinds=("nv", "mel"), delimiter=","):
    rows = [f"{name}{delimiter}{kinds[i % 2]}{delimiter}60" for i, name in enumerate(names)]
    return "\n".join([f"image{delimiter}dx{delimiter}age", *rows]).encode()


def xlsx_of(names):
    """A spreadsheet with the names among its shared strings."""
    word = '<c r="{{c}}{{r}}" t="s"><v>{}</v></c>'
    rows = [[word.format(i), word.format(len(names))] for i in range(len(names))]
    return spreadsheet(rows, shared=[f"<t>{text}</t>" for text in (*names, "nv")])


def mat_of(names):
    out, records = io.BytesIO(), np.zeros(len(names), dtype=[("fname", "O"), ("class", "O")])
    for i, name in enumerate(names):
        records[i] = (f"{name}.png", 1 + i % 2)
    scipy.io.savemat(out, {"annotations": records})
    return out.getvalue()


def json_of(names):
    return json.dumps([{"file_name": f"x/{n}.png", "label": i % 2} for i, n in enumerate(names)])


TABLES = {
    "metadata.csv": csv_of(NAMES),
    "labels.tsv": csv_of(NAMES, delimiter="\t"),
    "semicolons.csv": csv_of(NAMES, delimiter=";"),
    "with-endings.csv": csv_of([f"images/{name}.png" for name in NAMES]),
    "annotations.json": json_of(NAMES).encode(),
    "coco.json": json.dumps({"images": json.loads(json_of(NAMES)), "info": {"year": 1}}).encode(),
    "map.json": json.dumps({f"{name}.png": "nv" for name in NAMES}).encode(),
    "metadata.jsonl": b"\n".join(json.dumps(r).encode() for r in json.loads(json_of(NAMES))),
    "GroundTruth.xlsx": xlsx_of(NAMES),
    "annos.mat": mat_of(NAMES),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("folders", ["part_{}", "set {}", "camera-{}/images"])
def test_a_table_that_names_the_images_and_says_other_than_the_folders_is_an_error(
    tmp_path, table, folders
):
    paths = [f"{folders.format('ab'[i // 6])}/{name}.png" for i, name in enumerate(NAMES)]
    root = made(tmp_path / "own", *paths, **{table: TABLES[table]})
    for source in (root, zipped(root)):
        message = refusal(source)
        assert f"own{'.zip' if source != root else ''}: {table} lists the images" in message
        if table in ("GroundTruth.xlsx", "map.json"):
            assert "there is only one class, nv" in message
            continue
        (labelled,) = (offer for offer in offers(message) if "labels" in offer)
        assert labelled == {"labels": table}
        assert list(counts(source, **labelled)[0].values()) == [5, 5]
    first, other = (folders.format(x).split("/")[0] for x in "ab")
    assert counts(root, class_level=1)[0] == {first: 5, other: 5}


def test_a_table_that_says_what_the_folders_say_or_names_nothing_is_no_error(tmp_path):
    paths = classes(count=6)
    stems = [path.removesuffix(".png") for path in paths]
    fine = {
        "by path.csv": "\n".join(f"{p},{p.split('/')[0]},30" for p in paths),
        "by key.json": json.dumps(
            {n: [s for s in stems if s.startswith(n)] for n in ("ant", "bee")}
        ),
        "names only.csv": "\n".join(paths),
        "of classes.csv": "id,class\n0,ant\n1,bee\n2,cat\n3,dog\n4,eel\n5,fox",
        "damaged.json": '[{"file_name": "0.png"',
        "damaged.xlsx": "x",
        "damaged.mat": "M",
    }
    for i, (name, text) in enumerate(fine.items()):
        root = made(tmp_path / str(i), *paths, **{name: text.encode()})
        assert counts(root)[0] == {"ant": 5, "bee": 5}, name
    root = made(tmp_path / "other", *paths, **{"t.csv": csv_of(paths)})
    offer, labelled = offers(refusal(root))
    assert counts(root, **labelled)[0] == {"nv": 5, "mel": 5}
    assert offer == {"class_level": 1} and counts(root, **offer)[0] == {"ant": 5, "bee": 5}


LETTERS = ["a/airfield", "a/alley", "b/bakery", "b/balcony/outside", "b/balcony/inside"]

BUSI = [f"{c}/{i}{of}.png" for c in ("benign", "normal") for i in range(3) for of in ("", "_mask")]


@pytest.mark.parametrize(
    ("paths", "what", "offered"),
    [
        (  # an alphabet above the classes
            [path for c in LETTERS for path in flat(f"data/{c}/")],
            "data/a/ and 1 more would be classes, but hold no images, only folders (airfield ...)",
            [["a", "b"], ["airfield", "alley", "bakery", "balcony"]],
        ),
        (  # folds
            classes("fold_0/") + classes("fold_1/") + classes("fold_2/"),
            "fold_0/, fold_1/, fold_2/ are named like numbered parts of a dataset",
            [["ant", "bee"]],
        ),
        (  # years, sites, devices: nothing in their names says what they are
            classes("paris/") + classes("lyon/"),
            "lyon/ and 1 more would be classes, but hold no images, only folders (ant ...)",
            [["lyon", "paris"], ["ant", "bee"]],
        ),
        (  # numbered parts, shards, without a table
            flat("images_001/images/") + flat("images_002/images/"),
            "images_001/, images_002/ are named like numbered parts of a dataset",
            [],
        ),
        (flat("data/shard_0/") + flat("data/shard_1/"), "data/shard_0/, data/shard_1/ are", []),
        (flat("Set_Part1/") + flat("Set_Part2/"), "Set_Part1/, Set_Part2/ are named", []),
        (  # training images named as the set, beside test images
            classes("rps/") + classes("rps-test-set/"),
            "rps/, rps-test-set/ would be the classes, but look like subsets of a dataset",
            [["ant", "bee"]],
        ),
        (
            classes("mine/") + classes("mine_val/") + classes("mine_test/"),
            "mine/, mine_test/, mine_val/ would be the classes, but look like subsets",
            [["ant", "bee"]],
        ),
        (flat("photos/") + flat("photos_test/"), "photos/, photos_test/ would be the classes", []),
        (  # masks beside images, in every class
            [p for c in ("COVID", "Viral") for f in ("images", "masks") for p in flat(f"{c}/{f}/")],
            "COVID/masks/ is named like something that belongs to images",
            [["COVID", "Viral"]],
        ),
        (  # what belongs to images, deep down, and beside them
            classes() + flat("ant/thumbnails/") + flat("bee/x/thumbs/"),
            "ant/thumbnails/ is named like something that belongs to images",
            [],
        ),
        (classes() + flat("ant/masks/"), "ant/masks/ is named like", [["ant", "bee"]]),
        (  # parts whose classes lie a folder deeper
            classes("S/Final_Training/Images/") + flat("S/Final_Test/Images/"),
            "S/Final_Test/, S/Final_Training/ would be the classes, but look like subsets",
            [["ant", "bee"]],
        ),
        (flat("images/"), "images/ is named like something that contains images", []),
        (  # masks beside images, in one folder (BUSI)
            [*BUSI, "benign/1_mask_1.png", "benign/1_mask_2.png"],
            "8 images have names of masks, or the like, of images beside them, the first "
            "benign/0_mask.png, and are read as images only where dataset.class_level is set; ",
            [["benign", "normal"], ["benign", "normal"]],
        ),
        (  # in subsets; of other words
            [f"{s}/{p}" for s in ("train", "val") for p in (*BUSI, "benign/0-Seg.tif")],
            "14 images have names of masks",
            [["benign", "normal"], ["benign", "normal"]],
        ),
    ],
)
def test_what_is_offered_for_folders_that_are_no_classes_was_tried(tmp_path, paths, what, offered):
    root = made(tmp_path / "own", *paths)
    message = refusal(root)
    assert what in message
    found = [counts(root, **offer) for offer in offers(message)]
    assert [sorted(train) for train, _, _ in found] == offered
    if not offered:
        assert "sort the images into folders CLASS/IMAGE" in message
    for train, val, test in found:
        read = sum(sum(part.values()) for part in (train, val, test))
        assert read <= len(paths) and train.keys() == val.keys()


def test_test_images_stay_test_images_in_what_is_offered(tmp_path):
    root = made(tmp_path / "own", *classes("rps/", 10), *classes("rps-test-set/", 4))
    (offer,) = offers(refusal(root))
    assert offer == {"parts": {"train": "rps", "test": "rps-test-set"}}
    assert [sum(part.values()) for part in counts(root, **offer)] == [18, 2, 8]


def test_stated_parts_and_stated_classes_are_looked_into_as_well(tmp_path):
    """What an older message offered: masks as pictures of the class, and a class "Images"."""
    masks = [p for c in ("a", "b") for f in ("images", "masks") for p in flat(f"{c}/{f}/")]
    root = made(tmp_path / "masks", *masks)
    for stated in ({"parts": {}}, {"class_level": 1}):
        assert "a/masks/ is named like something that belongs to images" in refusal(root, **stated)
    (offer,) = offers(refusal(root, parts={}))
    assert offer == {"parts": {}, "leave_out": ["masks"], "class_level": 1}
    assert counts(root, **offer) == [{"a": 2, "b": 2}, {"a": 1, "b": 1}, {}]
    root = made(tmp_path / "signs", *classes("T/Images/"), *classes("V/Images/"))
    stated = {"parts": {"train": "T", "val": "V"}}
    assert "T/Images/ is named like something that contains images" in refusal(root, **stated)
    assert counts(root, **stated, class_level=2)[:2] == [{"ant": 3, "bee": 3}] * 2


def test_the_level_of_the_classes(tmp_path):
    letters = made(tmp_path / "letters", *[p for c in LETTERS for p in flat(f"{c}/")])
    found = counts(letters, class_level=2)[0]
    assert found == {"airfield": 2, "alley": 2, "bakery": 2, "balcony": 5}
    message = refusal(letters, class_level=3)
    assert "a/airfield/0.png lies outside a class folder (dataset.class_level=3);" in message
    flatter = made(tmp_path / "flatter", *classes("train/x/"), *classes("val/"))
    message = refusal(flatter, class_level=2)
    assert "val/ant/0.png lies outside a class folder (dataset.class_level=2); sort" in message
    folds = made(
        tmp_path / "folds", *classes("train/f1/"), *classes("train/f2/"), *classes("val/g/")
    )
    assert counts(folds, class_level=2)[:2] == [{"ant": 6, "bee": 6}, {"ant": 3, "bee": 3}]
    for key, value in (("class_level", 0), ("leave_out", ["."])):
        with pytest.raises(UserError, match=rf"dataset\.{key}=.* must be"):
            config_of(folds, **{key: value}).check()
    with pytest.raises(UserError, match="it is for dataset=folder"):
        config_of(folds, kind="imagenet", class_level=2).check()


def test_folders_are_left_out_by_name_or_path(tmp_path, caplog):
    root = made(tmp_path / "own", *classes(), *flat("ant/old/"), *flat("bee/old/x/"), *flat("cat/"))
    assert counts(root, leave_out=["old", "cat"])[0] == {"ant": 2, "bee": 2}
    assert lines(caplog) == [f"{root}: 9 images are left out by dataset.leave_out"]
    assert counts(root, leave_out=["./ant/old/"], class_level=1)[0] == {
        "ant": 2,
        "bee": 5,
        "cat": 2,
    }
    assert "dataset.leave_out: mask is not a folder in" in refusal(root, leave_out=["mask"])
    assert "dataset.leave_out: *y is not a file or folder in" in refusal(
        root, leave_out=["*y", "0*"]
    )
    assert counts(root, leave_out=["c*", "bee/o*d", "ant/0.*"])[0] == {"ant": 4, "bee": 2}
    assert counts(root, leave_out=["*/old/*.png", "cat"])[0] == {"ant": 2, "bee": 5}
    assert "dataset.leave_out leaves no images" in refusal(root, leave_out=["ant", "bee", "cat"])


def test_masks_beside_images_are_left_out_or_named(tmp_path, caplog):
    root = made(tmp_path / "own", *BUSI)
    first, second = offers(refusal(root))
    assert first == {"leave_out": ["*_mask.png"]} and second == {"class_level": 1}
    assert counts(root, **first)[0] == {"benign": 2, "normal": 2}
    caplog.clear()
    assert counts(root, **second)[0] == {"benign": 5, "normal": 5}
    what = "have names of masks, or the like, of images beside them, the first benign/0_mask.png"
    leaves = "and are read as images: \"dataset.leave_out=['*_mask.png']\" leaves them out"
    assert lines(caplog) == [f"{root}: 6 images {what}, {leaves}"]
    one = made(tmp_path / "one", *classes(count=6, names=("benign", "x_mask")), "benign/0_mask.png")
    assert counts(one)[0] == {"benign": 6, "x_mask": 5}
    assert lines(caplog)[1:] == [f"{one}: 1 images {what}, {leaves}"]


def test_images_that_differ_in_the_ending_alone_are_named_where_most_of_a_class_do(
    tmp_path, caplog
):
    paths = [f"ant/{i}.{ending}" for i in range(4) for ending in ("jpg", "png")]
    root = made(tmp_path / "own", *paths, *(f"bee/{i}.jpg" for i in range(4)), "bee/0.png")
    assert counts(root)[0] == {"ant": 7, "bee": 4}
    what = "8 images have the same name as another beside them, except the ending "
    what += "(ant/0.jpg, ant/0.png)"
    assert lines(caplog) == [f"{root}: {what}: some may be masks or copies"]
    (root / "bee" / "0.png").unlink()
    caplog.clear()
    assert counts(root)[0] == {"ant": 7, "bee": 3}
    leaves = "\"dataset.leave_out=['*.png']\" leaves out the latter"
    assert lines(caplog) == [f"{root}: {what}: some may be masks or copies: {leaves}"]
    assert counts(root, leave_out=["*.png"])[0] == {"ant": 3, "bee": 3}


def test_a_class_that_holds_images_and_folders_is_named(tmp_path, caplog):
    root = made(tmp_path / "own", *classes(), *flat("ant/small ones/"))
    assert counts(root)[0] == {"ant": 5, "bee": 2}
    (line,) = lines(caplog)
    assert line == (
        f"{root}: class ant holds images and folders of images (small ones), which are read as "
        "its images, too: \"dataset.leave_out=['small ones']\" leaves them out"
    )


def test_the_classes_are_named(tmp_path, capsys):
    names = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")
    root = made(tmp_path / "own", *classes("x/", names=names), *classes("y/", names=names))
    main(SimpleNamespace(dataset=config_of(root, tmp_path / "packed", class_level=2)))
    assert "; the classes are ant, bee, cat, dog, eel and 2 more\n" in capsys.readouterr().out


def test_packs_of_before_there_were_levels_are_what_they_were(tmp_path):
    """Like dataset.parts, a level is for packing: whoever opens the pack need not know it."""
    root = made(tmp_path / "own", *classes(count=5))
    packed = pack(config_of(root, tmp_path / "packed"))
    again = pack(config_of(root, tmp_path / "packed", class_level=1, leave_out=[]))
    assert again.checksum == packed.checksum
    assert not packed.meta["settings"].keys() & {"class_level", "leave_out"}
