"""Folders as people really have them: never a silent wrong dataset."""

import os
import zipfile

import pytest

from tests.helpers import (
    FOLDER,
    HEIF,
    both,
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
from transferability.errors import UserError

# --- subsets ---


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "val"),
        ("train", "valid"),
        ("train", "validation"),
        ("train", "dev"),
        ("training", "validation"),
        ("Train", "Valid"),
        ("TRAIN", "VAL"),
        ("seg_train/seg_train", "dev"),
        ("training_set/training_set", "val"),
        ("home/me/train", "home/me/val"),
    ],
)
def test_parts_are_known_by_their_names(tmp_path, train, val):
    root = made(tmp_path, *classes(f"{train}/", 4), *classes(f"{val}/", 2))
    assert counts(root) == [both(4), both(2), {}]


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train_images", "val_images"),
        ("TrainImages", "ValImages"),
        ("train2017", "val2017"),
        ("my data train", "my data val"),
        ("trainset", "valset"),
        ("traindata", "valdata"),
        ("DATATrain", "DATAVal"),
        ("train", "val_images"),
        ("Training images", "Validation"),
        ("1_train", "2_val"),
        ("mine", "mine_val"),
        ("xtrain", "xval"),
    ],
)
@pytest.mark.parametrize("deep", [True, False])
def test_parts_of_other_names_are_offered_and_never_guessed(tmp_path, train, val, deep):
    """Nor are they classes."""
    if deep:
        root = made(tmp_path, *classes(f"{train}/", 4), *classes(f"{val}/", 2))
        (first, *_) = offers(refusal(root))
        assert counts(root, **first) == [both(4), both(2), {}]
    else:
        message = refusal(made(tmp_path, *flat(f"{train}/", 4), *flat(f"{val}/", 2)))
        assert f"{train}/" in message or f"{val}/" in message


@pytest.mark.parametrize("odd", ["test_images", "Test Set", "testdata", "val2", "train_imgs"])
def test_one_folder_beside_classes_that_looks_like_a_part_is_refused(tmp_path, odd):
    message = refusal(made(tmp_path, *classes(), *flat(f"{odd}/")))
    assert f"{odd}/ would be a class, but looks like a subset of a dataset" in message
    (offer,) = offers(message)
    assert counts(tmp_path, **offer)[0].keys() == {"ant", "bee"}


@pytest.mark.parametrize("test", ["test", "Test", "testing", "TEST", "eval", "Evaluation"])
def test_a_folder_of_test_images_is_a_part_of_its_own(tmp_path, caplog, test):
    root = made(tmp_path, *classes("train/", 4), *classes("valid/", 2), *classes(f"{test}/", 3))
    assert counts(root) == [both(4), both(2), both(3)]
    assert not caplog.records


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("training", "testing"),
        ("train", "eval"),
        ("seg_train/seg_train", "seg_test/seg_test"),
    ],
)
def test_without_a_validation_folder_it_is_held_out_of_training_not_of_test(
    tmp_path, caplog, train, test
):
    root = made(tmp_path, *classes(f"{train}/", 10), *classes(f"{test}/", 3))
    assert counts(root, val_fraction=0.2) == [both(8), both(2), both(3)]
    assert lines(caplog) == [
        f"{root} has no folder of validation images: a share of the training images is held out "
        f"(dataset.val_fraction); {test}/ holds test images, which are only reported"
    ]


@pytest.mark.parametrize(
    "below",
    ["test/", "test/test/", "test/unknown/", "pred/", "seg_pred/", "predictions/predictions/"],
)
def test_images_without_classes_beside_validation_are_left_out_with_a_line(tmp_path, caplog, below):
    root = made(tmp_path, *classes("train/", 4), *classes("val/", 2), *flat(below))
    assert counts(root) == [both(4), both(2), {}]
    (line,) = lines(caplog)
    assert line.startswith(f"{root}: the 3 images in {below[:4]}") and line.endswith(
        " have no classes and are left out"
    )


@pytest.mark.parametrize("pred", ["pred", "predictions"])
def test_predictions_in_class_folders_are_left_out_with_a_line_as_well(tmp_path, caplog, pred):
    root = made(tmp_path, *classes("train/", 4), *classes("val/", 2), *classes(f"{pred}/"))
    assert counts(root) == [both(4), both(2), {}]
    (line,) = lines(caplog)
    assert line == f"{root}: the 6 images in {pred}/ are predictions by its name and are left out"
    (root / "val").rename(root / "test")
    assert counts(root) == [both(3), both(1), both(2)]
    assert line in lines(caplog)


