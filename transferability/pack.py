"""Packing: any source into the one data format of ``datasets.py``. Atomic: the folder appears when it is whole."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import cv2
import joblib
import numpy as np
from filelock import FileLock
from numpy.lib.format import open_memmap
from tqdm import tqdm

from transferability.config import DatasetConfig
from transferability.datasets import FORMAT, PackedDataset, open_dataset
from transferability.draws import numpy_generator
from transferability.errors import UserError
from transferability.sources import Item, Source, open_source
from transferability.store import write_atomic

log = logging.getLogger(__name__)
_WHERE = ("folder", "source", "val_labels", "on_error")  # settings that do not change the images


def pack(config: DatasetConfig) -> PackedDataset:
    """The packed dataset of ``config``; packs it if it is not there yet. Asking again costs nothing.

    Raises:
        UserError: the source is missing or empty, an image is corrupt (``on_error=fail``), a class has no training
            or no validation images, or the folder holds a dataset packed with other settings.
    """
    folder = Path(config.folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (folder / "dataset.json").exists():
            return open_packed(config)
        if folder.exists():
            raise UserError(f"{folder} exists and is no packed dataset: move it away, or set dataset.folder")
        source = open_source(config)
        _check_classes(source, config)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # left behind by a crash
        partial.mkdir()
        try:
            _write(source, config, partial)
            os.replace(partial, folder)
            open_dataset.cache_clear()  # it may know an earlier dataset of this folder, deleted since
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return open_dataset(str(folder))


def open_packed(config: DatasetConfig) -> PackedDataset:
    """The dataset of ``config``, packed before.

    Raises:
        UserError: it is not packed, or was packed from another source or with other settings.
    """
    dataset = open_dataset(config.folder)
    wanted, found = _settings(config), dataset.meta["settings"]
    differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if config.source and dataset.meta.get("source", config.source) != config.source:
        raise UserError(
            f"{config.folder} was packed from {dataset.meta['source']}, not from dataset.source={config.source}: set "
            "dataset.name to pack this beside it, or delete the folder"
        )
    if differing:
        raise UserError(
            f"{config.folder} was packed with other settings ({', '.join(differing)}): set dataset.name to pack these "
            "beside it, or delete the folder"
        )
    return dataset


def _settings(config: DatasetConfig) -> dict:
    return {k: v for k, v in asdict(config).items() if k not in _WHERE}


def _check_classes(source: Source, config: DatasetConfig) -> None:
    for subset, items in (("training", source.train), ("validation", source.val)):
        present = {item.label for item in items}
        empty = [c.name for i, c in enumerate(source.classes) if i not in present]
        if empty:
            more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
            raise UserError(f"class {empty[0]!r}{more} of {config.source or config.name} has no {subset} images")


def _write(source: Source, config: DatasetConfig, folder: Path) -> None:
    """Write images, labels and description; corrupt images are left out and the rest packed anew."""
    skipped: dict[str, str] = {}
    while True:
        items = [
            _shuffled([i for i in subset if i.name not in skipped], config.seed, name)
            for name, subset in (("train", source.train), ("val", source.val))
        ]
        rows = items[0] + items[1]
        shape = (len(rows), config.image_size, config.image_size, 3)
        images = open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        bad = {}
        for row, (item, image, error) in enumerate(_decoded(rows, config)):
            if error is None:
                images[row] = image
            elif config.on_error == "fail":
                raise UserError(f"{item.name} is corrupt ({error}): mend it, or set dataset.on_error=skip")
            else:
                bad[item.name] = error
        if not bad:
            break
        skipped |= bad
        log.warning("skipping %d corrupt images: %s", len(bad), ", ".join(sorted(bad)[:5]))
        remaining = Source(
            source.classes, *([i for i in s if i.name not in skipped] for s in (source.train, source.val))
        )
        _check_classes(remaining, config)
    images.flush()
    labels = np.array([item.label for item in rows], dtype=np.int64)
    np.save(folder / "labels.npy", labels)
    classes = [asdict(c) for c in source.classes]
    description = {
        "format": FORMAT,
        "name": config.name,
        "settings": _settings(config),
        "source": config.source,
        "image_size": config.image_size,
        "n_train": len(items[0]),
        "n_val": len(items[1]),
        "classes": classes,
        "skipped": skipped,
        "checksum": _checksum(images, labels, classes),
    }
    write_atomic(folder / "dataset.json", json.dumps(description, indent=1) + "\n")


def _shuffled(items: list[Item], seed: int, subset: str) -> list[Item]:
    return [items[i] for i in numpy_generator(seed, "pack", subset).permutation(len(items))]


def _decoded(items: list[Item], config: DatasetConfig) -> Iterator[tuple[Item, np.ndarray | None, str | None]]:
    """Every item with its image at the packed size, or with what is wrong with it, in order."""
    size = (config.image_size, config.image_size)

    def load(item: Item) -> tuple[Item, np.ndarray | None, str | None]:
        try:
            image = item.load()
        except (ValueError, OSError) as error:
            return item, None, str(error)
        if image.shape[:2] != size:
            shrinks = min(image.shape[:2]) > config.image_size
            area = config.resize == "area" and shrinks
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)
        return item, image, None

    cv2.setNumThreads(1)
    workers = joblib.cpu_count()
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(items), desc=f"packing {config.name}", unit="img", disable=None) as bar,
    ):
        for start in range(0, len(items), 4096):  # bounded look-ahead: decoded images wait in memory
            for result in pool.map(load, items[start : start + 4096]):
                bar.update()
                yield result


def _checksum(images: np.ndarray, labels: np.ndarray, classes: list[dict]) -> str:
    """SHA-256 of all pixels in row order, all labels and the classes."""
    digest = hashlib.sha256(json.dumps(classes, sort_keys=True).encode())
    digest.update(labels.astype("<i8").tobytes())
    for start in range(0, len(images), 1024):
        digest.update(np.ascontiguousarray(images[start : start + 1024]).data)
    return digest.hexdigest()
