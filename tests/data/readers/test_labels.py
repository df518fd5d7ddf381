"""Classes in tables and in names of files: found, named, refused; and what is offered works."""

import json
import re

import pytest

from tests.helpers import (
    classes,
    config_of,
    counts,
    flat,
    lines,
    made,
    offers,
    refusal,
    tarred,
    zipped,
)
from transferability.data.pack import pack
from transferability.data.readers import read_dataset
from transferability.errors import UserError

NAMES = [f"ISIC_{i:04d}" for i in range(12)]
FILES = [f"{name}.png" for name in NAMES]
KINDS = ["mel", "nv", "bkl"]
HALVES = {"mel": 3, "nv": 3, "bkl": 3}


def csv(*rows):
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def ham(**more):
    """As HAM10000: parts that are no classes, a table with names without ending."""
    rows = [["lesion_id", "image_id", "dx", "dx_type", "age", *more]]
    for i, name in enumerate(NAMES):
        others = [values[i] for values in more.values()]
        rows.append([f"HAM_{i // 4}", name, KINDS[i % 3], "histo", 60, *others])
    return csv(*rows)


def test_a_table_of_labels_is_read_wherever_the_images_lie(tmp_path, caplog):
    paths = [f"part_{1 + i // 6}/{name}" for i, name in enumerate(FILES)]
    root = made(tmp_path / "ham", *paths, **{"meta.csv": ham()})
    for source in (root, zipped(root), tarred(root, "gz")):
        assert counts(source, labels="meta.csv") == [HALVES, dict.fromkeys(KINDS, 1), {}]
    assert f"{root}: classes are those of column dx in meta.csv" in lines(caplog)
    found = read_dataset(config_of(root, labels="meta.csv"))
    for item in found.items:
        number = int(item.name.removesuffix(".png")[-4:])
        assert found.classes[item.label].name == KINDS[number % 3]
    outside = tmp_path / "elsewhere.csv"
    outside.write_bytes(ham())
    assert counts(root, labels=str(outside))[0] == HALVES
    packed = pack(config_of(root, tmp_path / "packed", labels="meta.csv"))
    assert packed.meta["settings"]["labels"] == "meta.csv"
    (root / "meta.csv").write_bytes(ham().replace(b"mel", b"scc"))
    with pytest.raises(UserError, match="is not what was packed"):
        pack(config_of(root, tmp_path / "packed", labels="meta.csv"))


def test_a_column_says_the_group_or_the_subset(tmp_path):
    subset = ["training", "valid", "test", "train"] * 3
    root = made(tmp_path, *FILES, **{"meta.csv": ham(split=subset)})
    by_part = read_dataset(config_of(root, labels="meta.csv"))
    for part, word in (("train", "tr"), ("val", "val"), ("test", "te")):
        numbers = [int(item.name[-8:-4]) for item in getattr(by_part, part)]
        assert numbers == [i for k in sorted(KINDS) for i in range(12)
                           if subset[i].startswith(word) and KINDS[i % 3] == k]  # fmt: skip
    root = made(tmp_path / "b", *FILES, **{"meta.csv": ham()})
    grouped = read_dataset(config_of(root, labels="meta.csv", group="lesion_id", val_fraction=0.3))
    assert {item.group for item in grouped.items} == {"HAM_0", "HAM_1", "HAM_2"}
    assert not {i.group for i in grouped.train} & {i.group for i in grouped.val}
    by_name = read_dataset(config_of(root, labels="meta.csv", group=r"(\d)[.]", val_fraction=0.3))
    assert {item.group for item in by_name.items} == set("0123456789")