def test_the_parts_of_the_intel_scenes(tmp_path, caplog):
    root = made(
        tmp_path,
        *classes("seg_train/seg_train/", 10),
        *classes("seg_test/seg_test/"),
        *flat("seg_pred/seg_pred/"),
    )
    assert counts(root) == [both(9), both(1), both(3)]
    assert len(lines(caplog)) == 2


def test_images_without_classes_and_no_others_to_validate_on_are_refused(tmp_path):
    root = made(tmp_path, *classes("train/", 4), *flat("test/"))
    assert (
        "no images in val/, valid/, validation/ or dev/ (those in test/ have no classes)"
        in refusal(root)
    )
    made(tmp_path, *flat("val/"))
    assert "val/0.png lies outside a class folder" in refusal(root)


@pytest.mark.parametrize(
    ("paths", "what"),
    [
        (
            classes("Train/") + classes("Valid/") + flat("Extra/"),
            "Extra/ lies beside Train/, Valid/",
        ),
        (
            classes("train/") + classes("val/") + ["preview.png"],
            "preview.png lies beside train/, val/",
        ),
        (
            classes("a/train/") + classes("a/val/") + classes("b/"),
            "b/ lies beside a/train/, a/val/",
        ),
        (
            classes("train/") + classes("val/") + classes("valid/"),
            "val/ and valid/ are both named like validation",
        ),
        (classes("val/") + classes("test/"), "are named like subsets, but there is no train/"),
        (flat("train/") + flat("test/"), "train/0.png lies outside a class folder"),
        (
            flat("ant/train/") + flat("ant/test/") + flat("bee/train/") + flat("bee/test/"),
            "subsets inside other folders",
        ),
        (
            classes("P/") + classes("P/P/"),
            "P/P/ lies beside class folders and contains folders with their names (ant, bee)",
        ),
        (
            classes() + classes("augmented/"),
            "augmented/ lies beside class folders and contains folders with their names",
        ),
        (
            flat("images/") + flat("annotations/trimaps/"),
            "annotations/trimaps/ is named like something that belongs to images",
        ),
        (
            flat("train/images/") + flat("val/images/"),
            "train/images/ is named like something that contains images",
        ),
        (flat("train/") + flat("test1/"), "train/ is named like a subset of a dataset"),
        (flat("train2017/") + flat("val2017/"), "train2017/, val2017/ would be the classes"),
        (classes() + flat("test/"), "test/ is named like a subset of a dataset"),
        (classes() + classes("Val/"), "Val/ is named like a subset of a dataset"),
        (flat("train80/") + flat("test20/"), "test20/, train80/ would be the classes"),
        (flat("train_set/") + flat("eval_set/"), "eval_set/, train_set/ would be the classes"),
        (
            classes("train/") + classes("test/") + classes("eval/"),
            "eval/ and test/ are both named like test images",
        ),
        (
            flat("1_train/") + flat("2_val/") + flat("3_test/"),
            "1_train/, 2_val/, 3_test/ would be the classes",
        ),
        (
            classes("x/train1/") + classes("x/test2/") + classes("x/z/"),
            "x/test2/, x/train1/, x/z/ would be the",
        ),
        (
            flat("ant/images/") + flat("ant/masks/") + flat("bee/images/"),
            "ant/masks/ is named like something that belongs to",
        ),
        (
            classes("ds/train/") + classes("ds/val/") + classes("ds/ds/train/"),
            "ds/ds/ lies beside ds/train/, ds/val/",
        ),
        (
            flat("trainA/") + flat("trainB/") + flat("testA/") + flat("testB/"),
            "testA/, testB/, trainA/ would be the classes",
        ),
        (
            flat("b/train/good/")
            + classes("b/test/", names=("good", "bad"))
            + flat("b/truth/bad/"),
            "b/truth/ lies beside b/test/, b/train/ and is not a subset; sort",
        ),
        (
            flat("train_set/imgs/") + classes("val_set/"),
            "train_set/, val_set/ would be the classes, but look like subsets of a dataset; sort",
        ),
        (flat("a_train/") + classes("a_val/"), "a_train/, a_val/ would be the classes"),
        (classes("a_train/") + flat("a_val/x/"), "a_train/, a_val/ would be the classes"),
    ],
)
def test_folders_that_look_like_parts_are_never_classes(tmp_path, paths, what):
    root = made(tmp_path, *paths)
    message = refusal(root)
    assert what in message
    for offer in offers(message):
        assert len(counts(root, **offer)[0]) > 1, offer


