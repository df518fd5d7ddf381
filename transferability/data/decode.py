"""From the bytes of an image file to its pixels."""

import io
import logging
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
UNTURN = {6: 8, 8: 6}  # the orientation that undoes one; the others undo themselves
_TIFF_KINDS = {2: " with signs", 3: ", floating point"}


class UnsupportedError(ValueError):
    """An image that is whole, but of a kind that is not read."""


def decode(data: bytes, upright: bool = False) -> np.ndarray:
    """An encoded image as (H, W, 3) uint8 RGB, orientation ignored or applied (``upright``);
    raises what :func:`decode_as_stored` does.
    """
    pixels, orientation = decode_as_stored(data)
    return apply_orientation(pixels, orientation) if upright else pixels


def apply_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An image as EXIF's or TIFF's orientation asks."""
    turn = _TURNS.get(orientation)
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


def decode_as_stored(data: bytes) -> tuple[np.ndarray, int]:
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
    if tags := _tiff_tags(data):
        bits, kind = (_first(tags.get(tag, 1)) for tag in (258, 339))
        if bits not in (1, 2, 4, 8, 16) or kind != 1:
            raise UnsupportedError(
                f"TIFF of {bits} bits a value{_TIFF_KINDS.get(kind, '')}; 8 and 16 are: convert it"
            )
    try:
        with Image.open(io.BytesIO(data)) as header:
            if header.width * header.height > MAX_PIXELS:
                # as Pillow does itself from twice as many pixels on
                raise Image.DecompressionBombError
            if _is_raw(tags, data):
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
        ignoring = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), ignoring)
        if bits == 16 and image is not None and 0 < image.max() < 16:
            _warn_of_dark_images()
    except cv2.error as error:
        raise ValueError(f"OpenCV: {error.err}") from error
    if image is None:
        raise ValueError("not a whole image")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if tags:  # OpenCV turns TIFF files all the same
        image = apply_orientation(image, UNTURN.get(orientation, orientation))
    return image, orientation


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


def _tiff_tags(data: bytes) -> Mapping[int, Any]:
    """The tags of a TIFF file, also of one that Pillow cannot decode; none of a damaged one, as its
    decoder will say, or of another kind of file.
    """
    if not data.startswith(_TIFF):
        return {}
    try:
        tags = ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        return {tag: tags[tag] for tag in tags}
    except Exception:  # damaged files make Pillow raise almost anything
        return {}


def _first(value: Any) -> Any:
    """That of the first channel."""
    return value[0] if isinstance(value, tuple) and value else value
