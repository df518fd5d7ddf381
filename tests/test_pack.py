import io
import json
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import experiments.pack
from tests import crash
from tests.conftest import SHRUNK, shrunk
from transferability import pack as packing
from transferability.config import DatasetConfig
from transferability.datasets import FORMAT, open_dataset, verify
from transferability.errors import UserError
from transferability.pack import open_packed, pack

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


def rows_without(source, folder, path):
    """Images and labels as packed where ``path`` is a (white) image, without the row of that image."""
    path.unlink(missing_ok=True)
    write(path, np.full((SIDE, SIDE, 3), 255, np.uint8))
    whole = pack(config_of(source, folder))
    others = whole.images[:, 0, 0, 0] < 250
    assert others.sum() == len(others) - 1
    return whole.images[others].tolist(), whole.labels[others].tolist()


@pytest.mark.parametrize("name", CORRUPT)
@pytest.mark.parametrize("where", ["train", "val"])
def test_a_corrupt_image_stops_packing_or_is_left_out(tmp_path, name, where):
    source = make_source(tmp_path / "source")
    path = source / where / "bee" / name
    path.write_bytes(CORRUPT[name])
    message = refusal(config_of(source, tmp_path / "failed"))
    assert str(path) in message and "on_error=skip" in message
    packed = pack(config_of(source, tmp_path / "skipped", on_error="skip"))
    assert list(packed.meta["skipped"]) == [str(path)] and packed.meta["skipped"][str(path)]
    assert packed.meta["n_train"] == 21 and packed.meta["n_val"] == 9
    assert (packed.images.tolist(), packed.labels.tolist()) == rows_without(source, tmp_path / "mended", path)
    verify(packed)


def test_a_corrupt_member_of_a_zip_file_is_a_corrupt_image(tmp_path):
    source = make_source(tmp_path / "source")
    write(source / "train" / "ant" / "bad.png", noise())
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(source))
        info = archive.getinfo("train/ant/bad.png")
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[info.header_offset + 500] ^= 255
    (tmp_path / "z.zip").write_bytes(data)
    assert "train/ant/bad.png cannot be read (zip: Bad CRC" in refusal(
        config_of(tmp_path / "z.zip", tmp_path / "failed")
    )
    packed = pack(config_of(tmp_path / "z.zip", tmp_path / "skipped", on_error="skip"))
    expected = rows_without(source, tmp_path / "mended", source / "train" / "ant" / "bad.png")
    assert (packed.images.tolist(), packed.labels.tolist()) == expected and len(packed.meta["skipped"]) == 1


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


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def animated(kind, **options):
    first, second = (Image.new("RGB", (12, 12), colour) for colour in ((200, 60, 30), (0, 0, 250)))
    return saved(first, kind, save_all=True, append_images=[second], duration=50, **options)


def see_through(kind, **options):
    """One colour, half of it transparent."""
    image = Image.new("RGBA", (12, 12), (200, 60, 30, 255))
    image.paste((200, 60, 30, 0), (0, 0, 6, 12))
    return saved(image, kind, **options)