def test_the_user_may_say_which_folders_are_which(tmp_path, caplog):
    root = made(tmp_path, *classes("Train/", 10), *classes("Test/", 2), *flat("Extra/"))
    stated = {"train": "Train", "val": "./Test/"}
    assert counts(root, parts=stated) == [both(10), both(2), {}]
    assert lines(caplog) == [f"{root}: 3 images are in no folder of dataset.parts and are left out"]
    assert counts(root, parts={"train": "Train"}) == [both(9), both(1), {}]
    assert "dataset.parts: val: Tset is not a folder with images in it" in refusal(
        root, parts={"train": "Train", "val": "Tset"}
    )
    assert "the folder of val lies inside that of train" in refusal(
        root, parts={"train": "Train", "val": "Train/ant"}
    )
    for wrong in ({"val": "Test"}, {"train": "Train", "dev": "Test"}, {"train": ["Train", "Test"]}):
        with pytest.raises(UserError, match=r"dataset.parts=.* must be"):
            config_of(root, parts=wrong).check()


def test_a_test_folder_taken_for_validation_is_the_pack_it_was(tmp_path):
    """As it was read before there were test images, and as ``dataset.parts`` still reads it."""
    root = made(tmp_path / "old", *classes("train/", 5), *classes("test/", 2))
    packed = pack(
        config_of(root, folder=str(tmp_path / "packed"), parts={"train": "train", "val": "test"})
    )
    (root / "test").rename(root / "val")
    assert pack(config_of(root, folder=str(tmp_path / "again"))).checksum == packed.checksum
    assert packed.n_test == 0 and "parts" not in packed.meta["settings"]


def test_what_a_test_folder_may_not_be(tmp_path):
    root = made(
        tmp_path,
        *classes("train/", 5, ("ant", "bee", "cat")),
        *classes("val/", 1, ("ant", "bee", "cat")),
    )
    made(root, *classes("test/"))
    with pytest.raises(
        UserError, match=r"no test images of class 'cat' in .*: add some, or leave it out"
    ):
        pack(config_of(root, folder=str(tmp_path / "packed")))
    made(root, *classes("test/", names=("dog",)))
    assert "class 'dog' has test images but no training images" in refusal(root)


def test_the_user_may_say_that_all_folders_are_classes(tmp_path):
    root = made(tmp_path, *flat("train/", 4), *flat("test/", 4))
    assert counts(root, parts={}) == [{"train": 3, "test": 3}, {"train": 1, "test": 1}, {}]


# --- classes ---


def test_a_picture_beside_the_classes_is_refused_wherever_it_lies(tmp_path):
    for i, below in enumerate(("", "ds/", "home/ds/")):
        root = made(tmp_path / str(i), *classes(below), f"{below}preview.png")
        assert f": {below}preview.png lies outside a class folder; sort" in refusal(root)


@pytest.mark.parametrize(
    ("names", "fine"),
    [
        (("steam train", "test tube", "validation stamp", "photo"), True),
        (("strain", "contest", "valley"), True),
        (("medieval", "retrieval", "evaluator"), True),
        (("true", "false", "007", "1e3", "NA"), True),
        (("Cat", "cat"), True),
        (("ant", "ant "), False),
        (("big cat", "big\u00a0cat"), False),
        (("bee", "bee\u200b"), False),
    ],
)
def test_names_of_classes_may_be_odd_but_not_look_the_same(tmp_path, names, fine):
    root = made(tmp_path, *classes("train/", names=names), *classes("val/", 1, names=names))
    if fine:
        assert counts(root) == [dict.fromkeys(names, 3), dict.fromkeys(names, 1), {}]
    else:
        assert (
            "look the same, but are written with different Unicode characters or spaces"
            in refusal(root)
        )


