"""Near-duplicates in a dataset: images with similar perceptual hashes, mirrored or not, whose gray
pixels correlate.

Near-duplicates are re-encoded, resized, mirrored, brightened or blurred copies. Copies that are
rotated or cropped by a few percent are not found.
"""

import logging
from typing import Any

import cv2
import numpy as np

from transferability.data.config import DatasetConfig
from transferability.data.readers.base import RawDataset

log = logging.getLogger(__name__)
PERCEPTUAL = 8  # bytes
# Most bits that differ, of 63; least correlation; side of the gray images. Of copies of photographs
# at JPEG quality 50, at half size or mirrored, 99 of 100 differ in at most 4 bits. Of 80,000 pairs
# of different hand signs, 4 differ in at most 6 bits, with correlations of at most 0.9.
_BITS, _CORRELATION, _GRAY = 6, 0.95, 32
_MIRROR = np.packbits(np.arange(64) % 2 == 1).view(">u8").astype(np.uint64)[0]
_PLAIN = 2.0  # standard deviation in gray levels below which images are indistinguishable
_COMPARISONS, _MOST_PAIRS = 1 << 27, 100_000


def perceptual_hash(image: np.ndarray) -> bytes:
    """PERCEPTUAL bytes: the signs of the lowest frequencies of an image, (H, W, 3) uint8, which
    brightness, contrast and compression hardly change; 0 for a plain image.

    Mirroring changes the sign of every odd horizontal frequency, and of no other.
    """
    gray = _gray(image)
    if cv2.meanStdDev(gray)[1][0, 0] < _PLAIN:
        return bytes(PERCEPTUAL)
    signs = cv2.dct(gray.astype(np.float32))[:8, :8].ravel() > 0
    signs[0] = False  # the mean
    return np.packbits(signs).tobytes()


def _gray(image: np.ndarray) -> np.ndarray:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (_GRAY, _GRAY), interpolation=cv2.INTER_AREA)


def near_duplicates(
    source: RawDataset, images: Any, perceptual: np.ndarray, equal: np.ndarray
) -> dict[str, Any]:
    """Count images with a near-duplicate, and held-out images with one in another subset; {}
    without any.

    ``images``: the rows of the pack; ``perceptual``: (N, PERCEPTUAL) uint8 and ``equal``: (N, HASH)
    uint8, their hashes; all in the order of ``source.subsets``. Duplicate images do not count.
    """
    first, second, mirrored = _alike(perceptual.view(">u8").ravel().astype(np.uint64))
    unequal = (equal[first] != equal[second]).any(axis=1)
    first, second, mirrored = (a[unequal] for a in (first, second, mirrored))
    near = _correlations(images, first, second, mirrored) >= _CORRELATION
    first, second = first[near], second[near]
    if not len(first):
        return {}
    subset = np.repeat(np.arange(len(source.subsets)), [len(p) for p in source.subsets.values()])
    across = subset[first] != subset[second]
    # training images come first, so the second of a pair is held out
    k = int(np.argmax(across))
    names = [source.items[i].name for i in (first[k], second[k])]
    return {
        "pictures": len(np.union1d(first, second)),
        "held out": len(np.unique(second[across])),
        "first": names,
    }


def _alike(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of images whose hashes, (N,) uint64, differ in at most _BITS bits: first < second, and
    whether one has to be mirrored.

    The search is exhaustive among some thousand images. Among more, it finds pairs that are near
    each other in one of eight orders, so that time grows only a little faster than the number of
    images.
    """
    pictures = np.flatnonzero(hashes)
    entries = np.concatenate([hashes[pictures], hashes[pictures] ^ _MIRROR])
    window = min(len(entries) - 1, max(16, _COMPARISONS // max(1, len(entries))))
    found = [np.empty((2, 0), np.int64)]
    for turn in range(1 if window == len(entries) - 1 else 8):
        # sorted by each byte first
        bytes_ = np.roll(entries.astype(">u8")[:, None].view(np.uint8), -turn, axis=1)
        order = np.argsort(np.ascontiguousarray(bytes_).view(">u8").ravel(), kind="stable")
        ordered, count = entries[order], 0
        for shift in range(1, window + 1):
            close = np.bitwise_count(ordered[shift:] ^ ordered[:-shift]) <= _BITS
            at = np.flatnonzero(close)
            found.append(np.stack([order[at], order[at + shift]]))
            count += len(at)
            if count > 4 * _MOST_PAIRS:  # so many that each has a neighbor among the nearest
                break
    pairs, n = np.concatenate(found, axis=1), max(1, len(pictures))
    mirrored = (pairs >= n).sum(axis=0) == 1
    first, second = np.sort(pairs % n, axis=0)
    keys = np.unique(((first * n + second) * 2 + mirrored)[first != second])
    keys = keys[:: max(1, -(-len(keys) // _MOST_PAIRS))]
    return pictures[keys // 2 // n], pictures[keys // 2 % n], keys % 2 == 1


def _correlations(
    images: Any, first: np.ndarray, second: np.ndarray, mirrored: np.ndarray
) -> np.ndarray:
    """Correlations of the gray pixels of pairs of rows, (pairs,) float32."""
    rows = np.union1d(first, second)
    gray = np.empty((len(rows), _GRAY, _GRAY), np.uint8)
    for start in range(0, len(rows), 256):
        for i, image in enumerate(images[rows[start : start + 256]]):
            gray[start + i] = _gray(image)
    out = np.empty(len(first), np.float32)
    for start in range(0, len(first), 1024):
        here = slice(start, start + 1024)
        a, b = (_normal(gray[np.searchsorted(rows, side[here])]) for side in (first, second))
        b[mirrored[here]] = b[mirrored[here], :, ::-1]
        out[here] = (a * b).sum(axis=(1, 2))
    return out


def _normal(gray: np.ndarray) -> np.ndarray:
    """Normalize each image to mean 0 and length 1."""
    out = gray - gray.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return out / np.sqrt((out**2).sum(axis=(1, 2), keepdims=True)).clip(1e-6)


def near_sentence(near: dict[str, Any], held_out: int) -> str:
    """Describe the result of :func:`near_duplicates` in words; ``held_out``: the number of held-out
    images.
    """
    return (
        f"{near['pictures']:,} images have near-duplicates (saved again, mirrored or changed a "
        f"little), {near['held out']:,} of the {held_out:,} held-out images in another subset"
    )


def say_near(near: dict[str, Any], held_out: int, config: DatasetConfig) -> None:
    """Log one line if images have near-duplicates."""
    if not near:
        return
    if not near["held out"]:
        log.info("%s: %s", config.name, near_sentence(near, held_out))
        return
    names = " and ".join(near["first"])
    # as Roboflow names its copies of an image
    way = "'([^/]+)[.]rf[.]'" if all(".rf." in name for name in near["first"]) else "PATTERN"
    log.warning(
        '%s: %s (first %s); they inflate accuracy: "dataset.group=%s" keeps files '
        "in whose paths the pattern matches the same text on one side",
        config.name,
        near_sentence(near, held_out),
        names,
        way,
    )
