"""Decode the bytes of an image file."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from transferability.errors import reason

log = logging.getLogger(__name__)
# our own message describes what is wrong with an image
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# on sizes that decode() refuses, and on damaged EXIF
warnings.filterwarnings("ignore", module=r"PIL\.")

# per image: 256 MiB decoded; from here on, Pillow warns of a decompression bomb, too
MAX_PIXELS = 89_478_485
RAW = "a raw camera file, which begins with a thumbnail"  # part of its error message
# first bytes of files
_TIFF, _BIG_TIFF, _BIG_TIFF_MM = (b"II*\0", b"MM\0*"), b"II+\0", b"MM\0+"
_JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_JPEG_2000_BITS = re.compile(rb"\xff\x4f\xff\x51.{38}(.)", re.DOTALL)  # minus one
# a binary PGM or PPM file: width, height and (kept) largest value
_PORTABLE = re.compile(rb"P[56](?:(?:\s|#[^\r\n]*[\r\n])+(\d+)){3}\s")
_ORIENTATION = 274  # the tag of EXIF and TIFF: how to rotate or mirror the image to be upright
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 3),
    7: lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    8: np.rot90,
}
UNTURN = {6: 8, 8: 6}  # the orientation that undoes one; the others undo themselves
_TIFF_KINDS = {2: " with signs", 3: ", floating point"}


class UnsupportedError(ValueError):
    """An undamaged image of an unsupported kind."""


def decode(data: bytes, upright: bool = False) -> np.ndarray:
    """Decode an image to (H, W, 3) uint8 RGB; its orientation is ignored, or applied if
    ``upright``. Raises what :func:`decode_as_stored` raises.
    """
    pixels, orientation = decode_as_stored(data)
    return apply_orientation(pixels, orientation) if upright else pixels


def apply_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate or mirror an image according to its EXIF or TIFF orientation."""
    turn = _TURNS.get(orientation)
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


def decode_as_stored(data: bytes) -> tuple[np.ndarray, int]:
    """Decode an image, the first of an animation, to (H, W, 3) uint8 RGB without transparency; also
    returns its EXIF or TIFF orientation, 1 if upright.

    OpenCV decodes (as Caffe did). Of 16 bits per value, the highest 8 are kept. Pillow reads the
    header first, so that an image that claims to be huge is refused before memory is allocated.
    Pillow also decodes JPEG files without an end marker, because it refuses truncated files where
    OpenCV fills in gray, PGM and PPM files with a largest value that OpenCV does not scale, and
    TIFF files of 8 bits whose colors OpenCV would multiply by their alpha channel.

    Raises:
        ValueError: the image is incomplete, or has more than MAX_PIXELS pixels.
        UnsupportedError: the file is HEIF, a raw camera file, a big-endian BigTIFF file, or a TIFF
            file whose values are not unsigned integers of up to 8, or of 16, bits; or the highest 8
            of more than 8 bits are 0 in all values.
    """
    if not data:
        raise ValueError("empty file")
    tags, largest = _tiff_tags(data), _largest_value(data)
    bits = _bits(data, tags, largest)
    try:
        with Image.open(io.BytesIO(data)) as header:
            if header.width * header.height > MAX_PIXELS:
                # as Pillow itself does above twice as many pixels
                raise Image.DecompressionBombError
            if _is_raw(tags, data):
                raise UnsupportedError(f"{RAW}: convert it")
            if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-64:]:
                header.load()
            orientation = orientation_of(header)
            if largest not in (None, 255, 65535):
                return _scaled(header), orientation
            if bits == 8 and header.mode in ("RGBA", "LA") and _has_separate_alpha(tags):
                return _without_alpha(header, orientation), orientation
    except Image.UnidentifiedImageError as error:
        if data[4:8] == b"ftyp" and not data[8:].startswith(b"avi"):
            raise UnsupportedError("HEIF: convert it to PNG or JPEG") from error
        if data.startswith(_BIG_TIFF_MM):
            raise UnsupportedError("BigTIFF with the highest byte first: convert it") from error
        raise ValueError("not an image") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"it claims more than {MAX_PIXELS:,} pixels") from error
    except UnsupportedError:
        raise
    except Exception as error:  # damaged files make Pillow raise almost anything
        raise ValueError(reason(error)) from error
    image = cv2.cvtColor(_by_opencv(data, bits), cv2.COLOR_BGR2RGB)
    if tags:  # OpenCV rotates TIFF files nevertheless
        image = apply_orientation(image, UNTURN.get(orientation, orientation))
    return image, orientation


