"""From files to pixels: every kind of image, and files that are corrupt, odd or no images."""

import base64
import io
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.helpers import (
    HEIF,
    SIDE,
    class_folders,
    classes,
    config_of,
    made,
    make_source,
    packing_refusal,
    write,
)
from transferability.data.decode import UnsupportedError, _warn_of_dark_images, decode
from transferability.data.pack import pack
from transferability.data.packed import verify
from transferability.errors import UserError

# --- corrupt images ---


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
DEEP = ("TIFF", "PNG", "JPEG2000", "PPM")  # that may have 16 bits a value


def rows_without(source, folder, path):
    """Images and labels as packed where ``path`` is a (white) image,
    without the row of that image.
    """
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
    message = packing_refusal(config_of(source, tmp_path / "failed"))
    assert str(path) in message and "on_error=skip" in message
    packed = pack(config_of(source, tmp_path / "skipped", on_error="skip"))
    assert list(packed.meta["skipped"]) == [str(path)] and packed.meta["skipped"][str(path)]
    assert packed.meta["n_train"] == 21 and packed.meta["n_val"] == 9
    assert (packed.images.tolist(), packed.labels.tolist()) == rows_without(
        source, tmp_path / "mended", path
    )
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
    assert "train/ant/bad.png cannot be read (zip: Bad CRC" in packing_refusal(
        config_of(tmp_path / "z.zip", tmp_path / "failed")
    )
    packed = pack(config_of(tmp_path / "z.zip", tmp_path / "skipped", on_error="skip"))
    expected = rows_without(source, tmp_path / "mended", source / "train" / "ant" / "bad.png")
    assert (packed.images.tolist(), packed.labels.tolist()) == expected and len(
        packed.meta["skipped"]
    ) == 1