def test_columns_are_found_by_their_content_or_named(tmp_path):
    rows = [[f"{i}.png", "ab"[i % 2], "xy"[i // 6], i % 2, f"note {i}"] for i in range(12)]
    head = ["picture", "kind", "camera", "kind number", "remark"]
    root = made(tmp_path, *flat("", 12), **{"t.csv": csv(head, *rows)})
    message = refusal(root, labels="t.csv")
    assert "which of kind, camera is the class? Set" in message  # of number and name the name
    for name, found in (("kind", "ab"), ("camera", "xy"), ("kind number", "01")):
        assert sorted(counts(root, labels="t.csv", columns={"class": name})[0]) == list(found)
    assert "dataset.columns: class: no is none of picture, kind," in refusal(
        root, labels="t.csv", columns={"class": "no"}
    )
    plain = csv(*[row[:2] for row in rows])  # without a row of names
    for name, text in (("u.csv", plain), ("u.txt", plain.replace(b",", b" "))):
        (root / name).write_bytes(text)
        assert counts(root, labels=name)[0] == {"a": 5, "b": 5}, name


COCO = {
    "images": [{"id": i, "file_name": f"{i}.png"} for i in range(12)],
    "annotations": [{"image_id": i, "category_id": i % 2} for i in range(12)] * 2,
    "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
}
TABLES = {
    "metadata.jsonl": b"\n".join(
        json.dumps({"file_name": f"{i}.png", "label": ["cat", "dog"][i % 2]}).encode()
        for i in range(12)
    ),
    "coco.json": json.dumps(COCO).encode(),
    "by_name.json": json.dumps({f"{i}.png": ["cat", "dog"][i % 2] for i in range(12)}).encode(),
    "_classes.csv": csv(
        ["filename", " cat", " dog"], *[[f"{i}.png", 1 - i % 2, i % 2] for i in range(12)]
    ),
    "labels.tsv": csv(["id", "breed"], *[[i, ["cat", "dog"][i % 2]] for i in range(12)]).replace(
        b",", b"\t"
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_hubs_and_tools(tmp_path, name):
    root = made(tmp_path / "one", *flat("images/", 12), **{name: TABLES[name]})
    assert counts(root, labels=name)[0] == {"cat": 5, "dog": 5}
    more = made(tmp_path / "two", *(f for p in ("train", "test") for f in flat(f"{p}/", 12)))
    for part in ("train", "test"):
        (more / part / name).write_bytes(TABLES[name])
    assert counts(more, labels=name) == [{"cat": 5, "dog": 5}, {"cat": 1, "dog": 1},
                                         {"cat": 6, "dog": 6}]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (csv(["f", "label"], ["0.png", "a|b"], ["1.png", "a"]), "0.png has 2 classes (a, b): an"),
        (csv(["f", "a", "b"], ["0.png", 1, 1], ["1.png", 0, 1]), "0.png has 2 classes (a, b): an"),
        (csv(["f", "label"], ["0.png", "a"], ["0.png", "b"]), "0.png is listed as b and as a"),
        (csv(["f", "label"], *[[f"{i}.jpg", "ab"[i % 2]] for i in range(9)]), "0.png", ),
        (csv(["f", "label"], ["x.png", "a"], ["y.png", "b"], ["0.png", "b"]), "names 2 files that"),
        (csv(["f", "label"], ["x.png", "a"]), "no column lists images of the source (f, label)"),
        (csv(["f"], ["0.png"], ["1.png"]), "it has no column of classes?"),
        (b"", "has no rows"),
        (csv(["f", "label"], ["0.png", "a"], ["1.png", "a"]), "there is only one class, a"),
    ],
)  # fmt: skip
def test_what_a_table_may_not_say(tmp_path, table, words):
    root = made(tmp_path, *flat("", 3), **{"t.csv": table})
    if words == "0.png":  # of another ending: the name alone says it
        assert counts(made(root, *flat("", 9)), labels="t.csv")[0] == {"a": 4, "b": 3}
    else:
        assert words in refusal(root, labels="t.csv")


def test_a_name_that_two_images_have_is_refused(tmp_path):
    table = csv(["f", "label"], *[[i, "ab"[i % 2]] for i in range(6)])
    root = made(tmp_path, *flat("images/", 6), *flat("masks/", 6), **{"t.csv": table})
    assert "0 is the name of images/0.png and 1 more: leave the others out" in refusal(
        root, labels="t.csv"
    )
    assert counts(root, labels="t.csv", leave_out=["masks"])[0] == {"a": 2, "b": 2}
    paths = table.replace(b"\n", b"\nimages/").removesuffix(b"images/")
    (root / "t.csv").write_bytes(paths)
    assert counts(root, labels="t.csv")[0] == {"a": 2, "b": 2}


def test_images_and_rows_without_the_other_are_counted(tmp_path, caplog):
    rows = [[i, "ab"[i % 2]] for i in range(8)] + [[99, "a"], [8, ""]]
    root = made(tmp_path, *flat("train/", 10), *flat("test/", 0), "test/x.png",
                **{"t.csv": csv(["id", "label"], *rows)})  # fmt: skip
    assert counts(root, labels="t.csv")[0] == {"a": 3, "b": 3}
    said = [line.removeprefix(str(root)) for line in lines(caplog)]
    assert ": 1 files that t.csv names are not there, the first 99" in said
    assert ": 2 images of training have no class and are left out, the first train/8.png" in said
    assert ": 1 images of test have no class and are left out, the first test/x.png" in said


def test_a_pattern_that_matches_masks_says_so(tmp_path, caplog):
    """As ``([a-z]+)_`` does: the images were twice as many, without a word."""
    images = [f"{c}_{i}{of}.png" for c in ("cat", "dog") for i in range(3) for of in ("", "_mask")]
    root = made(tmp_path / "own", *images)
    assert counts(root, pattern="([a-z]+)_")[0] == {"cat": 5, "dog": 5}
    assert lines(caplog)[0] == (
        f"{root}: 6 images have names of masks, or the like, of images beside them, the first "
        "cat_0_mask.png, and are read as images: \"dataset.leave_out=['*_mask.png']\" leaves them "
        "out"
    )
    left = counts(root, pattern="([a-z]+)_", leave_out=["*_mask.png"])[0]
    assert left == {"cat": 2, "dog": 2}
    caplog.clear()
    counts(root, pattern="([a-z]+)_", leave_out=["cat_0*"])
    wanted = "\"dataset.leave_out=['cat_0*', '*_mask.png']\" leaves them out"
    assert any(wanted in line for line in lines(caplog)), "what was left out before still is"


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("0.png,cat,train,a", "0.png,dog,train,a", "listed as dog and as cat: an image must have"),
        ("0.png,cat,train,a", "0.png,cat,test,a", "listed as test and as train: .* one subset"),
        ("0.png,cat,train,a", "0.png,cat,train,b", "listed as b and as a: .* one group"),
        ("0.png,cat,train,a", "0.png,cat,train,", "listed as nothing and as a: .* one group"),
    ],
)
def test_a_table_says_one_thing_of_an_image(tmp_path, first, second, what):
    """Of an image in training and in test rows the last row counted."""
    rows = [
        f"{i}.png,{'cat' if i % 2 else 'dog'},{'test' if i > 7 else 'train'},{i}"
        for i in range(1, 12)
    ]
    table = "\n".join(["file,label,split,patient", first, *rows, second])
    root = made(tmp_path, *(f"{i}.png" for i in range(12)), **{"t.csv": table.encode()})
    assert re.search(what, refusal(root, labels="t.csv", group="patient"))


def test_an_image_that_one_row_leaves_out_is_said_in_plain_words(tmp_path):
    """As where a sheet of all images stands beside those of training and test images."""
    rows = [f"{i}.png,{'cat' if i % 2 else 'dog'},train" for i in range(12)]
    table = "\n".join(["file,label,sheet", *rows, "0.png,dog,all"])
    root = made(tmp_path, *(f"{i}.png" for i in range(12)), **{"t.csv": table.encode()})
    said = refusal(root, labels="t.csv", columns={"subset": "sheet"})
    assert "0.png is listed as left out and as train: an image must have one subset" in said


def test_a_pattern_says_the_class(tmp_path, caplog):
    names = [f"{c}_{i}.png" for c in ("Abyssinian", "great_pug") for i in range(4)]
    root = made(tmp_path / "pets", *(f"images/{name}" for name in names))
    wanted = {"Abyssinian": 3, "great_pug": 3}
    assert counts(root, pattern=r"([^/]+)_\d+[.]")[0] == wanted
    (offer,) = offers(refusal(root))
    assert counts(root, **offer)[0] == wanted
    made(root, *(f"trimaps/{name}" for name in names))
    assert "trimaps/ is named like something that belongs to images" in refusal(root, **offer)
    (offer,) = offers(refusal(root))
    assert offer["leave_out"] == ["trimaps"] and counts(root, **offer)[0] == wanted
    cats = [f"{p}/{c}.{i}.png" for p in ("train", "val") for c in ("cat", "dog") for i in range(3)]
    root = made(tmp_path / "cats", *cats, *flat("test1/"))
    both = {"cat": 3, "dog": 3}
    assert counts(root, pattern="cat|dog") == [both, both, {}]
    assert lines(caplog)[-1].endswith(
        ": 3 images have no class and are left out, the first test1/0.png"
    )
    assert "no training image has a class" in refusal(root, pattern="cow")


def test_settings_that_do_not_fit():
    for settings, words in (
        ({"pattern": "("}, "dataset.pattern=( must be a regular expression"),
        ({"labels": "x.csv", "pattern": "y"}, "dataset.labels and dataset.pattern both define"),
        ({"columns": {"class": "x"}}, "must be null: it is for dataset.labels and"),
        (
            {"labels": "x.csv", "columns": {"klass": "x"}},
            "must be names of columns for class, file, subset",
        ),
        ({"kind": "imagenet", "labels": "x.csv"}, "it is for dataset=folder"),
    ):
        with pytest.raises(UserError) as error:
            config_of("x", **settings).check()
        assert words in str(error.value)
    assert config_of("x", labels="a.csv").labels == "a.csv"


def test_a_table_that_is_not_there(tmp_path):
    root = made(tmp_path, *classes())
    message = refusal(root, labels="no.csv")
    assert (
        f"dataset.labels=no.csv is neither a file below {root} nor one that can be read" in message
    )
    (root / "damaged.xlsx").write_bytes(b"x")
    assert "dataset.labels=damaged.xlsx cannot be read" in refusal(root, labels="damaged.xlsx")


@pytest.mark.parametrize(
    "above", ["", "photos\\", "C:\\Users\\me\\photos\\", "\\\\server\\photos\\"]
)
def test_a_table_that_was_written_on_windows_names_the_same_images(tmp_path, above):
    """With drive letters and backslashes, of a folder that is another one now."""
    paths = [f"part_{1 + i // 6}/{name}" for i, name in enumerate(FILES)]
    rows = [[above + path.replace("/", "\\"), KINDS[i % 3]] for i, path in enumerate(paths)]
    root = made(tmp_path / "photos", *paths, **{"meta.csv": csv(["file", "dx"], *rows)})
    for source in (root, zipped(root)):
        found = read_dataset(config_of(source, labels="meta.csv"))
        assert len(found.items) == len(paths)
        for item in found.items:
            number = int(item.name.removesuffix(".png")[-4:])
            assert found.classes[item.label].name == KINDS[number % 3]


def test_labelled_images_in_folders_that_look_like_subsets_are_never_mixed(tmp_path):
    paths = [f"{'train' if i < 8 else 'test'}_images/{name}" for i, name in enumerate(FILES)]
    root = made(tmp_path / "both", *paths, **{"meta.csv": ham()})
    message = refusal(root, labels="meta.csv")
    assert "test_images/, train_images/ look like subsets of a dataset" in message
    (offer,) = offers(message)
    assert offer == {"parts": {"train": "train_images", "test": "test_images"}}
    train, val, test = counts(root, labels="meta.csv", **offer)
    assert [sum(part.values()) for part in (train, val, test)] == [5, 3, 4]
    only = ham().splitlines(keepends=True)[:9]  # as competitions have it: no labels of test images
    root = made(tmp_path / "one", *paths, **{"meta.csv": b"".join(only)})
    train, val, test = counts(root, labels="meta.csv")
    assert [sum(part.values()) for part in (train, val, test)] == [5, 3, 0]