def _bits(data: bytes, tags: Mapping[int, Any], largest: int | None) -> int:
    """Bits per value, for formats in which they may be more than 8; else 8.

    Raises:
        UnsupportedError: a TIFF file has unsupported values.
    """
    if tags:
        bits, kind = (_first(tags.get(tag, 1)) for tag in (258, 339))
        if bits not in (1, 2, 4, 8, 16) or kind != 1:
            raise UnsupportedError(
                f"TIFF of {bits} bits per value{_TIFF_KINDS.get(kind, '')}; 8 and 16 bits are "
                "supported: convert it"
            )
        return int(bits)
    if data[:4] == b"\x89PNG" and len(data) > 24:
        return data[24]
    if data.startswith(_JPEG_2000) and (found := _JPEG_2000_BITS.search(data)):
        return (found[1][0] & 127) + 1
    return 16 if largest == 65535 else 8


def _largest_value(data: bytes) -> int | None:
    """The value of white in a binary PGM or PPM file; None for other files."""
    found = _PORTABLE.match(data)
    return int(found[1]) if found else None


def _scaled(image: Image.Image) -> np.ndarray:
    """A PGM or PPM file in RGB, scaled by Pillow to 8 bits, or to 16 for gray of more than 8 bits,
    of which the highest 8 are kept.
    """
    if image.mode != "I":
        return np.array(image.convert("RGB"))
    gray = (np.asarray(image) >> 8).astype(np.uint8)
    return np.dstack([gray] * 3)


def _has_separate_alpha(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF file has colors that are not multiplied by its alpha channel. OpenCV would
    multiply 8 bits by it, so that transparent areas became dark.
    """
    return _first(tags.get(338)) == 2


def _without_alpha(image: Image.Image, orientation: int) -> np.ndarray:
    """A TIFF file in RGB as it is stored, decoded by Pillow, which rotates it on loading."""
    pixels = np.asarray(image.convert("RGB"))
    return apply_orientation(pixels, UNTURN.get(orientation, orientation))


def _by_opencv(data: bytes, bits: int) -> np.ndarray:
    """Decode to BGR by OpenCV; raises what :func:`decode_as_stored` raises."""
    buffer, how = np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(buffer, how)
        if image is None:
            raise ValueError("not a complete image")
        most = image.max() if bits > 8 else 255
        if not most and np.any(cv2.imdecode(buffer, how | cv2.IMREAD_ANYDEPTH)):
            raise nothing_left(bits)
        if bits == 16 and 0 < most < 16:
            _warn_of_dark_images()
    except cv2.error as error:
        raise ValueError(f"OpenCV: {error.err}") from error
    return image


def nothing_left(bits: int) -> UnsupportedError:
    """The error for an image whose values have nothing in the highest 8 of their bits."""
    return UnsupportedError(
        f"{bits} bits per value, all below {1 << bits - 8}: of the highest 8, which are read, "
        "nothing is left; scale them to the full range, or save them with 8 bits"
    )


def _is_raw(tags: Mapping[int, Any], data: bytes) -> bool:
    """Whether a TIFF file is a raw camera file: DNG, CR2, or one whose first image is a reduced
    version of another in the file (NEF).
    """
    dng, reduced, others = 50706, tags.get(254, 0), 330
    return dng in tags or data[8:10] == b"CR" or bool(reduced & 1 and others in tags)


def orientation_of(image: Image.Image) -> int:
    """The orientation of an image, 2 to 8; 1 if it is upright or has no valid tag."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
        return found if found in _TURNS else 1
    except Exception:  # damaged EXIF does not damage the image
        return 1


@lru_cache(maxsize=1)
def _warn_of_dark_images() -> None:
    log.warning(
        "of images with 16 bits per value the highest 8 are packed, and some use 12 bits or "
        "fewer: they keep at most 16 levels. Scale such images to the full range before packing"
    )


def _tiff_tags(data: bytes) -> Mapping[int, Any]:
    """The tags of a TIFF file, even if Pillow cannot decode it; empty for other files, and for
    damaged ones, on which the decoder will fail.
    """
    if not data.startswith((*_TIFF, _BIG_TIFF)):
        return {}
    try:
        tags = ImageFileDirectory_v2(data[: 16 if data.startswith(_BIG_TIFF) else 8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        return {tag: tags[tag] for tag in tags}
    except Exception:  # damaged files make Pillow raise almost anything
        return {}


def _first(value: Any) -> Any:
    """The value of the first channel."""
    return value[0] if isinstance(value, tuple) and value else value
