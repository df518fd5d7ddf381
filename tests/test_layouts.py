"""Folders as people really have them: never a silent wrong dataset."""

import io
import os
import tarfile
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from transferability.config import DatasetConfig
from transferability.errors import UserError
from transferability.pack import pack
from transferability.sources import archives, open_source

FOLDER = object()


def picture(value, kind="PNG"):
    """A file of noise that ``value`` says."""
    out = io.BytesIO()
    draw = np.random.default_rng(value)
    Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(out, kind)
    return out.getvalue()


def classes(under="", count=3, names=("ant", "bee")):
    """Paths of images below class folders."""
    return [f"{under}{name}/{i}.png" for name in names for i in range(count)]


def flat(under, count=3):
    return [f"{under}{i}.png" for i in range(count)]


def made(root, *paths, **contents):
    """``root`` with a picture of its own at each path; ``contents``: path -> bytes, or FOLDER for an empty folder."""
    for value, path in enumerate([*paths, *contents]):
        data = contents.get(path, picture(value))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if data is FOLDER:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)
    return root


def config_of(source, **settings):
    return DatasetConfig(
        **{"kind": "folder", "name": "some", "folder": "unused", "image_size": 8, **settings}, source=str(source)
    )


def counts(source, **settings):
    """Of training, validation and test the number of images of each class."""
    opened = open_source(config_of(source, **settings))
    return [
        dict(Counter(opened.classes[item.label].name for item in items))
        for items in (opened.train, opened.val, opened.test)
    ]


def refusal(source, **settings):
    with pytest.raises(UserError) as error:
        open_source(config_of(source, **settings))
    assert "\n" not in str(error.value)
    return str(error.value)


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def both(count):
    return dict.fromkeys(("ant", "bee"), count)


# --- parts ---


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
        ("seg_train/seg_train", "seg_val/seg_val"),
        ("train_images", "val_images"),
        ("TrainImages", "ValImages"),
        ("train2017", "val2017"),
        ("my data train", "my data val"),
        ("trainset", "valset"),
        ("traindata", "valdata"),
        ("DATATrain", "DATAVal"),
        ("home/me/train", "home/me/val"),
    ],
)
def test_parts_are_known_by_their_names(tmp_path, train, val):
    root = made(tmp_path, *classes(f"{train}/", 4), *classes(f"{val}/", 2))
    assert counts(root) == [both(4), both(2), {}]


@pytest.mark.parametrize("test", ["test", "Test", "testing", "TEST"])
def test_a_folder_of_test_images_is_a_part_of_its_own(tmp_path, caplog, test):
    root = made(tmp_path, *classes("train/", 4), *classes("valid/", 2), *classes(f"{test}/", 3))
    assert counts(root) == [both(4), both(2), both(3)]
    assert not caplog.records


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Train", "Test"), ("training", "testing"), ("seg_train/seg_train", "seg_test/seg_test")],
)
def test_without_a_validation_folder_it_is_held_out_of_training_not_of_test(tmp_path, caplog, train, test):
    root = made(tmp_path, *classes(f"{train}/", 10), *classes(f"{test}/", 3))
    assert counts(root, val_fraction=0.2) == [both(8), both(2), both(3)]
    assert lines(caplog) == [
        f"{root} has no folder of validation images: a share of the training images is held out "
        f"(dataset.val_fraction); {test}/ is a test part, which is only reported"
    ]


@pytest.mark.parametrize(
    "below", ["test/", "test/test/", "test/unknown/", "pred/", "x_pred/", "predictions/predictions/"]
)
def test_images_without_classes_beside_validation_are_left_out_with_a_line(tmp_path, caplog, below):
    root = made(tmp_path, *classes("train/", 4), *classes("val/", 2), *flat(below))
    assert counts(root) == [both(4), both(2), {}]
    (line,) = lines(caplog)
    assert line.startswith(f"{root}: the 3 images in {below[:4]}") and line.endswith(
        " have no classes and are left out"
    )


def test_the_parts_of_the_intel_scenes(tmp_path, caplog):
    root = made(
        tmp_path, *classes("seg_train/seg_train/", 10), *classes("seg_test/seg_test/"), *flat("seg_pred/seg_pred/")
    )
    assert counts(root) == [both(9), both(1), both(3)]
    assert len(lines(caplog)) == 2


