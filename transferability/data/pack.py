"""Pack any source into the data format of ``packed.py``.

Packing is atomic: the folder appears when it is complete. Until then, rows are written to a hidden
folder beside it, ``.NAME.partial``. Every CHECKPOINT_EVERY images they are forced to disk, and
``progress.json`` records how many: the next attempt to pack the same resumes there.
"""

import errno
import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from filelock import FileLock

from transferability.data.arrays import open_images
from transferability.data.config import DatasetConfig
from transferability.data.description import encoding_of
from transferability.data.duplicates import (
    HASH,
    check_duplicates,
    describe,
    find_duplicates,
    redundant,
    summarize,
)
from transferability.data.encode import encoded, failures_of, say_skipped, with_progress
from transferability.data.near_duplicates import near_duplicates, say_near
from transferability.data.pack_identity import check_source_unchanged, pack_identity, read_if_same
from transferability.data.pack_writer import HASHES, PERCEPTUALS, PackWriter
from transferability.data.packed import (
    PackedDataset,
    checksum_of,
    open_dataset,
    open_packed,
    part_checksums,
)
from transferability.data.readers import read_dataset
from transferability.data.readers.base import RawDataset
from transferability.errors import UserError, and_more, reason
from transferability.files import remove_leftovers, replacing, write_atomic
from transferability.rng import numpy_rng

log = logging.getLogger(__name__)
CHECKPOINT_EVERY = 4096  # images between two points at which packing can resume


def pack(config: DatasetConfig, workers: int | None = None) -> PackedDataset:
    """Return the packed dataset of ``config``; pack it first if necessary.

    An existing pack is not packed again. An attempt that was stopped or killed is resumed and gives
    the same bytes. ``workers`` threads (None: one per core) decode.

    Raises:
        UserError: the source is missing or empty, an image is corrupt (``on_error=fail``), a class
            has no training or no validation images, the folder holds a dataset packed with other
            settings or cannot be written, or the source has gained or lost files since it was
            packed.
    """
    folder = Path(config.folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return _pack(config, folder, workers or joblib.cpu_count())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        way = "make room and run the same command again, or set" if full else "set"
        raise UserError(
            f"{folder} cannot be written: {reason(error)}; {way} dataset.folder or data_dir"
        ) from error


def _pack(config: DatasetConfig, folder: Path, workers: int) -> PackedDataset:
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        packed_before = (folder / "dataset.json").exists()
        if not packed_before:
            _pack_anew(config, folder, workers)
        dataset = open_packed(config)
        meta, images = dataset.meta, len(dataset.labels)
        check_duplicates(meta.get("duplicates"), config)
        say_near(meta.get("near_duplicates", {}), images - dataset.n_train, config)
        _say_turned(meta.get("turned", 0), images, config)
        if packed_before:
            check_source_unchanged(config, dataset)
        return dataset


def _pack_anew(config: DatasetConfig, folder: Path, workers: int) -> None:
    """Pack into a hidden folder beside ``folder``, which is renamed to ``folder`` when complete."""
    if folder.exists():
        raise UserError(
            f"{folder} exists and is not a packed dataset: move it away, or set dataset.folder"
        )
    source = read_dataset(config)
    _check_classes(source, config)
    partial, what = folder.with_name(f".{folder.name}.partial"), pack_identity(source, config)
    try:
        # if there is one, an earlier attempt ended just before the rename below
        if read_if_same(partial / "dataset.json", what) is None:
            _write(source, config, partial, what, workers)
        for name in ("progress.json", HASHES, PERCEPTUALS):
            (partial / name).unlink(missing_ok=True)
        remove_leftovers(partial)
        os.replace(partial, folder)
        open_dataset.cache_clear()  # may cache a deleted dataset of this folder
    finally:
        if not any((partial / name).exists() for name in ("progress.json", "dataset.json")):
            shutil.rmtree(partial, ignore_errors=True)  # nothing to resume from


def _check_classes(
    source: RawDataset, config: DatasetConfig, left_out: dict[str, str] | None = None
) -> None:
    """Check that each class has images in each subset. ``left_out``: name -> reason of images that
    do not count.
    """
    where = config.source or config.name
    if len(source.classes) < 2:
        names = "".join(f", {c.name}" for c in source.classes)
        raise UserError(
            f"{where} has {len(source.classes)} classes{names}: a task needs at least two"
        )
    for subset, items in source.subsets.items():
        labels = {item.label for item in items if item.name not in (left_out or ())}
        if empty := [i for i in range(len(source.classes)) if i not in labels]:
            lacking = [source.classes[i].name for i in empty]
            lost = [item.name for item in items if item.label == empty[0]]
            why = ""
            if lost and left_out:
                why = f"the {len(lost)} it had are left out, the first {lost[0]} "
                why += f"{left_out[lost[0]]}; "
            raise UserError(
                f"no {subset} images of class {lacking[0]!r}{and_more(lacking)} in {where}: {why}"
                "add some, or leave it out"
            )


def _check_room(folder: Path, size: int) -> None:
    """Check the free space before hours of packing. A disk that fills up later ends packing with an
    error, and packing can resume.
    """
    written = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if size - written > free:
        raise UserError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, the images need "
            f"{(size - written) / 1e9:.1f}: set data_dir"
        )