def test_a_class_of_corrupt_images_only_is_refused(tmp_path):
    source = make_source(tmp_path / "source", n_val=1)
    (source / "val" / "bee" / "0.png").write_bytes(b"")
    message = packing_refusal(config_of(source, tmp_path / "packed", on_error="skip"))
    assert "'bee'" in message and "no validation images" in message


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "PPM", "GIF", "JPEG2000", "AVIF"])
def test_half_an_image_of_any_kind_is_corrupt(tmp_path, kind):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    data = saved(Image.fromarray(noise()), kind)
    (source / "train" / "bee" / "x.jpg").write_bytes(data[: len(data) // 2])
    assert "bee/x.jpg is corrupt (" in packing_refusal(config_of(source, tmp_path / "packed"))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_images_that_are_not_read_are_not_called_corrupt(tmp_path, caplog):
    draw, root = np.random.default_rng(0), class_folders(tmp_path / "own", {"ant": 4, "bee": 4})
    for values, what in (
        (draw.random((8, 8)).astype(np.float32), "TIFF of 32 bits per value, floating point"),
        (draw.integers(0, 4096, (8, 8)).astype(np.int32), "TIFF of 32 bits per value with signs"),
    ):
        for kind in ("TIFF", "BigTIFF"):
            (root / "ant" / "odd.tif").write_bytes(file_of(values, kind, 1))
            message = packing_refusal(config_of(root, tmp_path / "packed"))
            known = "8 and 16 bits are supported: convert it"
            assert f"ant/odd.tif is not supported ({what}; {known})" in message
    with pytest.raises(UnsupportedError, match="BigTIFF with the highest byte first: convert it"):
        decode(b"MM\0+\0\x08" + bytes(100))
    few = draw.integers(0, 4096, (16, 16)).astype(np.uint16)
    many = draw.integers(0, 65536, (16, 16)).astype(np.uint16)
    _warn_of_dark_images.cache_clear()
    for kind in DEEP:
        assert (decode(file_of(many, kind))[..., 0] == many >> 8).all() and not caplog.messages
    for kind in DEEP:
        assert (decode(file_of(few, kind))[..., 0] == few >> 8).all()
    assert (
        caplog.text.count(
            "of images with 16 bits per value the highest 8 are packed, and some use 12 bits"
        )
        == 1
    )


@pytest.mark.parametrize("kind", DEEP)
def test_values_that_the_highest_8_of_16_bits_leave_nothing_of_are_refused(kind):
    dark = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint16)
    what = r"^16 bits per value, all below 256: of the highest 8, which are read, nothing is left"
    with pytest.raises(UnsupportedError, match=what):
        decode(file_of(dark, kind))
    assert not decode(file_of(np.zeros_like(dark), kind)).any()


def test_twelve_bits_that_a_file_says_are_twelve_are_scaled(caplog):
    """JPEG 2000 of 4x4 values, 256 apart."""
    data = base64.b64decode(
        "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAABAAAAAQAAQsHAAAAAAAP"
        "Y29scgEAAAAAABEAAACQanAyY/9P/1EAKQAAAAAABAAAAAQAAAAAAAAAAAAAAAQAAAAEAAAAAAAAAAAAAQsBAf9S"
        "AAwAAAABAAAEBAAB/1wABEBg/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBFRyB2ZXJzaW9uIDIuNS40/5AACgAAAAAA"
        "HgAB/5Pf4DQSD4SWQuG6bfHPvQin/9k="
    )
    assert decode(data)[..., 0].ravel().tolist() == list(range(0, 256, 16)) and not caplog.messages


@pytest.mark.parametrize("most", [15, 127, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_portable_maps_are_scaled_to_the_largest_value_that_they_say(kind, most):
    values = np.linspace(0, most, 256).round().astype("u1" if most < 256 else ">u2")
    pixels = np.repeat(values.reshape(16, 16, 1), 1 if kind == "P5" else 3, axis=2)
    head = f"{kind} # made by hand, 9 9 9\n16 16\n#\n{most}\n".encode()
    found = decode(head + pixels.tobytes()).reshape(-1, 3).astype(float)
    assert np.abs(found - (values * (255.0 / most))[:, None]).max() < (0.51 if most < 256 else 1)
    assert found.min() == 0 and found.max() == 255
    with pytest.raises(ValueError, match=r"not a complete image|not enough image data"):
        decode(head + pixels.tobytes()[:-20])


def test_images_that_cannot_be_decoded_are_errors_or_counted_a_class_at_a_time(tmp_path, caplog):
    photos = {"ant/x": HEIF, "ant/y.heif": HEIF, "bee/z.HEIC": HEIF}
    root = made(
        tmp_path / "own",
        *classes("train/"),
        *classes("val/"),
        **{f"train/{p}": d for p, d in photos.items()},
    )
    with pytest.raises(
        UserError, match=r"ant/x is not supported \(HEIF: convert it to PNG or JPEG\)"
    ):
        pack(config_of(root, folder=str(tmp_path / "packed")))
    packed = pack(config_of(root, folder=str(tmp_path / "packed"), on_error="skip"))
    assert len(packed.labels) == 12 and len(packed.meta["skipped"]) == 3
    assert "skipped 3 corrupt images (2 of class ant, 1 of class bee); the first: " in caplog.text


# --- kinds of images ---


def test_every_common_kind_of_image_packs(tmp_path):
    color, side = (200, 60, 30), 12
    plain = np.full((side, side, 3), color, np.uint8)
    rgb = Image.fromarray(plain)
    classes = tmp_path / "source" / "train"
    saved = {
        "gray": (Image.new("L", (side, side), 90), "x.jpg", "JPEG", (90, 90, 90)),
        "palette": (rgb.convert("P", palette=Image.Palette.ADAPTIVE), "x.png", "PNG", color),
        "rgba": (
            Image.merge("RGBA", [*rgb.split(), Image.new("L", (side, side), 255)]),
            "x.png",
            "PNG",
            color,
        ),
        "bilevel": (Image.new("1", (side, side), 1), "x.png", "PNG", (255, 255, 255)),
        "cmyk": (rgb.convert("CMYK"), "x.JPEG", "JPEG", color),
        "renamed": (rgb, "x.JPEG", "PNG", color),
        "progressive": (rgb, "x.jpeg", "JPEG", color),
        "shouting": (rgb, "X.BMP", "BMP", color),
        "sixteen": (
            Image.fromarray(np.full((side, side), 90 * 256 + 7, np.uint16)),
            "x.png",
            "PNG",
            (90,) * 3,
        ),
    }
    for name, (image, file, kind, _) in saved.items():
        (classes / name).mkdir(parents=True)
        image.save(
            classes / name / file, kind, **({"progressive": True} if name == "progressive" else {})
        )
    shutil.copytree(classes, tmp_path / "source" / "val")
    packed = pack(config_of(tmp_path / "source", tmp_path / "packed"))
    assert [c.name for c in packed.classes] == sorted(saved)
    for label, name in enumerate(sorted(saved)):
        (row,) = packed.train_rows([label])
        off = np.abs(packed.images[row].astype(int) - saved[name][3]).max()
        assert off <= 4, name  # JPEG and CMYK round


def animated(kind, **options):
    first, second = (Image.new("RGB", (12, 12), color) for color in ((200, 60, 30), (0, 0, 250)))
    return saved(first, kind, save_all=True, append_images=[second], duration=50, **options)


def see_through(kind, **options):
    """One color, half of it transparent."""
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
        cv2.imencode(
            ".png", np.full((12, 12, 3), (30 * 256, 60 * 256, 200 * 256 + 255), np.uint16)
        )[1].tobytes(),
    ],
    ids=["gif", "webp", "apng", "png with alpha", "webp with alpha", "16 bits a channel"],
)
def test_an_animation_is_its_first_frame_and_transparency_is_dropped(tmp_path, data):
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "source" / folder).mkdir(parents=True)
        (tmp_path / "source" / folder / "x.png").write_bytes(data)
    packed = pack(config_of(tmp_path / "source", tmp_path / "packed"))
    assert np.abs(packed.images.astype(int) - (200, 60, 30)).max() <= 1