@pytest.mark.parametrize(
    "data",
    [
        animated("GIF"),
        animated("WEBP", lossless=True),
        animated("PNG"),
        see_through("PNG"),
        see_through("WEBP", lossless=True, exact=True),
        cv2.imencode(".png", np.full((12, 12, 3), (30 * 256, 60 * 256, 200 * 256 + 255), np.uint16))[1].tobytes(),
    ],
    ids=["gif", "webp", "apng", "png with alpha", "webp with alpha", "16 bits a channel"],
)
def test_an_animation_is_its_first_frame_and_transparency_is_dropped(tmp_path, data):
    for subset in ("train", "val"):
        (tmp_path / "source" / subset / "a").mkdir(parents=True)
        (tmp_path / "source" / subset / "a" / "x.png").write_bytes(data)
    packed = pack(config_of(tmp_path / "source", tmp_path / "packed"))
    assert np.abs(packed.images.astype(int) - (200, 60, 30)).max() <= 1


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "PPM", "GIF", "JPEG2000", "AVIF"])
def test_half_an_image_of_any_kind_is_corrupt(tmp_path, kind):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    data = saved(Image.fromarray(noise()), kind)
    (source / "train" / "bee" / "x.jpg").write_bytes(data[: len(data) // 2])
    assert "bee/x.jpg is corrupt (" in refusal(config_of(source, tmp_path / "packed"))


def png_that_claims(width, height):
    """A PNG of a hundred bytes, whole but for its pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


BOMBS = """
import resource, sys
from transferability.sources.decoding import decode
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for path in sys.argv[1:]:
    try: decode(open(path, "rb").read())
    except ValueError as error: print(error)
print(peak() - before)
"""


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest undoes our own filter
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    sizes = [(60000, 60000), (20000, 20000), (10000, 9000)]  # 2^30 pixels is OpenCV's own limit, 2^27.4 Pillow's
    paths = [source / "train" / "bee" / f"{width}.png" for width, _ in sizes]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(png_that_claims(*size))
        assert path.stat().st_size < 150
    done = subprocess.run([sys.executable, "-c", BOMBS, *paths], capture_output=True, text=True, check=True)
    *lines, grown = done.stdout.splitlines()
    assert lines == ["it claims more than 89,478,485 pixels"] * 3 and not done.stderr
    assert int(grown) < 60, "MiB"
    assert ".png is corrupt (it claims more than 89,478,485 pixels): mend or remove it" in refusal(
        config_of(source, tmp_path / "failed")
    )
    packed = pack(config_of(source, tmp_path / "skipped", on_error="skip"))
    assert set(packed.meta["skipped"]) == set(map(str, paths))


def test_a_file_too_large_for_an_image_is_not_read(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    with open(source / "train" / "bee" / "disk.bmp", "wb") as file:
        file.truncate(10 << 40)  # sparse: it takes no room, until somebody reads it
    message = refusal(config_of(source, tmp_path / "packed"))
    assert "bee/disk.bmp cannot be read (10,995,116,277,760 bytes, one image may have 268,435,456)" in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("nowhere.jpg"), "No such file or directory"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (os.mkfifo, "a pipe, folder or device"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe, folder or device"),
    ],
    ids=["dangling link", "link to itself", "pipe", "device"],
)
def test_what_is_named_as_an_image_and_is_no_file(tmp_path, make, message):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    path = source / "train" / "bee" / "x.jpg"
    make(path)
    assert f"{path} cannot be read ({message}" in refusal(config_of(source, tmp_path / "failed"))
    packed = pack(config_of(source, tmp_path / "skipped", on_error="skip"))
    assert list(packed.meta["skipped"]) == [str(path)]
    assert (packed.images.tolist(), packed.labels.tolist()) == rows_without(source, tmp_path / "mended", path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_named(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    (source / "train" / "bee" / "0.png").chmod(0)
    assert "bee/0.png cannot be read (Permission denied)" in refusal(config_of(source, tmp_path / "packed"))
    (source / "train" / "ant").chmod(0)
    try:
        assert "train/ant cannot be read: Permission denied" in refusal(config_of(source, tmp_path / "packed"))
    finally:
        (source / "train" / "ant").chmod(0o755)


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


def test_a_disk_without_room_is_named_before_anything_is_packed(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    message = refusal(config_of(source, tmp_path / "packed", image_size=10_000_000))
    assert f"{tmp_path} has " in message and "GB free, the images need 2700000.0" in message


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    (tmp_path / "file").write_text("")
    for folder, message in ((tmp_path / "file" / "packed", "File exists"), (tmp_path / ("x" * 300), "too long")):
        with pytest.raises(UserError, match=f"cannot be written: .*{message}") as error:
            pack(config_of(source, folder))
        assert "\n" not in str(error.value)
    assert {p.name for p in tmp_path.iterdir()} == {"source", "file"}


# --- a source that changes after it was packed ---


def gained(source):
    write(source / "train" / "bee" / "new.png", coded(1, 0, 99))


def lost(source):
    (source / "train" / "bee" / "0.png").unlink()


def renamed(source):
    (source / "train" / "bee" / "0.png").rename(source / "train" / "bee" / "zero.png")


def moved(source):
    (source / "train" / "bee" / "0.png").rename(source / "train" / "ant" / "x.png")


def edited(source):
    (source / "train" / "bee" / "0.png").write_bytes((source / "val" / "bee" / "0.png").read_bytes() + b"more")


def emptied(source):
    shutil.rmtree(source / "train")
    shutil.rmtree(source / "val")


CHANGES = {
    gained: r"\(9 images of \d+ bytes then, 10 images of \d+ bytes now\)",
    lost: r"\(9 images of \d+ bytes then, 8 images of \d+ bytes now\)",
    renamed: r"\(9 images of \d+ bytes, of other names or sizes, or in other parts \(see dataset.parts\)\)",
    moved: r"\(9 images of \d+ bytes, of other names or sizes, or in other parts \(see dataset.parts\)\)",
    edited: r"\(9 images of \d+ bytes then, 9 images of \d+ bytes now\)",
    emptied: r"has no images in it",
}


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_packing_again_notices_a_source_that_changed(tmp_path, change, zipped):
    root = make_source(tmp_path / "source", n_train=2, n_val=1)

    def source():
        if not zipped:
            return root
        shutil.make_archive(str(tmp_path / "z"), "zip", root)
        return tmp_path / "z.zip"

    config = config_of(source(), tmp_path / "packed")
    checksum = pack(config).checksum
    assert pack(config).checksum == checksum
    (root / "notes.txt").write_text("no image")
    source()
    assert pack(config).checksum == checksum
    change(root)
    source()
    with pytest.raises(UserError, match=CHANGES[change]) as error:
        pack(config)
    message = str(error.value)
    assert "\n" not in message and message.startswith(f"dataset.source={config.source} is not what was packed into")
    assert "delete that folder to pack again, or set dataset.name" in message
    assert open_packed(config).checksum == checksum, "training goes on with what was packed"


def test_a_source_may_be_spelled_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of(make_source(tmp_path / "source", n_train=2, n_val=1), tmp_path / "packed")
    checksum = pack(config).checksum
    make_source(tmp_path / "other", n_train=2, n_val=1)
    for spelled in ("source", "./source/", "other/../source"):
        assert open_packed(replace(config, source=spelled)).checksum == checksum
    with pytest.raises(UserError, match=r"was packed from .*/source, not from dataset.source=other"):
        open_packed(replace(config, source="other"))


def test_a_dataset_packed_before_sources_were_recorded_is_still_good(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    config = config_of(source, tmp_path / "packed")
    checksum = pack(config).checksum
    described(tmp_path / "packed", lambda d: d.pop("source_files") and d.pop("part_checksums"))
    gained(source)
    assert pack(config).checksum == checksum
    verify(tmp_path / "packed")


# --- stopped and continued ---

ENCODINGS = ("raw", "jpeg")


@pytest.fixture
def often(monkeypatch):
    """Points from which packing can go on, after every fourth image."""
    monkeypatch.setattr(packing, "PIECE", 2)
    monkeypatch.setattr(packing, "SAFE", 4)


def stopped(source, folder, **settings):
    """Packing that a corrupt image stops near its end; its progress and the settings to go on with."""
    (source / "train" / "ant" / "0.png").write_bytes(b"")  # lies in row 20 of 30
    with pytest.raises(UserError, match="on_error=skip"):
        pack(config_of(source, folder, **settings))
    progress = json.loads((folder.with_name(f".{folder.name}.partial") / "progress.json").read_text())
    assert not folder.exists() and 4 <= progress["items"] < 30
    return progress, config_of(source, folder, on_error="skip", **settings)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_packing_goes_on_after_the_last_safe_row_to_the_same_bytes(tmp_path, often, caplog, encoding):
    caplog.set_level("INFO")
    source, folder = make_source(tmp_path / "source"), tmp_path / "packed"
    progress, config = stopped(source, folder, encoding=encoding)
    config, partial = replace(config, source=f"{config.source}/"), tmp_path / ".packed.partial"
    for name, size in progress["sizes"].items():
        with open(partial / name, "ab") as file:
            file.write(bytes(9999))  # what came after the safe point
        assert (partial / name).stat().st_size > size
    (partial / ".labels.npy.0123.tmp").write_text("left by a process that was killed")
    pack(config)
    assert f"goes on after {progress['items']} images" in caplog.text
    assert not partial.exists()
    pack(replace(config, folder=str(tmp_path / "whole")))
    assert contents(folder) == contents(tmp_path / "whole")
    assert contents(folder).keys() == {*progress["sizes"], "labels.npy", "dataset.json"} - {"hashes.npy"}
    verify(folder)


@pytest.mark.parametrize("change", ["seed", "encoding", "source", "cut", "opencv"])
def test_a_partial_pack_of_something_else_is_not_continued(tmp_path, often, caplog, change):
    caplog.set_level("INFO")
    source, folder, partial = make_source(tmp_path / "source"), tmp_path / "packed", tmp_path / ".packed.partial"
    progress, config = stopped(source, folder)
    if change == "seed":
        config = replace(config, seed=1)
    elif change == "encoding":
        config = replace(config, encoding="jpeg")
    elif change == "source":
        write(source / "train" / "ant" / "0.png", coded(0, 0, 0))
    elif change == "cut":
        os.truncate(partial / "images.npy", progress["sizes"]["images.npy"] - 1)
    else:
        (partial / "progress.json").write_text(json.dumps({**progress, "opencv": "4.0"}))
    pack(config)
    assert "goes on" not in caplog.text and not partial.exists()
    pack(replace(config, folder=str(tmp_path / "whole")))
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_pack_that_only_lacks_its_last_renaming_gets_it(tmp_path, often):
    source, folder = make_source(tmp_path / "source"), tmp_path / "packed"
    pack(config_of(source, folder))
    whole, stamp = contents(folder), (folder / "images.npy").stat().st_mtime_ns
    partial = folder.rename(tmp_path / ".packed.partial")
    (partial / "progress.json").write_text("{}")
    pack(config_of(source, folder))
    assert contents(folder) == whole and (folder / "images.npy").stat().st_mtime_ns == stamp


MANY = [*SHRUNK, "dataset.grammar.train_per_class=1300"]  # 10,440 images: two safe points


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The bytes of the many images, packed undisturbed."""
    return contents(pack(shrunk(tmp_path_factory.mktemp("many"), *MANY[len(SHRUNK) :]).dataset).folder)


@pytest.mark.parametrize("way", ["SIGKILL", "SIGINT", "full disk"])
def test_a_packing_process_that_ends_early_is_continued_by_the_same_command(tmp_path, many, way):
    log, data = tmp_path / "log", tmp_path / "data"
    log.touch()
    command = ["experiments.pack", [*MANY, *crash.places(tmp_path)], log]
    room = {"RLIMIT_FSIZE": 6000 * 16 * 16 * 3} if way == "full disk" else {}
    wanted = {"SIGKILL": -9, "SIGINT": 130, "full disk": 2}[way]
    for _ in range(5):  # on a busy machine it may be done before the signal comes
        shutil.rmtree(data, ignore_errors=True)
        process = crash.start(*command, limits=room)
        if way != "full disk":
            deadline = time.monotonic() + 200
            while not (data / ".procedural.partial" / "progress.json").exists():
                assert process.is_alive() and time.monotonic() < deadline, log.read_text()
                time.sleep(0.005)
            os.kill(process.pid, getattr(signal, way))
        process.join(200)
        if process.exitcode == wanted:
            break
    assert process.exitcode == wanted, log.read_text()
    assert not (data / "procedural").exists()
    if way == "full disk":
        assert "cannot be written: File too large; make room and give the same command" in log.read_text()
    process = crash.start(*command)
    process.join(200)
    assert process.exitcode == 0, log.read_text()
    assert re.search(r"packing procedural goes on after (4,0|8,1)\d\d images", log.read_text())
    assert contents(data / "procedural") == many
    assert {p.name for p in data.iterdir()} == {"procedural", ".procedural.lock"}


def test_what_is_written_already_counts_as_room(tmp_path, often, monkeypatch):
    source, folder = make_source(tmp_path / "source"), tmp_path / "packed"
    progress, config = stopped(source, folder)
    left = 30 * SIDE * SIDE * 3 - sum(p.stat().st_size for p in (tmp_path / ".packed.partial").iterdir())
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=left - 1))
    with pytest.raises(UserError, match="GB free, the images need"):
        pack(config)
    assert json.loads((tmp_path / ".packed.partial" / "progress.json").read_text()) == progress
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=left))
    assert len(pack(config).labels) == 29