def _write(
    source: RawDataset, config: DatasetConfig, folder: Path, what: dict[str, Any], workers: int
) -> None:
    """Write images, then labels and description, into ``folder``; resume an earlier attempt to pack
    the same.
    """
    progress = resume_point(folder, what)
    source = source.each(
        lambda subset, items: [
            items[i] for i in numpy_rng(config.seed, "pack", subset).permutation(len(items))
        ]
    )
    source, dropped = deduplicate(source, config, workers)
    skipped, turned, items = progress["skipped"], progress["turned"], source.items
    raw = len(items) * config.image_size**2 * 3
    # raw // 4: for photographs at quality 95
    _check_room(folder, raw if config.encoding == "raw" else raw // 4)
    with PackWriter(folder, config, progress["sizes"]) as rows:
        safe = progress["items"]
        chunks = encoded(items[safe:], config, workers)
        for done, chunk in with_progress(chunks, config.name, safe, len(items)):
            skipped |= failures_of(chunk, config)
            rows.append(chunk)
            turned += chunk.turned
            if done - safe >= CHECKPOINT_EVERY:
                safe = done
                state = {"items": done, "skipped": skipped, "turned": turned, "sizes": rows.sync()}
                write_atomic(folder / "progress.json", json.dumps({**what, **state}))
        rows.finish()
    if skipped:
        say_skipped(skipped, source)
        _check_classes(source, config, skipped)
        source = source.without(skipped)
    found = {"skipped": skipped, "duplicates": dropped, "turned": turned}
    _describe(source, config, folder, what, found)


def _describe(
    source: RawDataset, config: DatasetConfig, folder: Path, what: dict[str, Any], found: dict
) -> None:
    """Write the labels, and last the description, which completes the dataset.

    ``found``: the skipped and duplicate images, and the number with a tag for rotation.
    """
    hashes = np.load(folder / HASHES)
    encoding = encoding_of(what["settings"], folder)
    images = open_images(folder, len(hashes), config.image_size, encoding)
    near = {}
    if not config.synthetic:
        near = near_duplicates(source, images, np.load(folder / PERCEPTUALS), hashes)
    labels = np.array([item.label for item in source.items], dtype=np.int64)
    with replacing(folder / "labels.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, labels)
    of_images = {
        "duplicates": found["duplicates"] or summarize(find_duplicates(source, hashes)),
        "near_duplicates": near,
        "turned": found["turned"],
    }
    classes = [asdict(c) for c in source.classes]
    description = {
        **what,
        "image_size": config.image_size,
        "n_train": len(source.train),
        "n_val": len(source.val),
        **({"n_test": len(source.test)} if source.test else {}),
        "classes": classes,
        "skipped": found["skipped"],
        **{key: value for key, value in of_images.items() if value},
        "part_checksums": part_checksums(labels, classes),
        "checksum": checksum_of(images, labels, classes),  # as read back from disk
    }
    write_atomic(folder / "dataset.json", json.dumps(description, indent=1) + "\n")


def deduplicate(
    source: RawDataset, config: DatasetConfig, workers: int
) -> tuple[RawDataset, dict[str, Any]]:
    """Apply ``dataset.duplicates`` to ``source``, and return it with a summary of the duplicates.
    To drop or refuse duplicates, every image is read beforehand.
    """
    if config.duplicates == "keep":
        return source, {}
    read = encoded(source.items, replace(config, encoding="raw"), workers)
    hashes, bad = list[bytes](), dict[str, str]()
    for _, chunk in with_progress(read, f"{config.name}: comparing", 0, len(source.items)):
        bad |= failures_of(chunk, config)
        hashes += chunk.hashes
    groups = find_duplicates(
        source.without(bad), np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH)
    )
    found = summarize(groups)
    check_duplicates(found, config)
    left_out = redundant(groups)
    if left_out:
        log.warning(
            "%s: %d images dropped, of duplicate images: %s",
            config.name,
            len(left_out),
            describe(found),
        )
        _check_classes(source, config, left_out)
    return source.without(left_out), found


def _say_turned(turned: int, images: int, config: DatasetConfig) -> None:
    """Log the number of images with a tag for rotation, as phones set when held upright."""
    if turned and config.orientation == "apply":
        log.info(
            "%s: %d of %d images are rotated according to their tags (dataset.orientation=apply)",
            config.name,
            turned,
            images,
        )
    elif turned:
        log.warning(
            "%s: %d of %d images have an EXIF or TIFF tag that asks for rotation, and are packed "
            "as they are stored: dataset.orientation=apply rotates them",
            config.name,
            turned,
            images,
        )


def resume_point(folder: Path, what: dict[str, Any]) -> dict[str, Any]:
    """The progress of an earlier attempt to pack ``what``, as far as it is safe on disk; else 0, in
    an empty folder.
    """
    found = read_if_same(folder / "progress.json", what)
    sizes = found["sizes"] if found else {}
    if (
        found
        and HASHES in sizes
        and "turned" in found
        and all(
            (folder / n).exists() and (folder / n).stat().st_size >= s for n, s in sizes.items()
        )
    ):
        log.info("packing %s resumes after %s images", what["name"], f"{found['items']:,}")
        return found
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return {"items": 0, "skipped": {}, "turned": 0, "sizes": {}}