# --- orientation ---


def test_the_rotation_tag_of_a_camera_is_ignored(tmp_path):
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[: SIDE // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees"
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "source" / folder).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "source" / folder / "x.jpg", exif=exif, quality=95)
    packed = pack(config_of(tmp_path / "source", tmp_path / "packed"))
    assert packed.images[0, 0].min() > 200 and packed.images[0, -1].max() < 55


def file_of(image: np.ndarray, kind: str, orientation: int | None = None) -> bytes:
    """An image file without loss, that says how it is to be turned."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation or 1
    how = {"exif": exif, "lossless": True}
    if kind.endswith("TIFF"):
        how = {"tiffinfo": {274: orientation}, "big_tiff": kind == "BigTIFF"}
    Image.fromarray(image).save(out, kind.removeprefix("Big"), **(how if orientation else {}))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", "BigTIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_ignored_or_applied_in_every_format(kind, orientation):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    data = file_of(image, kind, orientation)
    assert (decode(data) == image).all()
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode(data, upright=True), upright)


def test_orientation_is_a_setting_of_the_pack(tmp_path):
    for name in ("ant", "bee"):
        for i in range(4):
            (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
            image = np.full((SIDE, SIDE, 3), i, np.uint8)
            image[0] = 200
            (tmp_path / "own" / name / f"{i}.png").write_bytes(file_of(image, "PNG", 6))
    plain = pack(config_of(tmp_path / "own", tmp_path / "plain"))
    turned = pack(config_of(tmp_path / "own", tmp_path / "turned", orientation="apply"))
    assert (plain.images[:, 0] == 200).all() and (turned.images[:, :, -1] == 200).all()
    assert (
        "orientation" not in plain.meta["settings"]
        and turned.meta["settings"]["orientation"] == "apply"
    )


# --- bombs, and what is no file ---


def png_that_claims(width, height):
    """A PNG of a hundred bytes, whole but for its pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


BOMBS = """
import resource, sys
from transferability.data.decode import decode
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for path in sys.argv[1:]:
    try: decode(open(path, "rb").read())
    except ValueError as error: print(error)
print(peak() - before)
"""


# pytest undoes our own filter
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    # 2^30 pixels is OpenCV's own limit, 2^27.4 Pillow's
    sizes = [(60000, 60000), (20000, 20000), (10000, 9000)]
    paths = [source / "train" / "bee" / f"{width}.png" for width, _ in sizes]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(png_that_claims(*size))
        assert path.stat().st_size < 150
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, *paths], capture_output=True, text=True, check=True
    )
    *lines, grown = done.stdout.splitlines()
    assert lines == ["it claims more than 89,478,485 pixels"] * 3 and not done.stderr
    assert int(grown) < 60, "MiB"
    assert (
        ".png is corrupt (it claims more than 89,478,485 pixels): fix or remove it"
        in packing_refusal(config_of(source, tmp_path / "failed"))
    )
    packed = pack(config_of(source, tmp_path / "skipped", on_error="skip"))
    assert set(packed.meta["skipped"]) == set(map(str, paths))


def test_a_file_too_large_for_an_image_is_not_read(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    with open(source / "train" / "bee" / "disk.bmp", "wb") as file:
        file.truncate(10 << 40)  # sparse: it takes no room, until somebody reads it
    message = packing_refusal(config_of(source, tmp_path / "packed"))
    assert (
        "bee/disk.bmp cannot be read (10,995,116,277,760 bytes; one image may have at most "
        "268,435,456)" in message
    )


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
    assert f"{path} cannot be read ({message}" in packing_refusal(
        config_of(source, tmp_path / "failed")
    )
    packed = pack(config_of(source, tmp_path / "skipped", on_error="skip"))
    assert list(packed.meta["skipped"]) == [str(path)]
    assert (packed.images.tolist(), packed.labels.tolist()) == rows_without(
        source, tmp_path / "mended", path
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_named(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    (source / "train" / "bee" / "0.png").chmod(0)
    assert "bee/0.png cannot be read (Permission denied)" in packing_refusal(
        config_of(source, tmp_path / "packed")
    )
    (source / "train" / "ant").chmod(0)
    try:
        assert "train/ant cannot be read: Permission denied" in packing_refusal(
            config_of(source, tmp_path / "packed")
        )
    finally:
        (source / "train" / "ant").chmod(0o755)
