"""Decode, resize and hash the images of a source in threads, to get the rows of a pack."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np
from tqdm import tqdm

from transferability.console import progress_bar
from transferability.data.config import DatasetConfig
from transferability.data.decode import RAW
from transferability.data.duplicates import pixel_hash
from transferability.data.near_duplicates import perceptual_hash
from transferability.data.prefetch import prefetch
from transferability.data.readers.base import RawDataset, Sample
from transferability.data.transforms import IMAGE_ERRORS, Preprocessing, as_jpeg, describe_failure
from transferability.errors import UserError, shown

log = logging.getLogger(__name__)
# images per call of a thread: for single images, the calls cost more than a core
CHUNK = 16
LOG_SECONDS = 60  # between two lines of progress without a terminal


@dataclass
class Chunk:
    """Some encoded images with the hashes of their pixels, the number with a tag for rotation, and
    (name, reason) of those that cannot be read.
    """

    rows: list[np.ndarray] = field(default_factory=list)  # pixels, or JPEG files
    hashes: list[bytes] = field(default_factory=list)
    perceptual: list[bytes] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    turned: int = 0

    def __len__(self) -> int:
        return len(self.rows) + len(self.bad)


def encoded(items: list[Sample], config: DatasetConfig, workers: int) -> Iterator[Chunk]:
    """``items`` in order, read and encoded, in chunks of CHUNK.

    Threads suffice: only reading headers and starting and ending calls hold Python's GIL.
    """
    cv2.setNumThreads(1)
    chunks = (items[i : i + CHUNK] for i in range(0, len(items), CHUNK))
    return prefetch(partial(encode_chunk, config=config), chunks, workers, waiting=workers)


def encode_chunk(items: list[Sample], config: DatasetConfig) -> Chunk:
    chunk, preprocessing = Chunk(), Preprocessing.of(vars(config) | {"encoding": None})
    for item in items:
        try:
            image, asks = preprocessing.resized(item.read())
            row = image if config.encoding == "raw" else as_jpeg(image, config.jpeg_quality)
        except IMAGE_ERRORS as error:
            chunk.bad.append((item.name, describe_failure(error)))
        else:
            chunk.rows.append(row)
            chunk.hashes.append(pixel_hash(image))
            chunk.perceptual.append(perceptual_hash(image))
            chunk.turned += asks
    return chunk


def with_progress(
    chunks: Iterator[Chunk], name: str, first: int, total: int
) -> Iterator[tuple[int, Chunk]]:
    """The number of images done, with each chunk; shows a progress bar, or logs lines without a
    terminal.
    """
    done, began = first, time.monotonic()
    said = began
    with progress_bar(total=total, initial=first, desc=f"packing {name}", unit="img") as bar:
        for chunk in chunks:
            done += len(chunk)
            bar.update(len(chunk))
            yield done, chunk
            if bar.disable and time.monotonic() - said >= LOG_SECONDS:
                said = time.monotonic()
                how = {"ncols": 0, "prefix": f"packing {name}", "unit": "img", "initial": first}
                log.info(tqdm.format_meter(done, total, said - began, **how))


def failures_of(chunk: Chunk, config: DatasetConfig) -> dict[str, str]:
    """Name -> reason of images that cannot be read. Raw camera files are always skipped, as are
    those recognized by extension.

    Raises:
        UserError: an image is corrupt and ``on_error=fail``.
    """
    corrupt = [(name, why) for name, why in chunk.bad if RAW not in why]
    if corrupt and config.on_error == "fail":
        name, error = corrupt[0]
        raise UserError(f"{name} {error}: fix or remove it, or set dataset.on_error=skip")
    return dict(chunk.bad)


def say_skipped(skipped: dict[str, str], source: RawDataset) -> None:
    """Log one line for raw camera files and one for corrupt images."""
    class_of = {item.name: source.classes[item.label].name for item in source.items}
    for what, raw in (("raw camera files", True), ("corrupt images", False)):
        if not (own := {name: why for name, why in skipped.items() if (RAW in why) == raw}):
            continue
        lost = sorted(Counter(class_of[name] for name in own).items())
        listed = ", ".join(f"{count} of class {shown(name)}" for name, count in lost)
        name, why = min(own.items())
        log.warning("skipped %d %s (%s); the first: %s %s", len(own), what, listed, name, why)