def test_images_without_classes_and_no_others_to_validate_on_are_refused(tmp_path):
    root = made(tmp_path, *classes("train/", 4), *flat("test/"))
    assert "no images in val/, valid/, validation/ or dev/ (those in test/ have no classes)" in refusal(root)
    made(tmp_path, *flat("val/"))
    assert "val/0.png lies outside a class folder" in refusal(root)


@pytest.mark.parametrize(
    ("paths", "what"),
    [
        (classes("Train/") + classes("Valid/") + flat("Extra/"), "Extra/ lies beside Train/, Valid/"),
        (classes("train/") + classes("val/") + ["preview.png"], "preview.png lies beside train/, val/"),
        (classes("a/train/") + classes("a/val/") + classes("b/"), "b/ lies beside a/train/, a/val/"),
        (classes("train/") + classes("val/") + classes("valid/"), "val/ and valid/ are both named as validation"),
        (classes("val/") + classes("test/"), "are named as parts, but there is no train/"),
        (flat("train/") + flat("test/"), "train/0.png lies outside a class folder"),
        (flat("ant/train/") + flat("ant/test/") + flat("bee/train/") + flat("bee/test/"), "parts inside other folders"),
        (classes("P/") + classes("P/P/"), "P/P/ lies beside class folders and holds folders of their names (ant, bee)"),
        (classes() + classes("augmented/"), "augmented/ lies beside class folders and holds folders of their names"),
        (flat("images/") + flat("annotations/trimaps/"), "annotations/ is named as what holds images"),
        (flat("train/images/") + flat("val/images/"), "train/images/ is named as what holds images"),
        (flat("train/") + flat("test1/"), "train/ is named as a part of a dataset"),
        (flat("train2017/") + flat("val2017/"), "train2017/0.png lies outside a class folder"),
        (classes() + flat("test/"), "test/ is named as a part of a dataset"),
        (classes() + classes("Val/"), "Val/ is named as a part of a dataset"),
        (flat("train80/") + flat("test20/"), "test20/, train80/ would be the classes"),
        (flat("1_train/") + flat("2_val/") + flat("3_test/"), "1_train/, 2_val/, 3_test/ would be the classes"),
        (classes("x/train1/") + classes("x/test2/") + classes("x/z/"), "x/test2/, x/train1/, x/z/ would be the"),
        (flat("ant/images/") + flat("ant/masks/") + flat("bee/images/"), "ant/masks/ is named as what belongs to"),
        (classes("ds/train/") + classes("ds/val/") + classes("ds/ds/train/"), "ds/ds/ lies beside ds/train/, ds/val/"),
        (flat("trainA/") + flat("trainB/") + flat("testA/") + flat("testB/"), '={train: FOLDER, val: FOLDER}"'),
    ],
)  # fmt: skip
def test_folders_that_look_like_parts_are_never_classes(tmp_path, paths, what):
    message = refusal(made(tmp_path, *paths))
    assert what in message and '"dataset.parts={}"' in message and '"dataset.parts={train: ' in message


def test_the_user_may_say_which_folders_are_which(tmp_path, caplog):
    root = made(tmp_path, *classes("Train/", 10), *classes("Test/", 2), *flat("Extra/"))
    stated = {"train": "Train", "val": "./Test/"}
    assert counts(root, parts=stated) == [both(10), both(2), {}]
    assert lines(caplog) == [f"{root}: 3 images are in no folder of dataset.parts and left out"]
    assert counts(root, parts={"train": "Train"}) == [both(9), both(1), {}]
    assert "dataset.parts: val: Tset is no folder with images in it" in refusal(
        root, parts={"train": "Train", "val": "Tset"}
    )
    assert "the folder of val lies in that of train" in refusal(root, parts={"train": "Train", "val": "Train/ant"})
    for wrong in ({"val": "Test"}, {"train": "Train", "dev": "Test"}, {"train": ["Train", "Test"]}):
        with pytest.raises(UserError, match=r"dataset.parts=.* is not possible"):
            config_of(root, parts=wrong).check()


def test_a_test_folder_taken_for_validation_is_the_pack_it_was(tmp_path):
    """As it was read before there were test parts, and as ``dataset.parts`` still reads it."""
    root = made(tmp_path / "old", *classes("train/", 5), *classes("test/", 2))
    packed = pack(config_of(root, folder=str(tmp_path / "packed"), parts={"train": "train", "val": "test"}))
    (root / "test").rename(root / "val")
    assert pack(config_of(root, folder=str(tmp_path / "again"))).checksum == packed.checksum
    assert packed.n_test == 0 and "parts" not in packed.meta["settings"]