def test_a_single_class_is_an_error_that_names_the_table_beside_it(tmp_path):
    root = made(tmp_path / "flowers", *flat("jpg/"))
    what = "there is only one class, jpg, and a task needs at least two"
    assert f": {what}; sort the images into folders" in refusal(root)
    table = "imagelabels.mat may list their classes"
    (root / "imagelabels.mat").write_bytes(b"MATLAB")
    assert f": {what} ({table}); sort" in refusal(root)
    parts = made(tmp_path / "parts", *flat("train/ant/"), *flat("val/ant/"))
    assert "there is only one class, ant," in refusal(parts)
    assert "there is only one class, ant," in refusal(parts, parts={"train": "train"})


@pytest.mark.parametrize("folder", ["", "train/"])
def test_images_without_class_folders_name_the_table_that_names_them(tmp_path, folder):
    root = made(tmp_path, *flat(folder, 4))
    (root / "sizes.csv").write_text("0,12\n1,13\n")
    assert "may list their classes" not in refusal(root)
    (root / "breeds.csv").write_text("id,breed\n0.png,pug\n1.png,boxer\n2.png,pug\n3.png,pug\n")
    message = refusal(root)
    assert " (breeds.csv may list their classes)" in message
    (offer,) = offers(message)
    assert offer == {"labels": "breeds.csv"}


def test_a_class_that_is_left_with_nothing_is_an_error_with_its_reason(tmp_path):
    folder = str(tmp_path / "packed")
    cats = {f"cat/{i}.heif": HEIF for i in range(4)}
    root = made(tmp_path / "heif", *classes(), **cats)
    with pytest.raises(
        UserError,
        match=(
            r"no training images of class 'cat' .*: the 3 it had are left out, "
            r"the first .*cat/..heif is not supported .HEIF"
        ),
    ):
        pack(config_of(root, folder=folder, on_error="skip"))
    root = made(tmp_path / "pages", *classes(), **{f"cat/{i}": b"<html>" for i in range(4)})
    assert (
        f"class cat has no images ({root}/cat: its 4 files are not images, the first is cat/0): add"
        in refusal(root)
    )
    root = made(tmp_path / "nothing", *classes(), cat=FOLDER)
    assert (
        f"class cat has no images ({root}/cat: it is empty): add some, or remove the folder"
        in refusal(root)
    )
    assert "class cat has no images" in refusal(zipped(root))
    root = made(tmp_path / "parts", *classes("train/"), *classes("val/"), **{"train/cat": FOLDER})
    assert "class cat has no images" in refusal(root)


def linked(root):
    """A zip file that has the links as links (``zip -y``)."""
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as out:
        for path in sorted(root.rglob("*")):
            info = zipfile.ZipInfo(str(path.relative_to(root)))
            if path.is_symlink():
                info.create_system, info.external_attr = 3, 0o120777 << 16
                out.writestr(info, os.readlink(path))
            elif path.is_file():
                out.writestr(info, path.read_bytes())
    return root.with_suffix(".zip")


@pytest.mark.parametrize("name", ["cat", "train/cat", "val", "dev.d"])
def test_a_link_in_place_of_a_class_or_a_part_that_leads_nowhere_is_an_error(tmp_path, name):
    under = "train/" if name == "train/cat" else ""
    root = made(tmp_path / "own", *classes(under), *(classes("val/") if under else []))
    (root / name).symlink_to("/nowhere/at all")
    message = (
        f"{name} is a link that is not followed or leads nowhere: "
        "replace it with what it points to, or remove it"
    )
    assert message in refusal(root)
    for archive in (tarred(root), linked(root)):
        assert message in refusal(archive)


@pytest.mark.parametrize("lists", [("meta/test.json", "meta/train.txt"), ("train_test_split.txt",)])
def test_files_that_list_an_official_split_are_named(tmp_path, caplog, lists):
    root = made(tmp_path, *classes("images/"), "images/ant/x.png")
    counts(root)
    assert lines(caplog) == []
    made(root, **dict.fromkeys(lists, b"ant/0\n"))
    counts(root)
    more = " and 1 more" * (len(lists) - 1)
    assert lines(caplog) == [
        f"{root}: {lists[0]}{more} may list an official split, which is not read: a share of each "
        "class is held out"
    ]
