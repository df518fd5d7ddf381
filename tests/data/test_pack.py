"""Packing: the packed format, once and whole, squashing, and what is refused."""

import shutil
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from tests.helpers import SIDE, coded, config_of, make_source, own_folder, packing_refusal, write
from transferability.data.config import DatasetConfig
from transferability.data.description import FORMAT
from transferability.data.pack import pack
from transferability.data.packed import open_dataset
from transferability.data.transforms import resize_and_crop
from transferability.errors import UserError

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
        pack(config_of(source, tmp_path / name, seed=seed))
        for name, seed in (("one", 0), ("again", 0), ("other", 1))
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
    checksums = {
        pack(config_of(s, tmp_path / f"packed-{i}")).checksum for i, s in enumerate(sources)
    }
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


def test_packs_without_a_test_part_are_what_they_were(tmp_path):
    """Checksums, and what the description holds, of packs made before there were test images."""
    plain = pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    assert plain.checksum == "583d2f7a84225e290f27b5f4d9b5ecf4ed24a4aa1889f46f5bfc54e0621c392a"
    held_out = pack(
        config_of(own_folder(tmp_path / "own"), tmp_path / "held-out", val_fraction=0.3, seed=5)
    )
    assert held_out.checksum == "ac7186f98be419a83edce9617f2cf3166870ddafd3d0a656318298d44527dfa0"
    assert held_out.n_test == 0 and held_out.test_rows([0, 1]).tolist() == []
    settings = ["kind", "name", "image_size", "resize", "val_fraction", "seed", "grammar"]
    assert list(plain.meta["settings"]) == settings
    ends = ["image_size", "n_train", "n_val", "classes", "skipped", "part_checksums", "checksum"]
    assert list(plain.meta) == [
        "format",
        "name",
        "settings",
        "source",
        "source_files",
        "opencv",
        *ends,
    ]


# --- once, and whole ---


def test_packing_again_rewrites_nothing_and_needs_no_source(tmp_path):
    source = make_source(tmp_path / "source")
    config = config_of(source, tmp_path / "packed")
    first = pack(config)

    def stamps():
        return {
            p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (tmp_path / "packed").iterdir()
        }

    before = stamps()
    assert before.keys() == {"images.npy", "labels.npy", "dataset.json"}
    shutil.rmtree(source)
    again = pack(config)
    assert stamps() == before
    assert again.checksum == first.checksum and np.array_equal(again.images, first.images)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", 5),
        ("seed", 1),
        ("resize", "linear"),
        ("val_fraction", 0.5),
        ("name", "other"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(tmp_path, key, value):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    checksum = pack(config_of(source, tmp_path / "packed")).checksum
    message = packing_refusal(config_of(source, tmp_path / "packed", **{key: value}))
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
    message = packing_refusal(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    assert "is not a packed dataset" in message
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
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        write(tmp_path / "source" / folder / "x.png", image)
    packed = pack(
        config_of(tmp_path / "source", tmp_path / "packed", resize=resize, image_size=size)
    )
    expected = cv2.resize(image, (size, size), interpolation=interpolation)
    assert all(np.array_equal(row, expected) for row in packed.images)


@pytest.mark.parametrize(("height", "width"), [(10, 25), (25, 10), (10, 10), (11, 24)])
def test_cropping_keeps_the_aspect_ratio_and_the_middle(tmp_path, height, width):
    """A picture whose colors say where they are: what is kept is the largest square
    in its middle, which is torchvision's.
    """
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([10 * rows, 10 * columns, 0 * rows], axis=-1).astype(np.uint8)
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        write(tmp_path / "source" / folder / "x.png", image)
    side = min(height, width)
    packed = pack(config_of(tmp_path / "source", tmp_path / "packed", image_size=side, fit="crop"))
    middle = np.asarray(transforms.CenterCrop(side)(Image.fromarray(image)))
    assert middle.shape == (side, side, 3) and np.array_equal(packed.images[0], middle)
    with pytest.raises(UserError, match="packed with other settings"):
        pack(config_of(tmp_path / "source", tmp_path / "packed", image_size=side))


@pytest.mark.parametrize("size", [6, 13, 40])
@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
def test_cropping_is_torchvisions(tmp_path, resize, size):
    image = np.random.default_rng(0).integers(0, 256, (31, 44, 3), dtype=np.uint8)
    wanted = transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode(resize)),
            transforms.CenterCrop(size),
        ]
    )
    found = resize_and_crop(image, size, resize, "crop")
    assert np.array_equal(found, np.asarray(wanted(Image.fromarray(image))))


def test_resizing_squashes_the_whole_image(tmp_path):
    image = np.zeros((8, 32, 3), np.uint8)  # four stripes; cropping the middle would show two
    for stripe in range(4):
        image[:, 8 * stripe : 8 * stripe + 8] = 60 * stripe
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        write(tmp_path / "source" / folder / "x.png", image)
    packed = pack(config_of(tmp_path / "source", tmp_path / "packed", image_size=4, resize="area"))
    assert packed.images[0, :, :, 0].tolist() == [[0, 60, 120, 180]] * 4


# --- sources that are refused ---


@pytest.mark.parametrize(("subset", "word"), [("train", "training"), ("val", "validation")])
def test_an_empty_class_is_named(tmp_path, subset, word):
    source = make_source(tmp_path / "source")
    shutil.rmtree(source / subset / "bee")
    message = packing_refusal(config_of(source, tmp_path / "packed"))
    assert "'bee'" in message and f"no {word} images" in message


def test_a_class_with_one_image_cannot_be_held_out_from(tmp_path):
    for name, count in (("ant", 4), ("bee", 1)):
        for i in range(count):
            write(tmp_path / "source" / name / f"{i}.png", coded(0, 0, i))
    message = packing_refusal(config_of(tmp_path / "source", tmp_path / "packed"))
    assert "'bee'" in message and "no training images" in message


def test_a_source_that_is_none_is_one_clear_line(tmp_path):
    assert "does not exist" in packing_refusal(config_of(tmp_path / "absent", tmp_path / "packed"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    assert "has no images" in packing_refusal(config_of(tmp_path / "empty", tmp_path / "packed"))
    (tmp_path / "no.zip").write_text("not a zip")
    assert "neither a folder nor a zip" in packing_refusal(
        config_of(tmp_path / "no.zip", tmp_path / "packed")
    )
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "has no images" in packing_refusal(
        config_of(tmp_path / "empty.zip", tmp_path / "packed")
    )
    unset = DatasetConfig("folder", "some", str(tmp_path / "packed"), SIDE)
    assert "dataset.source is not set" in packing_refusal(unset)


def test_a_disk_without_room_is_named_before_anything_is_packed(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    message = packing_refusal(config_of(source, tmp_path / "packed", image_size=10_000_000))
    assert f"{tmp_path} has " in message and "GB free, the images need 2700000.0" in message


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    (tmp_path / "file").write_text("")
    for folder, message in (
        (tmp_path / "file" / "packed", "File exists"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(UserError, match=f"cannot be written: .*{message}") as error:
            pack(config_of(source, folder))
        assert "\n" not in str(error.value)
    assert {p.name for p in tmp_path.iterdir()} == {"source", "file"}