def test_what_a_test_folder_may_not_be(tmp_path):
    root = made(tmp_path, *classes("train/", 5, ("ant", "bee", "cat")), *classes("val/", 1, ("ant", "bee", "cat")))
    made(root, *classes("test/"))
    with pytest.raises(UserError, match=r"class 'cat' of .* has no test images: add some, or leave it out"):
        pack(config_of(root, folder=str(tmp_path / "packed")))
    assert "dataset.test_fraction=0.2, but " in refusal(root, test_fraction=0.2)
    made(root, *classes("test/", names=("dog",)))
    assert "class 'dog' has test images but no training images" in refusal(root)


def test_the_user_may_say_that_all_folders_are_classes(tmp_path):
    root = made(tmp_path, *flat("train/", 4), *flat("test/", 4))
    assert counts(root, parts={}) == [{"train": 3, "test": 3}, {"train": 1, "test": 1}, {}]


def test_a_picture_beside_the_classes_is_refused_wherever_it_lies(tmp_path):
    for i, below in enumerate(("", "ds/", "home/ds/")):
        root = made(tmp_path / str(i), *classes(below), f"{below}preview.png")
        assert f"{below}preview.png lies outside a class folder: images belong in CLASS/IMAGE" in refusal(root)


@pytest.mark.parametrize(
    ("names", "fine"),
    [
        (("steam train", "test tube", "validation stamp", "photo"), True),
        (("strain", "contest", "valley"), True),
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
        assert "look the same, but are written with different Unicode characters or spaces" in refusal(root)


def test_what_may_be_meant_otherwise_is_told(tmp_path, caplog):
    root = made(tmp_path / "folds", *classes("fold1/"), *classes("fold2/"))
    assert counts(root) == [{"fold1": 5, "fold2": 5}, {"fold1": 1, "fold2": 1}, {}]
    root = made(tmp_path / "flowers", *flat("jpg/"))
    assert counts(root) == [{"jpg": 2}, {"jpg": 1}, {}]
    assert [line.partition(": ")[2] for line in lines(caplog)] == [
        "all class folders hold folders of the same names (ant, bee ...): the classes are fold1, fold2 ..., the upper "
        "ones",
        "there is one class only, jpg: a task needs at least two",
    ]


# --- datasets as they are published ---

WNID = "n01443537"
PUBLISHED = {
    "tiny_imagenet": [f"t/train/{WNID}/images/0.JPEG", "t/val/images/0.JPEG", "t/test/images/1.JPEG", "t/wnids.txt"],
    "imagenet": [f"ILSVRC/Data/CLS-LOC/train/{WNID}/0.JPEG", "ILSVRC/Data/CLS-LOC/val/0.JPEG"],
    "cifar10": [f"cifar-10-batches-py/{name}" for name in ("data_batch_1", "test_batch", "batches.meta")],
    "cifar100": [f"cifar-100-python/{name}" for name in ("train", "test", "meta")],
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_dataset_given_as_a_folder_names_its_own_configuration(tmp_path, kind):
    paths = PUBLISHED[kind]
    contents = {path: b"\x80" for path in paths if not path.endswith(".JPEG")}
    root = made(tmp_path, *(path for path in paths if path not in contents), **contents)
    assert refusal(root).endswith(f"these look like the files of {kind}: set dataset={kind}")


# --- what the system puts there ---

SYSTEM = [
    *("ant/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir/x/y.jpg", "#recycle/x.jpg", "$RECYCLE.BIN/S-1/x.jpg"),
    *("__MACOSX/ant/x.jpg", "bee/__MACOSX/x.jpg", ".ipynb_checkpoints/x.png", "ant/.ipynb_checkpoints/0.png"),
    *("System Volume Information/x.jpg", "lost+found/x.jpg", "ant/Thumbs.db", "bee/desktop.ini", "ant/._0.png"),
]


@pytest.mark.parametrize("way", ["folder", "zip", "tar"])
def test_what_the_system_put_there_is_left_out_at_every_depth(tmp_path, caplog, way):
    plain = counts(made(tmp_path / "plain", *classes(count=6)))
    root = made(tmp_path / "own", *classes(count=6), *SYSTEM)
    source = {"folder": lambda: root, "zip": lambda: zipped(root), "tar": lambda: tarred(root)}[way]()
    assert counts(source) == plain
    (line,) = lines(caplog)
    assert line.startswith(f"{source}: 13 files and folders that the system or an editor put there are left out (")
    assert "2 @eaDir" in line and "2 __MACOSX" in line


def test_what_the_system_put_there_is_left_out_inside_parts(tmp_path):
    root = made(
        tmp_path, *classes("train/", 4), *classes("val/", 2), *SYSTEM, "train/@eaDir/x.jpg", "val/ant/@eaDir/y.jpg"
    )
    (root / "ant").rename(root / ".ant")
    (root / "bee").rename(root / ".bee")
    assert counts(root) == [both(4), both(2), {}]


# --- images by what they contain ---


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        *((".gif", "GIF"), (".jpe", "JPEG"), (".jfif", "JPEG"), (".jpg_large", "JPEG"), (".avif", "AVIF")),
        *(("", "JPEG"), ("", "PNG"), ("", "BMP"), ("", "GIF"), (".dat", "WEBP"), (".jpg~", "TIFF"), (".1", "PPM")),
        (".x", "JPEG2000"),
    ],
)
def test_images_are_known_by_what_they_contain(tmp_path, ending, kind):
    cats = {f"cat/{i}{ending}": picture(100 + i, kind) for i in range(3)}
    root = made(tmp_path / "own", *classes(), **cats)
    packed = pack(config_of(root, folder=str(tmp_path / "packed")))
    assert Counter(packed.labels.tolist()) == {0: 3, 1: 3, 2: 3}


def test_other_files_are_counted_and_texts_are_not_opened(tmp_path, caplog, monkeypatch):
    others = {"ant/x.pkl": b"\x80", "ant/LICENSE": b"free", "bee/x.pkl": b"\x80", "bee/x.txt": b"\xff\xd8\xff"}
    root = made(tmp_path, *classes(), **others)
    assert counts(root) == [both(2), both(1), {}]
    assert lines(caplog) == [f"{root}: 3 other files (2 *.pkl, 1 *) are no images and left out"]


HEIF = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def test_images_that_cannot_be_decoded_are_errors_or_counted_a_class_at_a_time(tmp_path, caplog):
    photos = {"ant/x": HEIF, "ant/y.heif": HEIF, "bee/z.HEIC": HEIF}
    root = made(tmp_path / "own", *classes("train/"), *classes("val/"), **{f"train/{p}": d for p, d in photos.items()})
    with pytest.raises(UserError, match=r"ant/x is not supported \(HEIF: convert it to PNG or JPEG\)"):
        pack(config_of(root, folder=str(tmp_path / "packed")))
    packed = pack(config_of(root, folder=str(tmp_path / "packed"), on_error="skip"))
    assert len(packed.labels) == 12 and len(packed.meta["skipped"]) == 3
    assert "skipped 3 corrupt images (2 of class ant, 1 of class bee); the first: " in caplog.text


def test_a_class_that_is_left_with_nothing_is_an_error_with_its_reason(tmp_path):
    folder = str(tmp_path / "packed")
    cats = {f"cat/{i}.heif": HEIF for i in range(4)}
    root = made(tmp_path / "heif", *classes(), **cats)
    with pytest.raises(
        UserError,
        match=r"'cat' .* no training images: the 3 it had are left out, the first .*cat/..heif is not supported .HEIF",
    ):
        pack(config_of(root, folder=folder, on_error="skip"))
    root = made(tmp_path / "pages", *classes(), **{f"cat/{i}": b"<html>" for i in range(4)})
    assert f"class cat has no images ({root}/cat: its 4 files are none, the first is cat/0): add some" in refusal(root)
    root = made(tmp_path / "nothing", *classes(), cat=FOLDER)
    assert f"class cat has no images ({root}/cat: it is empty): add some, or take the folder away" in refusal(root)
    assert "class cat has no images" in refusal(zipped(root))
    root = made(tmp_path / "parts", *classes("train/"), *classes("val/"), **{"train/cat": FOLDER})
    assert "class cat has no images" in refusal(root)


@pytest.mark.parametrize("name", ["cat", "train/cat", "val", "dev.d"])
def test_a_link_in_place_of_a_class_or_a_part_that_leads_nowhere_is_an_error(tmp_path, name):
    under = "train/" if name == "train/cat" else ""
    root = made(tmp_path / "own", *classes(under), *(classes("val/") if under else []))
    (root / name).symlink_to("/nowhere/at all")
    message = f"{name} is a link that is not followed or leads nowhere: put there what it points to, or take it away"
    assert message in refusal(root)
    for archive in (tarred(root), linked(root)):
        assert message in refusal(archive)


# --- archives ---


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


def zipped(root, into=None):
    with zipfile.ZipFile(into or root.with_suffix(".zip"), "w") as out:
        for path in sorted(root.rglob("*")):
            out.write(path, path.relative_to(root))
    return into or root.with_suffix(".zip")


def tarred(root, kind="", below="."):
    path = root.with_suffix(f".tar.{kind}" if kind else ".tar")
    with tarfile.open(path, f"w:{kind}") as out:
        out.add(root, below)
    return path


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("below", [".", "flowers"])
def test_a_tar_file_is_read_as_a_folder_is(tmp_path, kind, below):
    root = made(tmp_path / "own", *classes(count=4), **{"ant/" + "long" * 40 + ".png": picture(99)})
    plain = pack(config_of(root, folder=str(tmp_path / "plain")))
    archive = tarred(root, kind, below)
    packed = pack(config_of(archive, folder=str(tmp_path / "packed")), 3)
    assert packed.checksum == plain.checksum
    assert pack(config_of(archive, folder=str(tmp_path / "packed"))).checksum == plain.checksum


def added(path, *entries):
    """A tar file of two classes and of ``entries``, (TarInfo, data)."""
    with tarfile.open(path, "w") as out:
        for value, name in enumerate(classes()):
            data = picture(value)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        for info, data in entries:
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def entry(name, **fields):
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("name", ["../evil.jpg", "ant/../../evil.jpg", "/abs.jpg", "c:/evil.jpg"])
def test_a_tar_file_whose_names_lead_outside_is_refused(tmp_path, name):
    archive = added(tmp_path / "t.tar", (entry(name), picture(9)))
    assert f"the entry {name} points outside it" in refusal(archive)


def test_links_in_a_tar_file(tmp_path, caplog):
    hard = entry("bee/again.png", type=tarfile.LNKTYPE, linkname="ant/0.png")
    soft = entry("bee/soft.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    folder = entry("ant/more", type=tarfile.SYMTYPE, linkname="../bee")
    archive = added(tmp_path / "t.tar", (hard, b""), (soft, b""), (folder, b""))
    source = open_source(config_of(archive))
    assert lines(caplog)[0] == f"{archive}: the symbolic link ant/more is left out: archive what it points to"
    items = {item.name: item for item in source.train + source.val}
    assert np.array_equal(items[f"{archive}/bee/again.png"].load(), items[f"{archive}/ant/0.png"].load())
    with pytest.raises(OSError, match="a symbolic link or no file in a tar file; archive what it points to"):
        items[f"{archive}/bee/soft.png"].load()


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7])
def test_a_tar_file_that_is_cut_off_is_refused(tmp_path, kind, keep):
    archive = tarred(made(tmp_path / "own", *classes(count=8)), kind)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(keep * len(data))])
    message = refusal(archive)
    assert "neither a folder nor a zip or tar file, or the file is cut off" in message or "cannot be read" in message