def test_without_a_terminal_lines_tell_rate_and_time_left(tmp_path, often, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(packing, "LOG_SECONDS", 0)
    pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    lines = [r.getMessage() for r in caplog.records]
    counts = [
        int(re.search(r"packing some: +\d+% (\d+)/30 \[\d\d:\d\d<\d\d:\d\d, .*img.*\]", line)[1]) for line in lines
    ]
    assert counts == [*range(2, 31, 2)]


@pytest.mark.parametrize("workers", [1, 5])
def test_the_number_of_threads_does_not_matter(tmp_path, often, workers):
    source = make_source(tmp_path / "source", n_train=40)
    one = pack(config_of(source, tmp_path / "one"), workers)
    assert one.checksum == pack(config_of(source, tmp_path / "packed"), 3).checksum


# --- the opened dataset ---


def described(folder, change):
    """dataset.json, changed in place."""
    path = folder / "dataset.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))
    open_dataset.cache_clear()


def resaved(name, change):
    """A damage: an array file, loaded, changed and saved."""
    return lambda folder: np.save(folder / name, change(np.load(folder / name)))


def rewritten(name, change):
    """A damage: the bytes of a file, changed."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def redescribed(**values):
    return lambda folder: described(folder, lambda d: d.update(values))


def without(key):
    return lambda folder: described(folder, lambda d: d.pop(key))


KEYS = ("name", "settings", "image_size", "n_train", "n_val", "classes", "skipped", "checksum")
DAMAGE = [
    (rewritten("images.npy", lambda b: b[:-1]), "images.npy cannot be read"),
    (rewritten("images.npy", lambda b: b[:40]), "images.npy cannot be read"),
    (rewritten("images.npy", lambda b: b""), "images.npy cannot be read"),
    (rewritten("images.npy", lambda b: b + b"x"), r"images.npy has \d+ bytes instead of \d+"),
    (rewritten("images.npy", lambda b: b"PK\3\4" + b), "images.npy cannot be read"),
    (rewritten("labels.npy", lambda b: b[:-8]), "labels.npy cannot be read"),
    (rewritten("labels.npy", lambda b: b + b"x"), "labels.npy has"),
    (lambda folder: (folder / "images.npy").unlink(), "images.npy cannot be read .*No such file"),
    (lambda folder: (folder / "labels.npy").unlink(), "labels.npy cannot be read .*No such file"),
    (resaved("images.npy", lambda a: a.astype(np.float32)), r"float32, but dataset.json says .* uint8"),
    (resaved("images.npy", lambda a: a[:, :, :, 0]), r"images.npy is \(9, 6, 6\)"),
    (resaved("labels.npy", lambda a: a.astype(np.int32)), "int32, but dataset.json says .* int64"),
    (resaved("labels.npy", lambda a: a[:-1]), r"labels.npy is \(8,\)"),
    (resaved("labels.npy", lambda a: a + 1), "labels.npy goes from 1 to 3, but dataset.json has 3 classes"),
    (resaved("labels.npy", lambda a: a - 1), "labels.npy goes from -1 to 1"),
    (redescribed(n_train=7), r"images.npy is \(9, 6, 6, 3\) uint8, but dataset.json says \(10, 6, 6, 3\)"),
    (redescribed(n_train=-1, n_val=10), "numbers above 0"),
    (redescribed(n_val=0), "numbers above 0"),
    (redescribed(n_train="6"), "n_train is not a int"),
    (redescribed(name="../../elsewhere"), "is no name of a folder"),
    (redescribed(classes=["ant", "bee", "cat"]), "classes: "),
    (redescribed(classes=[{"name": 3}] * 3), "a name is no text"),
    (redescribed(classes=[{"name": "ant", "colour": "red"}] * 3), "classes: .*colour"),
    (redescribed(classes=[{"name": "ant"}]), "goes from 0 to 2, but dataset.json has 1 classes"),
    (redescribed(format=FORMAT + 1), f"has format {FORMAT + 1}, this program reads {FORMAT}"),
    (without("format"), "has format None"),
    *((without(key), f"dataset.json lacks {key}") for key in KEYS),
    (rewritten("dataset.json", lambda b: b[:-20]), "dataset.json is damaged"),
    (rewritten("dataset.json", lambda b: b"\xff" + b), "dataset.json is damaged"),
    (rewritten("dataset.json", lambda b: b""), "dataset.json is damaged"),
    (rewritten("dataset.json", lambda b: b"[1, 2]"), "not a description of a dataset"),
    (rewritten("dataset.json", lambda b: b"[" * 100_000), "dataset.json is damaged"),
]


@pytest.mark.parametrize("number", range(len(DAMAGE)), ids=lambda i: DAMAGE[i][1][:40])
def test_opening_checks_sizes_types_and_description(tmp_path, number):
    damage, message = DAMAGE[number]
    pack(config_of(make_source(tmp_path / "source", n_train=2, n_val=1), tmp_path / "packed"))
    damage(tmp_path / "packed")
    open_dataset.cache_clear()
    with pytest.raises(UserError, match=message) as error:
        open_dataset(str(tmp_path / "packed"))
    text = str(error.value)
    assert "\n" not in text and text.startswith(f"{tmp_path}/packed: ")
    assert text.endswith("; delete the folder and pack again")


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("bare", [False, True], ids=["object array", "bare pickle"])
def test_a_pickle_in_a_packed_dataset_is_never_loaded(tmp_path, name, bare):
    packed = pack(config_of(make_source(tmp_path / "source", n_train=2, n_val=1), tmp_path / "packed")).folder
    trap, sprung = Trap(tmp_path / "sprung"), tmp_path / "sprung"
    if bare:
        (packed / name).write_bytes(pickle.dumps(trap))
    else:
        np.save(packed / name, np.array([trap] * 9, dtype=object), allow_pickle=True)
        np.load(packed / name, allow_pickle=True)
        assert sprung.exists(), "the trap works"
        sprung.unlink()
    open_dataset.cache_clear()
    for look in (open_dataset, verify):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            look(str(packed))
    assert not sprung.exists()


# --- the whole, byte by byte ---


def flipped(name, at, bit=0):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[at] ^= 1 << bit
        (folder / name).write_bytes(data)

    return damage


def swapped(labels):
    labels[[0, -1]] = labels[[-1, 0]]
    assert labels[0] != labels[-1]
    return labels


def test_verify_accepts_what_was_packed(tmp_path):
    packed = pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    for way in (packed, packed.folder, str(packed.folder)):
        assert verify(way) is None
    with pytest.raises(UserError, match=r"no packed dataset in .*experiments\.pack"):
        verify(tmp_path / "absent")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *((flipped("images.npy", at, bit), r"images.npy is not as packed") for at in (128, -1, -500) for bit in (0, 7)),
        (resaved("labels.npy", swapped), "the labels in labels.npy are not those that were packed"),
        (
            lambda folder: described(folder, lambda d: d["classes"][1].update(name="bug")),
            "the classes in dataset.json are not those that were packed",
        ),
        (redescribed(checksum="0" * 64), r"dataset.json says 000000000000\.\.\."),
    ],
)
def test_verify_finds_what_opening_does_not(tmp_path, damage, message):
    packed = pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    damage(packed.folder)
    open_dataset.cache_clear()
    open_dataset(str(packed.folder))
    for way in (packed, packed.folder):
        with pytest.raises(UserError, match=message) as error:
            verify(way)
        assert "\n" not in str(error.value) and str(packed.folder) in str(error.value)


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
    counts = {c: int((rows.labels[:2000] == c).sum()) for c in (2, 4)}
    fewer, most = sorted(counts, key=counts.get)
    assert counts[fewer] < counts[most]
    whole = rows.train_rows([2, 4], counts[most])  # every image of the smaller class, as in the original
    assert whole.tolist() == rows.train_rows([2, 4]).tolist()
    with pytest.raises(UserError, match=rf"images_per_class={counts[most] + 1}, but no class .* than {counts[most]} "):
        rows.train_rows([2, 4], counts[most] + 1)


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


# --- JPEG-compressed packs ---


def photographs(root, count=3):
    """Smooth pictures of 40x60 in two classes."""
    draw = np.random.default_rng(0)
    for subset in ("train", "val"):
        for c in ("a", "b"):
            for i in range(count):
                small = draw.integers(0, 256, (4, 6, 3), dtype=np.uint8)
                write(root / subset / c / f"{i}.png", cv2.resize(small, (60, 40), interpolation=cv2.INTER_CUBIC))
    return root


def test_a_jpeg_pack_holds_files_that_any_program_reads(tmp_path):
    source = photographs(tmp_path / "source")
    raw = pack(config_of(source, tmp_path / "raw", image_size=32))
    packed = pack(config_of(source, tmp_path / "jpeg", image_size=32, encoding="jpeg"))
    assert {p.name for p in packed.folder.iterdir()} == {"jpegs.npy", "offsets.npy", "labels.npy", "dataset.json"}
    assert packed.encoding == "jpeg q95 4:4:4" and raw.encoding is None
    assert packed.labels.tolist() == raw.labels.tolist() and packed.n_train == 6
    blob, offsets = np.load(packed.folder / "jpegs.npy"), np.load(packed.folder / "offsets.npy")
    assert blob.ndim == 1 and offsets.shape == (13,) and offsets[0] == 0 and offsets[-1] == len(blob)
    for row in range(12):
        data = blob[offsets[row] : offsets[row + 1]].tobytes()
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG" and [c[1:3] for c in image.layer] == [(1, 1)] * 3  # 4:4:4
            pillows = np.asarray(image).astype(int)
        assert np.abs(packed.images[row] - pillows).max() <= 2  # decoders may round differently
        assert 0 < np.abs(packed.images[row] - raw.images[row].astype(int)).mean() < 3
    some = np.array([7, 0, 7])
    assert np.array_equal(packed.read_rows(some), np.stack([packed.images[int(i)] for i in some]))
    assert np.array_equal(packed.images[2:5], packed.read_rows(np.arange(2, 5)))
    assert np.array_equal(packed.images_on(torch.device("cpu")).numpy(), packed.images[:])
    assert np.array_equal(
        packed.mean_image(some), packed.images[some].mean(axis=0, dtype=np.float64).astype(np.float32)
    )
    assert packed.images.nbytes == raw.images.nbytes and len(packed.images) == 12
    verify(packed)


def test_another_quality_is_another_pack(tmp_path):
    source = photographs(tmp_path / "source")
    settings = [{}, {"encoding": "jpeg"}, {"encoding": "jpeg", "jpeg_quality": 60}]
    packs = [pack(config_of(source, tmp_path / str(i), image_size=32, **s)) for i, s in enumerate(settings)]
    assert len({p.checksum for p in packs}) == 3
    assert (packs[2].folder / "jpegs.npy").stat().st_size < (packs[1].folder / "jpegs.npy").stat().st_size
    assert "(encoding, jpeg_quality)" in refusal(config_of(source, packs[0].folder, image_size=32, encoding="jpeg"))
    assert "(jpeg_quality)" in refusal(config_of(source, packs[2].folder, image_size=32, encoding="jpeg"))
    assert not {"encoding", "jpeg_quality"} & packs[0].meta["settings"].keys(), "packs made before are raw"
    for key, value in (("encoding", "png"), ("jpeg_quality", 0)):
        with pytest.raises(UserError, match=f"dataset.{key}={value} is not possible"):
            config_of(source, tmp_path, **{key: value}).check()


JPEG_DAMAGE = [
    (rewritten("jpegs.npy", lambda b: b[:-1]), "jpegs.npy cannot be read"),
    (rewritten("jpegs.npy", lambda b: b + b"x"), r"jpegs.npy has \d+ bytes instead of \d+"),
    (rewritten("offsets.npy", lambda b: b[:-8]), "offsets.npy cannot be read"),
    (lambda folder: (folder / "offsets.npy").unlink(), "offsets.npy cannot be read .*No such file"),
    (resaved("offsets.npy", lambda a: a[:-1]), r"offsets.npy is \(12,\) int64, but dataset.json says \(13,\)"),
    (resaved("offsets.npy", lambda a: a + 1), "does not rise from 0"),
    (resaved("offsets.npy", lambda a: a[[0, 2, 1, *range(3, 13)]]), "does not rise from 0"),
    (resaved("offsets.npy", lambda a: a + (np.arange(13) == 12)), "but offsets.npy says"),
    (resaved("offsets.npy", lambda a: a.astype(np.float64)), "float64, but dataset.json says"),
    (lambda f: described(f, lambda d: d["settings"].update(encoding="heic")), "encoding heic"),
    (lambda f: described(f, lambda d: d["settings"].pop("jpeg_quality")), "jpeg_quality None"),
]


@pytest.mark.parametrize("number", range(len(JPEG_DAMAGE)), ids=lambda i: JPEG_DAMAGE[i][1][:40])
def test_opening_a_jpeg_pack_checks_sizes_and_offsets(tmp_path, number):
    damage, message = JPEG_DAMAGE[number]
    pack(config_of(photographs(tmp_path / "source"), tmp_path / "packed", image_size=32, encoding="jpeg"))
    damage(tmp_path / "packed")
    open_dataset.cache_clear()
    with pytest.raises(UserError, match=message) as error:
        open_dataset(str(tmp_path / "packed"))
    assert "\n" not in str(error.value) and str(error.value).endswith("; delete the folder and pack again")


def test_a_damaged_jpeg_in_a_pack_is_named_when_it_is_read(tmp_path):
    packed = pack(config_of(photographs(tmp_path / "source"), tmp_path / "packed", image_size=32, encoding="jpeg"))
    at = 128 + int(packed.images.offsets[4])
    rewritten("jpegs.npy", lambda b: b[:at] + b"no" + b[at + 2 :])(packed.folder)
    open_dataset.cache_clear()
    opened = open_dataset(str(packed.folder))
    assert opened.read_rows(np.array([3, 5])).shape == (2, 32, 32, 3)
    with pytest.raises(UserError, match=r"row 4 in jpegs.npy is no image any more; delete the folder"):
        opened.read_rows(np.array([3, 4, 5]))
    with pytest.raises(UserError, match=r"jpegs.npy or offsets.npy is not as packed \(SHA-256"):
        verify(packed.folder)


def test_verify_sees_an_offset_that_moved(tmp_path):
    packed = pack(config_of(photographs(tmp_path / "source"), tmp_path / "packed", image_size=32, encoding="jpeg"))
    resaved("offsets.npy", lambda a: a + (np.arange(13) == 6))(packed.folder)
    with pytest.raises(UserError, match=r"jpegs.npy or offsets.npy is not as packed"):
        verify(packed.folder)


# --- a test part ---


def own_folder(root, count=20, classes=("ant", "bee")):
    for label, c in enumerate(classes):
        for i in range(count):
            write(root / c / f"{i:02d}.png", coded(label, 0, i))
    return root


def numbers(packed, rows):
    """(class, number) of each image, as coded() wrote them."""
    return sorted(zip(packed.labels[rows].tolist(), packed.images[rows][:, 0, 0, 2].tolist(), strict=True))


def three_parts(packed):
    every = list(range(len(packed.classes)))
    return [
        numbers(packed, rows) for rows in (packed.train_rows(every), packed.val_rows(every), packed.test_rows(every))
    ]


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_share_of_each_class_is_held_out_for_test(tmp_path, encoding):
    source = own_folder(tmp_path / "source")
    settings = {"encoding": encoding, "jpeg_quality": 100}
    without = pack(config_of(source, tmp_path / "without", **settings))
    packed = pack(config_of(source, tmp_path / "packed", test_fraction=0.2, **settings))
    assert (packed.n_train, packed.n_val, packed.n_test) == (28, 4, 8) and packed.meta["n_test"] == 8
    train, val, test = three_parts(packed)
    assert [label for label, _ in test] == [0] * 4 + [1] * 4 and [label for label, _ in val] == [0, 0, 1, 1]
    assert sorted(train + val + test) == sorted(three_parts(without)[0] + three_parts(without)[1])
    assert val == three_parts(without)[1], "validation is what it would be without"
    assert packed.train_rows([0, 1]).tolist() == list(range(28)) and packed.val_rows([0, 1]).tolist() == [
        28,
        29,
        30,
        31,
    ]
    assert packed.test_rows([0, 1]).tolist() == list(range(32, 40)) and packed.val_rows([1]).tolist() == [
        row for row in range(28, 32) if packed.labels[row] == 1
    ]
    assert np.array_equal(packed.images_on(torch.device("cpu")).numpy(), packed.images[:])
    verify(packed)
    again = pack(config_of(source, tmp_path / "again", test_fraction=0.2, **settings))
    assert again.checksum == packed.checksum
    other = pack(config_of(source, tmp_path / "other", test_fraction=0.2, seed=1, **settings))
    assert three_parts(other)[2] != test
    if encoding == "raw":
        own_folder(source, classes=("ant", "bee", "cat"))
        more = pack(config_of(source, tmp_path / "more", test_fraction=0.2))
        assert [pair for pair in three_parts(more)[2] if pair[0] < 2] == test, "the share of a class is its own"


def test_a_share_for_test_comes_from_the_training_images_where_validation_has_a_folder(tmp_path):
    packed = pack(config_of(make_source(tmp_path / "source", n_train=10), tmp_path / "packed", test_fraction=0.1))
    assert (packed.n_train, packed.n_val, packed.n_test) == (27, 9, 3)
    assert (packed.images[packed.test_rows([0, 1, 2])][:, 0, 0, 1] == 0).all()
    for wrong in (-0.1, 1.0):
        with pytest.raises(UserError, match=f"dataset.test_fraction={wrong} is not possible"):
            config_of("x", tmp_path, test_fraction=wrong).check()


def test_a_class_that_a_share_for_test_empties_is_named(tmp_path):
    source = own_folder(tmp_path / "source", count=2)
    assert "class 'ant' and 1 more" in refusal(config_of(source, tmp_path / "packed", test_fraction=0.1))


def test_a_test_part_of_embedded_images(tmp_path, capsys):
    config = shrunk(tmp_path, "+dataset.test_fraction=0.25")
    experiments.pack.main(config)
    assert ": 8 classes (4 natural, 4 man-made), 72 training, 40 validation and 24 test images of 16x16, checksum " in (
        capsys.readouterr().out
    )
    packed = pack(config.dataset)
    assert (packed.n_train, packed.n_val, packed.n_test) == (72, 40, 24)
    assert np.bincount(packed.labels[packed.test_rows(list(range(8)))]).tolist() == [3] * 8


def test_packs_without_a_test_part_are_what_they_were(tmp_path):
    """Checksums, and what the description holds, of packs made before there were test parts."""
    plain = pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    assert plain.checksum == "583d2f7a84225e290f27b5f4d9b5ecf4ed24a4aa1889f46f5bfc54e0621c392a"
    held_out = pack(config_of(own_folder(tmp_path / "own"), tmp_path / "held-out", val_fraction=0.3, seed=5))
    assert held_out.checksum == "ac7186f98be419a83edce9617f2cf3166870ddafd3d0a656318298d44527dfa0"
    assert held_out.n_test == 0 and held_out.test_rows([0, 1]).tolist() == []
    settings = ["kind", "name", "image_size", "resize", "val_fraction", "seed", "grammar"]
    assert list(plain.meta["settings"]) == settings
    ends = ["image_size", "n_train", "n_val", "classes", "skipped", "part_checksums", "checksum"]
    assert list(plain.meta) == ["format", "name", "settings", "source", "source_files", "opencv", *ends]


def test_a_pack_with_a_test_part_goes_on_to_the_same_bytes(tmp_path, often):
    source, folder = make_source(tmp_path / "source"), tmp_path / "packed"
    _, config = stopped(source, folder, test_fraction=0.3)
    pack(config)
    pack(replace(config, folder=str(tmp_path / "whole")))
    assert contents(folder) == contents(tmp_path / "whole") and open_dataset(str(folder)).n_test == 5


@pytest.mark.parametrize("value", [0, -1, "3", True, None])
def test_a_number_of_test_images_that_is_none_is_damage(tmp_path, value):
    pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    redescribed(n_test=value)(tmp_path / "packed")
    with pytest.raises(UserError, match="n_test is a number above 0, or absent"):
        open_dataset(str(tmp_path / "packed"))


# --- equal pictures ---


def with_copies(root, way="png"):
    """make_source, and copies: of an ant in its class and in another, of a cat in the other part."""
    make_source(root)
    for name in ("train/ant/copy", "train/ant/again", "train/bee/ant"):
        write(root / f"{name}.{way}", coded(0, 0, 1))
    write(root / f"val/cat/train.{way}", coded(2, 0, 4))
    return root


FOUND = {
    "within a class": {"pictures": 1, "first": ["train/ant/1.png", "train/ant/again.bmp"]},
    "in several classes": {"pictures": 1, "first": ["train/ant/1.png", "train/bee/ant.bmp"]},
    "in several parts": {"pictures": 1, "first": ["train/cat/4.png", "val/cat/train.bmp"]},
}


def found_in(root):
    return {
        kind: {"pictures": f["pictures"], "first": [f"{root}/{name}" for name in f["first"]]}
        for kind, f in FOUND.items()
    }


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_equal_pictures_are_counted_and_named_and_kept(tmp_path, caplog, encoding):
    plain = pack(config_of(make_source(tmp_path / "plain"), tmp_path / "packed-plain", encoding=encoding))
    assert "duplicates" not in plain.meta and not caplog.records
    source = with_copies(tmp_path / "source", "bmp")
    config = config_of(source, tmp_path / "packed", encoding=encoding)
    packed = pack(config)
    assert packed.meta["duplicates"] == found_in(source) and len(packed.labels) == 34
    assert "duplicates" not in packed.meta["settings"]
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == (
        f"some has equal pictures: 1 within a class (first {source}/train/ant/1.png and {source}/train/ant/again.bmp), "
        f"1 in several classes (first {source}/train/ant/1.png and {source}/train/bee/ant.bmp), 1 in several parts "
        f"(first {source}/train/cat/4.png and {source}/val/cat/train.bmp); copies flatter accuracy, or mislead it: "
        "dataset.duplicates=drop takes them out"
    )
    with pytest.raises(UserError, match=r"has equal pictures: 1 within a class .*: take them away"):
        pack(replace(config, duplicates="fail"))
    verify(packed)


def test_equal_pictures_are_refused(tmp_path):
    source = with_copies(tmp_path / "source")
    message = refusal(config_of(source, tmp_path / "packed", duplicates="fail"))
    assert message.startswith(f"{source} has equal pictures: 1 within a class (first ") and "drop, or keep" in message
    fine = config_of(make_source(tmp_path / "fine"), tmp_path / "packed", duplicates="fail")
    checksum = pack(fine).checksum
    assert pack(replace(fine, duplicates="keep")).checksum == checksum, "the same pack"
    with pytest.raises(UserError, match=r"dataset.duplicates=ask is not possible"):
        replace(fine, duplicates="ask").check()


def test_of_equal_pictures_one_stays_and_of_those_in_two_classes_none(tmp_path, caplog):
    source = with_copies(tmp_path / "source")
    (source / "train" / "bee" / "bad.png").write_bytes(b"")
    packed = pack(config_of(source, tmp_path / "packed", duplicates="drop", on_error="skip"))
    assert numbers(packed, packed.train_rows([0])) == [(0, i) for i in (0, 2, 3, 4, 5, 6)]
    assert numbers(packed, packed.train_rows([1])) == [(1, i) for i in range(7)]
    assert numbers(packed, packed.train_rows([2])) == [(2, i) for i in (0, 1, 2, 3, 5, 6)], "validation keeps its own"
    assert numbers(packed, packed.val_rows([2])) == [(2, 0), (2, 1), (2, 2), (2, 4)]
    assert packed.meta["settings"]["duplicates"] == "drop" and packed.meta["duplicates"].keys() == FOUND.keys()
    assert "some: 5 images dropped, of equal pictures: 1 within a class (first " in caplog.text
    assert pack(config_of(source, tmp_path / "packed", duplicates="drop", on_error="skip")).checksum == packed.checksum
    verify(packed)


def test_a_class_that_is_a_link_to_another_is_noticed(tmp_path):
    source = own_folder(tmp_path / "source", count=5)
    (source / "cat").symlink_to("ant")
    packed = pack(config_of(source, tmp_path / "packed"))
    assert packed.meta["duplicates"]["in several classes"]["pictures"] == 5
    message = refusal(config_of(source, tmp_path / "dropped", duplicates="drop"))
    assert re.search(r"class 'ant' and 1 more of .* no training images: the 4 it had are left out, the first", message)
    assert "is equal to" in message


def test_a_test_part_keeps_its_pictures(tmp_path):
    source = tmp_path / "source"
    for part, own in (("train", (0, 1, 2, 10, 20)), ("val", (10, 11, 20, 21)), ("test", (20, 21, 22))):
        for label, name in enumerate(("ant", "bee")):
            for i in own:
                write(source / part / name / f"{i}.png", coded(label, 0, i))
    packed = pack(config_of(source, tmp_path / "packed", duplicates="drop"))
    assert packed.meta["duplicates"]["in several parts"]["pictures"] == 6
    assert [[i for label, i in part if not label] for part in three_parts(packed)] == [
        [0, 1, 2],
        [10, 11],
        [20, 21, 22],
    ]


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
