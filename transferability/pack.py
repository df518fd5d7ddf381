"""Packing: any source into the one data format of ``datasets.py``. Atomic: the folder appears when it is whole."""

import hashlib
import json
import logging
import math
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
from transferability.datasets import (
    FORMAT,
    PackedDataset,
    and_more,
    checksum_of,
    open_dataset,
    part_checksums,
    shown,
)
from transferability.draws import numpy_generator
from transferability.errors import UserError
from transferability.sources import Item, Source, open_source, reason
from transferability.store import replacing, write_atomic

log = logging.getLogger(__name__)
_WHERE = ("folder", "source", "val_labels", "on_error")  # settings that do not change the images


def pack(config: DatasetConfig) -> PackedDataset:
    """The packed dataset of ``config``; packs it if it is not there yet. Asking again costs nothing.

    Raises:
        UserError: the source is missing or empty, an image is corrupt (``on_error=fail``), a class has no training
            or no validation images, the folder holds a dataset packed with other settings or cannot be written, or
            the source has gained or lost files since it was packed.
    """
    folder = Path(config.folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return _pack(config, folder)
    except OSError as error:
        raise UserError(
            f"{shown(folder)} cannot be written: {reason(error)}; set dataset.folder or data_dir"
        ) from error


def _pack(config: DatasetConfig, folder: Path) -> PackedDataset:
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (folder / "dataset.json").exists():
            dataset = open_packed(config)
            _check_source_unchanged(config, dataset)
            return dataset
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


def _check_source_unchanged(config: DatasetConfig, dataset: PackedDataset) -> None:
    """Where the source is still there, it must be the one that was packed; training does not need it."""
    recorded = dataset.meta.get("source_files")  # None: packed before they were recorded, or made of no files
    if not isinstance(recorded, dict) or not config.source or not os.path.exists(os.path.expanduser(config.source)):
        return
    try:
        found = _source_files(open_source(config))
        if found == recorded:
            return
        now, then = (f"{files.get('images')} images of {files.get('bytes')} bytes" for files in (found, recorded))
        differ = f"{then} then, {now} now" if now != then else f"{then}, of other names or sizes"
    except UserError as error:
        differ = str(error)
    raise UserError(
        f"dataset.source={shown(config.source)} is not what was packed into {shown(dataset.folder)} ({differ}): "
        "delete that folder to pack again, or set dataset.name to pack this beside it; training uses what was packed"
    )


def _source_files(source: Source) -> dict | None:
    """What tells a source that gained, lost or changed files, without reading them; None if it is made of no files."""
    digest, total, items = hashlib.sha256(), 0, [*source.train, *source.val]
    if not all(item.size for item in items):
        return None
    for item in items:
        size = item.size()
        total += max(size, 0)
        digest.update(repr((source.classes[item.label].name, item.name, size)).encode())
    digest.update(str(len(source.train)).encode())
    return {"images": len(items), "bytes": total, "digest": digest.hexdigest()[:16]}


def _check_classes(source: Source, config: DatasetConfig) -> None:
    where = shown(config.source or config.name)
    if not source.classes:
        raise UserError(f"{where} has no classes")
    for subset, items in (("training", source.train), ("validation", source.val)):
        present = {item.label for item in items}
        empty = [c.name for i, c in enumerate(source.classes) if i not in present]
        if empty:
            raise UserError(
                f"class {empty[0]!r}{and_more(empty)} of {where} has no {subset} images: add some, or leave it out"
            )


def _check_room(folder: Path, size: int) -> None:
    """A full disk kills a program that writes through mmap, so look before."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(f"{folder.parent} has {free / 1e9:.1f} GB free, the images need {size / 1e9:.1f}: set data_dir")


def _write(source: Source, config: DatasetConfig, folder: Path) -> None:
    """Write images, labels and description; corrupt images are left out and the rest packed anew."""
    files, skipped = _source_files(source), {}
    while True:
        items = [
            _shuffled([i for i in subset if i.name not in skipped], config.seed, name)
            for name, subset in (("train", source.train), ("val", source.val))
        ]
        rows = items[0] + items[1]
        shape = (len(rows), config.image_size, config.image_size, 3)
        _check_room(folder, math.prod(shape))
        images = open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        bad = {}
        for row, (item, image, error) in enumerate(_decoded(rows, config)):
            if error is None:
                images[row] = image
            elif config.on_error == "fail":
                raise UserError(f"{item.name} {error}: mend or remove it, or set dataset.on_error=skip")
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
    with replacing(folder / "labels.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, labels)
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
        "source_files": files,
        "part_checksums": part_checksums(labels, classes),
        "checksum": checksum_of(images, labels, classes),
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
        except ValueError as error:
            return item, None, f"is corrupt ({reason(error)})"
        except OSError as error:
            return item, None, f"cannot be read ({reason(error)})"
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