def test_a_tar_file_that_ends_between_two_files_or_is_damaged_there_is_refused(tmp_path):
    archive = added(tmp_path / "t.tar")
    data = archive.read_bytes()
    with tarfile.open(archive) as opened:
        last = opened.getmembers()[-1].offset
    for damaged in (data[:last], data[:last] + b"\xff" * 512 + data[last + 512 :]):
        archive.write_bytes(damaged)
        assert "or the file is cut off" in refusal(archive)


def test_a_file_in_a_tar_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 16)
    source = open_source(config_of(added(tmp_path / "t.tar", (entry("ant/x.png"), bytes(100_000)))))
    (item,) = (item for item in source.train + source.val if item.name.endswith("x.png"))
    with pytest.raises(OSError, match="100,000 bytes, one image may have 65,536"):
        item.load()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.zip", "b.tar.gz"], "but archives: a.zip and 1 more; unpack them, or give one as dataset.source"),
        (["a.pkl", "b.pkl", "notes"], "but 3 other files (2 *.pkl, 1 *)"),
        ([], "and no files"),
    ],
)
def test_a_source_without_images_says_what_it_has(tmp_path, names, message):
    (tmp_path / "own").mkdir()
    root = made(tmp_path / "own", **dict.fromkeys(names, b"PK"))
    assert refusal(root) == f"dataset.source={root} has no images in it, {message}"


def test_an_archive_in_an_archive_is_to_be_unpacked(tmp_path):
    root = made(tmp_path / "own", **{"n01440764.tar": b"x"})
    for archive in (zipped(root), tarred(root)):
        assert refusal(archive).endswith("but archives: n01440764.tar; unpack all of it and give the folder")
