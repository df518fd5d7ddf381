"""Convert an image file, a PIL image or an array to the pixels that a network is trained on.

Packing, ``run.preprocess`` and ``experiments.check_weights`` all use this one chain.
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from PIL import Image

from transferability.data.decode import (
    UNTURN,
    UnsupportedError,
    apply_orientation,
    decode_as_stored,
    nothing_left,
    orientation_of,
)
from transferability.errors import UserError, reason

Content = bytes | str | Path | Image.Image | np.ndarray
# errors that a single image can cause
IMAGE_ERRORS = (ValueError, OSError, MemoryError, cv2.error)
# with antialiasing, as in torchvision's and timm's transforms
PIL_FILTERS = {
    name: Image.Resampling[name.upper()]
    for name in ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming")
}
OPENCV_FILTERS = ("area", "linear")
# fit=crop: only the middle of a longer image is resized
MAX_ASPECT_RATIO = 8


@dataclass(frozen=True)
class Preprocessing:
    """All settings of a dataset that change a pixel, named as in ``DatasetConfig``.

    Attributes:
        encoding: None for raw pixels, else as ``PackedDataset.encoding``: "jpeg q95 4:4:4".
    """

    image_size: int
    resize: str = "area"
    fit: str = "squash"
    orientation: str = "ignore"
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.resize not in (*OPENCV_FILTERS, *PIL_FILTERS):
            raise UserError(
                f"images cannot be resized by {self.resize}: known are "
                f"{', '.join((*OPENCV_FILTERS, *PIL_FILTERS))}"
            )

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Preprocessing":
        """Create from a record, which may have other settings and lack later ones."""
        return cls(**{f.name: settings[f.name] for f in fields(cls) if f.name in settings})

    def __call__(self, content: Content) -> tuple[np.ndarray, bool]:
        """Convert an image to a row of a pack, (image_size, image_size, 3) uint8 RGB; also returns
        whether the image has an orientation tag other than upright.

        Raises:
            One of ``IMAGE_ERRORS``: the image is damaged, or of an unsupported kind
                (:func:`describe_failure`).
        """
        image, asks = self.resized(content)
        if self.encoding:
            file = as_jpeg(image, int(re.findall(r"q(\d+)", self.encoding)[0]))
            decoded = cast(np.ndarray, cv2.imdecode(file, cv2.IMREAD_COLOR))
            image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return image, asks

    def resized(self, content: Content) -> tuple[np.ndarray, bool]:
        """As :meth:`__call__`, without the encoding.

        Arrays are upright: gray, (H, W), or RGB or RGBA, (H, W, 3 or 4), uint8 or uint16.
        """
        pixels, orientation = _decoded(content)
        if self.orientation == "apply":
            pixels = apply_orientation(pixels, orientation)
        return resize_and_crop(pixels, self.image_size, self.resize, self.fit), orientation != 1


def describe_failure(error: Exception) -> str:
    """Why an image cannot be read, as text that follows its name."""
    if isinstance(error, UnsupportedError):
        return f"is not supported ({reason(error)})"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, cv2.error):
        return f"cannot be resized (OpenCV: {reason(error.err)})"
    kind = "is corrupt" if isinstance(error, ValueError) else "cannot be read"
    return f"{kind} ({reason(error)})"


def _decoded(content: Content) -> tuple[np.ndarray, int]:
    """Pixels as stored, (H, W, 3) uint8 RGB, and the orientation (1: upright)."""
    if isinstance(content, (str, Path)):
        content = Path(content).read_bytes()
    if isinstance(content, bytes):
        return decode_as_stored(content)
    if isinstance(content, Image.Image):
        orientation = orientation_of(content)
        pixels = _to_uint8_rgb(_from_pillow(content))
        if orientation_of(content) != orientation:  # Pillow rotates TIFF files on loading
            pixels = apply_orientation(pixels, UNTURN.get(orientation, orientation))
        return pixels, orientation
    return _to_uint8_rgb(content), 1


def _from_pillow(image: Image.Image) -> np.ndarray:
    """A PIL image as OpenCV decodes its file: without transparency, CMYK without a color profile,
    16 bits kept.
    """
    if image.mode == "F":
        raise UnsupportedError("a floating-point image; 8 and 16 bits are supported: convert it")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
            raise UnsupportedError(
                "an image of 32 bits per value; 8 and 16 bits are supported: convert it"
            )
        return values.astype(np.uint16)
    if image.mode == "CMYK":
        ink = 255 - np.asarray(image).astype(np.int32)
        black = ink[..., 3:]
        return (black - ((255 - ink[..., :3]) * black >> 8)).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def _to_uint8_rgb(image: np.ndarray) -> np.ndarray:
    """Convert an array to (H, W, 3) uint8 without alpha; of 16 bits the highest 8 are kept, as in
    packing.
    """
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        kind = getattr(image, "dtype", type(image).__name__)
        raise UnsupportedError(f"an array of {kind}; uint8 and uint16 are supported: convert it")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise UnsupportedError(f"an array of shape {image.shape}; (H, W), (H, W, 3 or 4) are")
    image = image[..., :3]
    if image.dtype == np.uint16:
        if 0 < image.max() < 256:  # as for files
            raise nothing_left(16)
        image = (image >> 8).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def resize_and_crop(image: np.ndarray, image_size: int, resize: str, fit: str) -> np.ndarray:
    """Resize an image, (H, W, 3), to the size of the pack. With ``fit="crop"``, the shorter side is
    resized and the center kept (torchvision's ``Resize`` and ``CenterCrop``); otherwise the aspect
    ratio is not preserved.
    """
    if fit == "crop":
        image = _middle(image)
        height, width = image.shape[:2]
        shorter = min(height, width)
        height, width = image_size * height // shorter, image_size * width // shorter
    else:
        height, width = image_size, image_size
    image = _resized(image, height, width, resize)
    top, left = (round((length - image_size) / 2) for length in (height, width))
    return np.ascontiguousarray(image[top : top + image_size, left : left + image_size])


def _middle(image: np.ndarray) -> np.ndarray:
    """The middle of a very long image: its ends would take memory, and are cropped later anyway."""
    most = MAX_ASPECT_RATIO * min(image.shape[:2])
    ends = [max(0, length - most) // 2 for length in image.shape[:2]]
    return image[ends[0] : image.shape[0] - ends[0], ends[1] : image.shape[1] - ends[1]]


def _resized(image: np.ndarray, height: int, width: int, resize: str) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    if resize in PIL_FILTERS:
        return np.asarray(Image.fromarray(image).resize((width, height), PIL_FILTERS[resize]))
    area = resize == "area" and min(image.shape[:2]) > min(height, width)
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR
    )


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode an RGB image as a JPEG file with colors at full resolution (4:4:4), (bytes,) uint8."""
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling])[1]
