"""From the bytes of an image file to its pixels."""

import io
import logging
import struct
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

from transferability.errors import reason

log = logging.getLogger(__name__)
# of a bad image our own line says what is wrong
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# of sizes that decode() refuses, and of damaged EXIF
warnings.filterwarnings("ignore", module=r"PIL\.")

# of one image: 256 MiB decoded; where Pillow, too, begins to suspect a decompression bomb
MAX_PIXELS = 89_478_485
RAW = "a raw file of a camera, which begins with a thumbnail"  # what its error says it is
_TIFF = (b"II*\0", b"MM\0*")  # how such a file begins
_ORIENTATION = 274  # the tag of EXIF and TIFF: how the image is to be turned to stand upright
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 3),
    7: lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    8: np.rot90,
}
_TIFF_KINDS = {2: " with signs", 3: ", floating point"}


class UnsupportedError(ValueError):
    """An image that is whole, but of a kind that is not read."""


def decode(data: bytes, upright: bool = False) -> np.ndarray:
    """An encoded image as (H, W, 3) uint8 RGB, orientation ignored or applied (``upright``);
    raises what :func:`as_stored` does.
    """
    pixels, orientation = as_stored(data)
    return turned(pixels, orientation) if upright else pixels


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An image as EXIF's or TIFF's orientation asks."""
    turn = _TURNS.get(orientation)
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


def as_stored(data: bytes) -> tuple[np.ndarray, int]:
    """An encoded image as (H, W, 3) uint8 RGB, the first of an animation, without transparency;
    and its orientation in EXIF or TIFF, 1 where it is upright.

    OpenCV decodes (as Caffe did). Of 16 bits a value the highest 8 stay. Pillow reads the header
    first, so that an image which claims to be huge is refused before anything is allocated. A JPEG
    that does not end as one is decoded by Pillow too, which refuses truncated files where OpenCV
    fills in grey.

    Raises:
        ValueError: not a whole image, or one of more than MAX_PIXELS pixels.
        UnsupportedError: HEIF, a camera's raw file, or a TIFF file of other than whole numbers from
            0 on of at most 8, or 16, bits.
    """
    if not data:
        raise ValueError("empty file")
    bits = data[24] if data[:4] == b"\x89PNG" and len(data) > 24 else 8
    if data[:4] in _TIFF:
        bits, kind = _tiff_value(data, 258, 1), _tiff_value(data, 339, 1)
        if bits not in (1, 2, 4, 8, 16) or kind != 1:
            raise UnsupportedError(
                f"TIFF of {bits} bits a value{_TIFF_KINDS.get(kind, '')}; 8 and 16 are: convert it"
            )
    try:
        with Image.open(io.BytesIO(data)) as header:
            if header.width * header.height > MAX_PIXELS:
                # as Pillow does itself from twice as many pixels on
                raise Image.DecompressionBombError
            if header.format == "TIFF" and _is_raw(getattr(header, "tag_v2", {}), data):
                raise UnsupportedError(f"{RAW}: convert it")
            if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-64:]:
                header.load()
            orientation = orientation_of(header)
    except Image.UnidentifiedImageError as error:
        if data[4:8] == b"ftyp" and not data[8:].startswith(b"avi"):
            raise UnsupportedError("HEIF: convert it to PNG or JPEG") from error
        raise ValueError("not an image") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"it claims more than {MAX_PIXELS:,} pixels") from error
    except UnsupportedError:
        raise
    except Exception as error:  # damaged files make Pillow raise almost anything
        raise ValueError(reason(error)) from error
    try:
        pixels = np.frombuffer(_tiff_upright(data), np.uint8)
        # The orientation of TIFF files OpenCV applies all the same.
        image = cv2.imdecode(pixels, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if bits == 16 and image is not None and 0 < image.max() < 16:
            _warn_of_dark_images()
    except cv2.error as error:
        raise ValueError(f"OpenCV: {error.err}") from error
    if image is None:
        raise ValueError("not a whole image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), orientation


def _is_raw(tags: Mapping[int, Any], data: bytes) -> bool:
    """Whether a TIFF file is one of a camera: DNG, CR2, or one whose first picture is a reduced
    version of another in the file (NEF).
    """
    dng, reduced, others = 50706, tags.get(254, 0), 330
    return dng in tags or data[8:10] == b"CR" or bool(reduced & 1 and others in tags)


def orientation_of(image: Image.Image) -> int:
    """How an image asks to be turned, 2 to 8; 1 where it does not."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
        return found if found in _TURNS else 1
    except Exception:  # damaged EXIF is no damage to the image
        return 1


@lru_cache(maxsize=1)
def _warn_of_dark_images() -> None:
    log.warning(
        "of images with 16 bits a value the highest 8 are packed, and some use 12 bits or fewer: "
        "they keep at most 16 levels. Scale such images to the whole range before packing"
    )


def _tiff_place(data: bytes, tag: int) -> tuple[int, str] | None:
    """Where the first value of a tag of 16 bits lies in a TIFF file,
    and the order of its bytes for ``struct``.
    """
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            found, kind, values, where = struct.unpack_from(f"{order}HHII", data, at)
            if (found, kind) == (tag, 3):
                return (at + 8 if values <= 2 else where), order
    except struct.error:  # a damaged file, as its decoder will say
        pass
    return None


def _tiff_value(data: bytes, tag: int, default: int) -> int:
    if place := _tiff_place(data, tag):
        with suppress(struct.error):
            return struct.unpack_from(f"{place[1]}H", data, place[0])[0]
    return default


def _tiff_upright(data: bytes) -> bytes:
    """A TIFF file that says of itself to stand upright; any other file as it is."""
    place = _tiff_place(data, _ORIENTATION) if data[:4] in _TIFF else None
    if place is None or _tiff_value(data, _ORIENTATION, 1) == 1:
        return data
    at, order = place
    return data[:at] + struct.pack(f"{order}H", 1) + data[at + 2 :]
