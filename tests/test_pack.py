import json
import os
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from transferability.config import DatasetConfig
from transferability.datasets import FORMAT, open_dataset
from transferability.errors import UserError
from transferability.pack import pack

SIDE = 6


def write(path, image):
    """An RGB or grey array as a file whose name says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def coded(label, subset, i):
    """An image that says what it is: class, subset and number in the three channels."""
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    image[:] = (10 + 40 * label, 100 * subset, i)
    return image


def make_source(root, n_train=7, n_val=3, classes=("ant", "bee", "cat"), backwards=False):
    """train/CLASS/I.png and val/CLASS/I.png."""
    todo = [
        (root / name / c / f"{i}.png", coded(label, subset, i))
        for subset, (name, count) in enumerate((("train", n_train), ("val", n_val)))
        for label, c in enumerate(classes)
        for i in range(count)
    ]
    for path, image in reversed(todo) if backwards else todo:
        write(path, image)
    return root


def config_of(source, folder, **settings):
    settings = {"kind": "folder", "name": "some", "image_size": SIDE, **settings}
    return DatasetConfig(source=str(source), folder=str(folder), **settings)


def refusal(config):
    """The one line with which packing is refused, leaving nothing behind."""
    before = set(Path(config.folder).parent.iterdir())
    with pytest.raises(UserError) as error:
        pack(config)
    folder = Path(config.folder)
    assert set(folder.parent.iterdir()) - before <= {folder.with_name(f".{folder.name}.lock")}
    assert "\n" not in str(error.value)
    return str(error.value)


# --- the packed format ---


def test_rows_are_shuffled_training_first_and_labels_fit_the_images(tmp_path):
    packed = pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    assert packed.images.shape == (30, SIDE, SIDE, 3) and packed.images.dtype == np.uint8
    assert packed.labels.shape == (30,) and packed.labels.dtype == np.int64
    assert packed.n_train == 21 and packed.meta["n_val"] == 9
    assert [c.name for c in packed.classes] == ["ant", "bee", "cat"]
    assert (packed.images == packed.images[:, :1, :1]).all()
    label, subset, number = packed.images[:, 0, 0].astype(int).T
    assert packed.labels.tolist() == ((label - 10) / 40).tolist()
    assert subset.tolist() == [0] * 21 + [100] * 9
    for rows, count in ((slice(0, 21), 7), (slice(21, 30), 3)):
        pairs = list(zip(packed.labels[rows].tolist(), number[rows].tolist(), strict=True))
        assert sorted(pairs) == [(c, i) for c in range(3) for i in range(count)]
        assert pairs != sorted(pairs)
    assert packed.meta["skipped"] == {} and packed.meta["format"] == FORMAT


def test_the_order_is_a_function_of_the_seed(tmp_path):
    source = make_source(tmp_path / "source")
    one, again, other = (
        pack(config_of(source, tmp_path / name, seed=seed)) for name, seed in (("one", 0), ("again", 0), ("other", 1))
    )
    assert np.array_equal(one.images, again.images) and one.checksum == again.checksum
    assert not np.array_equal(one.images, other.images) and one.checksum != other.checksum
    assert sorted(i.tobytes() for i in one.images) == sorted(i.tobytes() for i in other.images)


def test_the_order_of_files_on_the_disk_does_not_matter(tmp_path):
    forward = make_source(tmp_path / "forward")
    backward = make_source(tmp_path / "backward", backwards=True)
    archives = []
    for name, backwards in (("forward.zip", False), ("backward.zip", True)):
        archives.append(tmp_path / name)
        files = sorted(p for p in forward.rglob("*") if p.is_file())
        with zipfile.ZipFile(archives[-1], "w") as archive:
            for path in reversed(files) if backwards else files:
                archive.write(path, path.relative_to(forward))
    sources = [forward, backward, *archives]
    checksums = {pack(config_of(s, tmp_path / f"packed-{i}")).checksum for i, s in enumerate(sources)}
    assert len(checksums) == 1


def test_the_checksum_sees_one_pixel_and_one_class_name(tmp_path):
    source = make_source(tmp_path / "source")
    first = pack(config_of(source, tmp_path / "first")).checksum
    image = coded(1, 1, 2)
    image[5, 4, 0] += 1
    write(source / "val" / "bee" / "2.png", image)
    second = pack(config_of(source, tmp_path / "second")).checksum
    for subset in ("train", "val"):
        (source / subset / "bee").rename(source / subset / "bug")
    third = pack(config_of(source, tmp_path / "third")).checksum
    assert len({first, second, third}) == 3


def test_the_checksum_sees_the_labels(tmp_path):
    def packed(name, ants):
        for c, count in (("ant", ants), ("bee", 4 - ants)):
            for subset in ("train", "val"):
                for i in range(count):
                    write(tmp_path / name / subset / c / f"{i}.png", coded(0, 0, 0))
        return pack(config_of(tmp_path / name, tmp_path / f"packed-{name}"))

    one, other = packed("one", 1), packed("other", 3)
    assert np.array_equal(one.images, other.images) and one.classes == other.classes
    assert one.checksum != other.checksum


# --- once, and whole ---


def test_packing_again_rewrites_nothing_and_needs_no_source(tmp_path):
    source = make_source(tmp_path / "source")
    config = config_of(source, tmp_path / "packed")
    first = pack(config)

    def stamps():
        return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (tmp_path / "packed").iterdir()}

    before = stamps()
    assert before.keys() == {"images.npy", "labels.npy", "dataset.json"}
    shutil.rmtree(source)
    again = pack(config)
    assert stamps() == before
    assert again.checksum == first.checksum and np.array_equal(again.images, first.images)


@pytest.mark.parametrize(
    ("key", "value"),
    [("image_size", 5), ("seed", 1), ("resize", "linear"), ("val_fraction", 0.5), ("name", "other")],
)
def test_other_settings_in_the_same_folder_are_refused(tmp_path, key, value):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    checksum = pack(config_of(source, tmp_path / "packed")).checksum
    message = refusal(config_of(source, tmp_path / "packed", **{key: value}))
    assert f"({key})" in message and str(tmp_path / "packed") in message
    assert open_dataset(str(tmp_path / "packed")).checksum == checksum


def test_what_a_crash_left_behind_is_removed(tmp_path):
    source = make_source(tmp_path / "source")
    partial = tmp_path / ".packed.partial"
    partial.mkdir()
    for name in ("images.npy", "dataset.json", "junk"):
        (partial / name).write_text("half of it")
    packed = pack(config_of(source, tmp_path / "packed"))
    assert not partial.exists()
    assert {p.name for p in packed.folder.iterdir()} == {"images.npy", "labels.npy", "dataset.json"}
    assert packed.checksum == pack(config_of(source, tmp_path / "clean")).checksum


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "thesis.txt").write_text("three years")
    message = refusal(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    assert "is no packed dataset" in message
    assert (tmp_path / "packed" / "thesis.txt").read_text() == "three years"


def test_a_deleted_dataset_is_packed_anew_in_the_same_process(tmp_path):
    source = make_source(tmp_path / "source")
    old = pack(config_of(source, tmp_path / "packed")).checksum
    shutil.rmtree(tmp_path / "packed")
    write(source / "val" / "bee" / "2.png", coded(1, 1, 77))
    new = pack(config_of(source, tmp_path / "packed"))
    assert new.checksum != old
    assert (new.images[:, 0, 0, 2] == 77).sum() == 1
    assert open_dataset(str(tmp_path / "packed")).checksum == new.checksum


# --- corrupt and odd images ---


def encoded(ending, image):
    return cv2.imencode(ending, image)[1].tobytes()


def noise(side=48):
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


CORRUPT = {
    "half-a-jpeg.jpg": encoded(".jpg", noise())[:-1500],
    "jpeg-without-its-end.jpg": encoded(".jpg", noise())[:-2],
    "half-a-png.png": encoded(".png", noise())[:-3000],
    "empty.jpg": b"",
    "text.jpg": b"<html>404 Not Found</html>\n",
}


@pytest.mark.parametrize("name", CORRUPT)
@pytest.mark.parametrize("where", ["train", "val"])
def test_a_corrupt_image_stops_packing_or_is_left_out(tmp_path, name, where):
    source = make_source(tmp_path / "source")
    without = pack(config_of(source, tmp_path / "without"))
    path = source / where / "bee" / name
    path.write_bytes(CORRUPT[name])
    message = refusal(config_of(source, tmp_path / "failed"))
    assert str(path) in message and "on_error=skip" in message
    packed = pack(config_of(source, tmp_path / "skipped", on_error="skip"))
    assert list(packed.meta["skipped"]) == [str(path)] and packed.meta["skipped"][str(path)]
    assert packed.meta["n_train"] == 21 and packed.meta["n_val"] == 9
    assert packed.checksum == without.checksum


def test_a_corrupt_member_of_a_zip_file_is_a_corrupt_image(tmp_path):
    source = make_source(tmp_path / "source")
    without = pack(config_of(source, tmp_path / "without"))
    write(source / "train" / "ant" / "bad.png", noise())
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(source))
        info = archive.getinfo("train/ant/bad.png")
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[info.header_offset + 500] ^= 255
    (tmp_path / "z.zip").write_bytes(data)
    assert "train/ant/bad.png is corrupt" in refusal(config_of(tmp_path / "z.zip", tmp_path / "failed"))
    packed = pack(config_of(tmp_path / "z.zip", tmp_path / "skipped", on_error="skip"))
    assert packed.checksum == without.checksum and len(packed.meta["skipped"]) == 1


def test_a_class_of_corrupt_images_only_is_refused(tmp_path):
    source = make_source(tmp_path / "source", n_val=1)
    (source / "val" / "bee" / "0.png").write_bytes(b"")
    message = refusal(config_of(source, tmp_path / "packed", on_error="skip"))
    assert "'bee'" in message and "no validation images" in message


def test_every_common_kind_of_image_packs(tmp_path):
    colour, side = (200, 60, 30), 12
    plain = np.full((side, side, 3), colour, np.uint8)
    rgb = Image.fromarray(plain)
    classes = tmp_path / "source" / "train"
    saved = {
        "grey": (Image.new("L", (side, side), 90), "x.jpg", "JPEG", (90, 90, 90)),
        "palette": (rgb.convert("P", palette=Image.Palette.ADAPTIVE), "x.png", "PNG", colour),
        "rgba": (
            Image.merge("RGBA", [*rgb.split(), Image.new("L", (side, side), 255)]),
            "x.png",
            "PNG",
            colour,
        ),
        "bilevel": (Image.new("1", (side, side), 1), "x.png", "PNG", (255, 255, 255)),
        "cmyk": (rgb.convert("CMYK"), "x.JPEG", "JPEG", colour),
        "renamed": (rgb, "x.JPEG", "PNG", colour),
        "progressive": (rgb, "x.jpeg", "JPEG", colour),
        "shouting": (rgb, "X.BMP", "BMP", colour),
        "sixteen": (
            Image.fromarray(np.full((side, side), 90 * 256 + 7, np.uint16)),
            "x.png",
            "PNG",
            (90,) * 3,
        ),
    }
    for name, (image, file, kind, _) in saved.items():
        (classes / name).mkdir(parents=True)
        image.save(classes / name / file, kind, **({"progressive": True} if name == "progressive" else {}))
    shutil.copytree(classes, tmp_path / "source" / "val")
    packed = pack(config_of(tmp_path / "source", tmp_path / "packed"))
    assert [c.name for c in packed.classes] == sorted(saved)
    for label, name in enumerate(sorted(saved)):
        (row,) = packed.train_rows([label])
        off = np.abs(packed.images[row].astype(int) - saved[name][3]).max()
        assert off <= 4, name  # JPEG and CMYK round


def test_the_rotation_tag_of_a_camera_is_ignored(tmp_path):
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[: SIDE // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees"
    for subset in ("train", "val"):
        (tmp_path / "source" / subset / "a").mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "source" / subset / "a" / "x.jpg", exif=exif, quality=95)
    packed = pack(config_of(tmp_path / "source", tmp_path / "packed"))
    assert packed.images[0, 0].min() > 200 and packed.images[0, -1].max() < 55


# --- squashing ---


@pytest.mark.parametrize(
    ("resize", "size", "interpolation"),
    [
        ("linear", 16, cv2.INTER_LINEAR),
        ("area", 16, cv2.INTER_AREA),
        ("linear", 64, cv2.INTER_LINEAR),
        ("area", 64, cv2.INTER_LINEAR),  # averaging over areas is for shrinking
    ],
)
def test_resizing_is_opencvs(tmp_path, resize, size, interpolation):
    image = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    for subset in ("train", "val"):
        write(tmp_path / "source" / subset / "a" / "x.png", image)
    packed = pack(config_of(tmp_path / "source", tmp_path / "packed", resize=resize, image_size=size))
    expected = cv2.resize(image, (size, size), interpolation=interpolation)
    assert np.array_equal(packed.images[0], expected) and np.array_equal(packed.images[1], expected)


def test_resizing_squashes_the_whole_image(tmp_path):
    image = np.zeros((8, 32, 3), np.uint8)  # four stripes; cropping the middle would show two
    for stripe in range(4):
        image[:, 8 * stripe : 8 * stripe + 8] = 60 * stripe
    for subset in ("train", "val"):
        write(tmp_path / "source" / subset / "a" / "x.png", image)
    packed = pack(config_of(tmp_path / "source", tmp_path / "packed", image_size=4, resize="area"))
    assert packed.images[0, :, :, 0].tolist() == [[0, 60, 120, 180]] * 4


# --- sources that are refused ---


@pytest.mark.parametrize(("subset", "word"), [("train", "training"), ("val", "validation")])
def test_an_empty_class_is_named(tmp_path, subset, word):
    source = make_source(tmp_path / "source")
    shutil.rmtree(source / subset / "bee")
    message = refusal(config_of(source, tmp_path / "packed"))
    assert "'bee'" in message and f"no {word} images" in message


def test_a_class_with_one_image_cannot_be_held_out_from(tmp_path):
    for name, count in (("ant", 4), ("bee", 1)):
        for i in range(count):
            write(tmp_path / "source" / name / f"{i}.png", coded(0, 0, i))
    message = refusal(config_of(tmp_path / "source", tmp_path / "packed"))
    assert "'bee'" in message and "no training images" in message


def test_a_source_that_is_none_is_one_clear_line(tmp_path):
    assert "does not exist" in refusal(config_of(tmp_path / "absent", tmp_path / "packed"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    assert "has no images" in refusal(config_of(tmp_path / "empty", tmp_path / "packed"))
    (tmp_path / "no.zip").write_text("not a zip")
    assert "neither a folder nor a zip" in refusal(config_of(tmp_path / "no.zip", tmp_path / "packed"))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "has no images" in refusal(config_of(tmp_path / "empty.zip", tmp_path / "packed"))
    unset = DatasetConfig("folder", "some", str(tmp_path / "packed"), SIDE)
    assert "dataset.source is not set" in refusal(unset)


# --- the opened dataset ---


def made(folder, images, labels, n_train):
    """A packed dataset of given rows."""
    folder.mkdir()
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    description = {
        "format": FORMAT,
        "name": "made",
        "settings": {},
        "image_size": images.shape[1],
        "n_train": n_train,
        "n_val": len(images) - n_train,
        "classes": [{"name": f"c{i}", "wnid": None, "group": None} for i in range(labels.max() + 1)],
        "skipped": {},
        "checksum": "none",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return open_dataset(str(folder))


@pytest.fixture
def rows(tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (2600, 4, 4, 3), dtype=np.uint8)
    return made(tmp_path / "rows", images, draw.integers(0, 5, 2600), 2000)


def test_rows_of_classes_are_in_file_order(rows):
    for classes in ([0], [3, 1], [0, 1, 2, 3, 4]):
        expected = [i for i in range(2600) if rows.labels[i] in classes]
        assert rows.train_rows(classes).tolist() == [i for i in expected if i < 2000]
        assert rows.val_rows(classes).tolist() == [i for i in expected if i >= 2000]
    assert np.array_equal(rows.read_rows(np.array([7, 3])), rows.images[[7, 3]])


def test_images_per_class_takes_the_first_of_each_class(rows):
    found = rows.train_rows([4, 2], 9)
    expected = [i for c in (2, 4) for i in [i for i in range(2000) if rows.labels[i] == c][:9]]
    assert found.tolist() == sorted(expected)
    more = rows.train_rows([4, 2], 10)
    assert len(more) == 20 and set(found) < set(more)
    count = int((rows.labels[:2000] == 2).sum())
    assert (rows.labels[rows.train_rows([2], count)] == 2).sum() == count
    with pytest.raises(UserError, match=rf"images_per_class={count + 1}, but class 'c2' .* {count} "):
        rows.train_rows([2], count + 1)


def test_the_mean_image_is_exact(rows):
    some = rows.train_rows([0, 1, 2, 3])  # more than the 1024 rows that are summed at once
    assert len(some) > 1024
    mean = rows.mean_image(some)
    assert mean.shape == (4, 4, 3) and mean.dtype == np.float32
    assert np.array_equal(mean, np.array(rows.images)[some].mean(axis=0, dtype=np.float64).astype(np.float32))
    assert np.array_equal(mean, rows.mean_image(np.random.default_rng(1).permutation(some)))
    assert not np.array_equal(mean, rows.mean_image(some[:-1]))


def test_a_folder_that_holds_no_dataset_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no packed dataset in .*experiments\.pack"):
        open_dataset(str(tmp_path / "absent"))
    images, labels = np.zeros((6, 4, 4, 3), np.uint8), np.zeros(6, int)
    made(tmp_path / "cut", images, labels, 4)
    np.save(tmp_path / "cut" / "images.npy", images[:5])
    open_dataset.cache_clear()
    with pytest.raises(UserError, match=r"images.npy is \(5, 4, 4, 3\)"):
        open_dataset(str(tmp_path / "cut"))


# --- real files ---


def real(name):
    path = Path(os.environ.get("TRANSFERABILITY_TEST_DATA", "absent")) / name
    if not path.exists():
        pytest.skip(f"TRANSFERABILITY_TEST_DATA has no {name}")
    return path


def test_a_hundred_images_of_imagenet_pack(tmp_path):
    with zipfile.ZipFile(real("ilsvrc-sample-100.zip")) as archive:
        archive.extractall(tmp_path)
    (train,) = tmp_path.rglob("train")
    shutil.copytree(train, train.with_name("val"))
    config = config_of(train.parent, tmp_path / "packed", kind="imagenet", image_size=256, resize="linear")
    packed = pack(config)
    files = {p.parent.name: p for p in train.rglob("*.JPEG")}
    assert len(files) == 100
    assert packed.images.shape == (200, 256, 256, 3) and packed.n_train == 100
    assert packed.meta["skipped"] == {}
    assert [c.wnid for c in packed.classes] == sorted(files)
    assert {c.group for c in packed.classes} == {"natural", "man-made"}
    shapes = set()
    for label, wnid in enumerate(sorted(files)):
        image = cv2.imread(str(files[wnid]), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        shapes.add(image.shape)
        squashed = cv2.resize(image, (256, 256), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        for row in (*packed.train_rows([label]), *packed.val_rows([label])):
            assert np.array_equal(packed.images[row], squashed), files[wnid]
    assert len(shapes) > 10  # squashed from many shapes
