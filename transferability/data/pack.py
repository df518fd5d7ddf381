"""Packing: any source into the one data format of ``packed.py``.

Atomic: the folder appears when it is whole. Until then the rows grow in a hidden folder beside it,
``.NAME.partial``. Every SAFE images they are forced to the disk, and ``progress.json`` says how
far: the next try goes on there, if it is to pack the same.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
from filelock import FileLock
from tqdm import tqdm

from transferability.console import progress_bar
from transferability.data.config import DatasetConfig
from transferability.data.decode import RAW
from transferability.data.duplicates import (
    HASH,
    describe,
    find_duplicates,
    near_duplicates,
    near_sentence,
    perceptual_hash,
    pixel_hash,
    redundant,
    summarize,
)
from transferability.data.pack_writer import HASHES, PERCEPTUALS, Chunk, PackWriter
from transferability.data.packed import (
    FORMAT,
    PackedDataset,
    checksum_of,
    encoding_of,
    open_dataset,
    open_images,
    open_packed,
    part_checksums,
    same_source,
    settings_of,
)
from transferability.data.readers import read_dataset
from transferability.data.readers.base import RawDataset, Sample
from transferability.data.readers.subsets import PARTS
from transferability.data.transforms import BAD, Preprocessing, as_jpeg, fault
from transferability.errors import UserError, and_more, reason, shown
from transferability.files import remove_leftovers, replacing, write_atomic
from transferability.rng import numpy_rng

log = logging.getLogger(__name__)
CHECKPOINT_EVERY = 4096  # images between two points from which packing can go on
# images that a thread takes at once: with one at a time, handing them over costs more than a core
CHUNK = 16
LOG_SECONDS = 60  # between two lines of progress where there is no terminal


def pack(config: DatasetConfig, workers: int | None = None) -> PackedDataset:
    """The packed dataset of ``config``; packs it if it is not there yet.

    Asking again costs nothing. A try that was stopped or killed is continued, to the same bytes;
    ``workers`` threads (None: one a core) decode.

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
        way = "make room and give the same command, or set" if full else "set"
        raise UserError(
            f"{shown(folder)} cannot be written: {reason(error)}; {way} dataset.folder or data_dir"
        ) from error


def _pack(config: DatasetConfig, folder: Path, workers: int) -> PackedDataset:
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (folder / "dataset.json").exists():
            dataset = open_packed(config)
            check_duplicates(dataset.meta.get("duplicates"), config)
            _say_near(
                dataset.meta.get("near_duplicates", {}), dataset.n_val + dataset.n_test, config
            )
            _say_turned(dataset.meta.get("turned", 0), len(dataset.labels), config)
            _check_source_unchanged(config, dataset)
            return dataset
        if folder.exists():
            raise UserError(
                f"{folder} exists and is no packed dataset: move it away, or set dataset.folder"
            )
        source = read_dataset(config)
        _check_classes(source, config)
        partial, what = folder.with_name(f".{folder.name}.partial"), _identity(source, config)
        try:
            # if there is one, it died just before the end of this function
            if read_if_same(partial / "dataset.json", what) is None:
                _write(source, config, partial, what, workers)
            for name in ("progress.json", HASHES, PERCEPTUALS):
                (partial / name).unlink(missing_ok=True)
            remove_leftovers(partial)
            os.replace(partial, folder)
            # it may know an earlier dataset of this folder, deleted since
            open_dataset.cache_clear()
        finally:
            if not any((partial / name).exists() for name in ("progress.json", "dataset.json")):
                shutil.rmtree(partial, ignore_errors=True)  # nothing to go on from
    return open_dataset(str(folder))


def _identity(source: RawDataset, config: DatasetConfig) -> dict[str, Any]:
    """What two packings must have in common to end with the same bytes;
    begins the description of the dataset.
    """
    what = {
        "format": FORMAT,
        "name": config.name,
        "settings": settings_of(config),
        "source": config.source,
        "source_files": _source_files(source),
        "opencv": cv2.__version__,
    }
    return json.loads(json.dumps(what))


def read_if_same(path: Path, what: dict[str, Any]) -> dict[str, Any] | None:
    """What the file says, if it is of a packing of ``what``."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        same = all(found[key] == value for key, value in what.items() if key != "source")
        return found if same and same_source(found, what) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_source_unchanged(config: DatasetConfig, dataset: PackedDataset) -> None:
    """Where the source is still there, it must be the one that was packed;
    training does not need it.
    """
    # None: packed before they were recorded, or made of no files
    recorded = dataset.meta.get("source_files")
    if (
        not isinstance(recorded, dict)
        or not config.source
        or not os.path.exists(os.path.expanduser(config.source))
    ):
        return
    try:
        found = _source_files(read_dataset(config)) or {}
        if found == recorded:
            return
        now, then = (
            f"{files.get('images')} images of {files.get('bytes')} bytes"
            for files in (found, recorded)
        )
        other = f"{then}, of other names or sizes, or in other parts (see dataset.parts)"
        differ = f"{then} then, {now} now" if now != then else other
    except UserError as error:
        differ = str(error)
    raise UserError(
        f"dataset.source={shown(config.source)} is not what was packed into "
        f"{shown(dataset.folder)} ({differ}): delete that folder to pack again, or set "
        "dataset.name to pack this beside it; training uses what was packed"
    )


def _source_files(source: RawDataset) -> dict | None:
    """What tells a source that gained, lost or changed files, without reading them;
    None if it is made of no files.
    """
    digest, total, items = hashlib.sha256(), 0, source.items
    for item in items:
        if not item.size:
            return None
        size = item.size()
        total += max(size, 0)
        digest.update(repr((source.classes[item.label].name, item.name, size)).encode())
    digest.update(" ".join(str(len(items)) for items in [*source.parts.values()][:-1]).encode())
    return {"images": len(items), "bytes": total, "digest": digest.hexdigest()[:16]}


def _check_classes(
    source: RawDataset, config: DatasetConfig, left_out: dict[str, str] | None = None
) -> None:
    """Whether each class has images of each part; ``left_out``:
    of those that do not count any more, the reason.
    """
    where = shown(config.source or config.name)
    if len(source.classes) < 2:
        names = "".join(f", {shown(c.name)}" for c in source.classes)
        raise UserError(
            f"{where} has {len(source.classes)} classes{names}: a task needs at least two"
        )
    for part, items in source.parts.items():
        labels = {item.label for item in items if item.name not in (left_out or ())}
        if empty := [i for i in range(len(source.classes)) if i not in labels]:
            lacking = [source.classes[i].name for i in empty]
            lost = [item.name for item in items if item.label == empty[0]]
            why = (
                f"the {len(lost)} it had are left out, the first {lost[0]} "
                f"{(left_out or {})[lost[0]]}; "
                if lost
                else ""
            )
            raise UserError(
                f"class {lacking[0]!r}{and_more(lacking)} of {where} has no {part} images: {why}"
                "add some, or leave it out"
            )


def _check_room(folder: Path, size: int) -> None:
    """Look before hours of packing; a disk that fills up later ends them in one line,
    and they go on after it.
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
    """Write images, labels and description into ``folder``,
    going on where an earlier try of the same was stopped.
    """
    progress = resume_point(folder, what)
    source, dropped = deduplicate(_shuffled(source, config.seed), config, workers)
    skipped, turned, items = progress["skipped"], progress["turned"], source.items
    raw = len(items) * config.image_size**2 * 3
    # of photographs, at quality 95
    _check_room(folder, raw if config.encoding == "raw" else raw // 4)
    with PackWriter(folder, config, progress["sizes"]) as rows:
        safe = progress["items"]
        for done, piece in with_progress(
            encoded(items[safe:], config, workers), config.name, safe, len(items)
        ):
            skipped |= failures_of(piece, config)
            rows.append(piece)
            turned += piece.turned
            if done - safe >= CHECKPOINT_EVERY:
                safe = done
                state = {"items": done, "skipped": skipped, "turned": turned, "sizes": rows.sync()}
                write_atomic(folder / "progress.json", json.dumps({**what, **state}))
        rows.finish()
    if skipped:
        _say_skipped(skipped, source)
        _check_classes(source, config, skipped)
        source = _without(source, skipped)
    hashes = np.load(folder / HASHES)
    equal = summarize(find_duplicates(source, hashes))
    check_duplicates(equal, config)
    near = {}
    if not config.embedded:
        images = open_images(
            folder, len(hashes), config.image_size, encoding_of(what["settings"], folder)
        )
        near = near_duplicates(source, images, np.load(folder / PERCEPTUALS), hashes)
    _say_near(near, len(source.items) - len(source.train), config)
    _say_turned(turned, len(source.items), config)
    found = {"duplicates": dropped or equal, "near_duplicates": near, "turned": turned}
    _describe(source, folder, what, skipped, {k: v for k, v in found.items() if v})


def _describe(
    source: RawDataset, folder: Path, what: dict[str, Any], skipped: dict[str, str], found: dict
) -> None:
    """Write the labels, and last the description: with it the dataset is whole."""
    labels = np.array([item.label for item in source.items], dtype=np.int64)
    with replacing(folder / "labels.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, labels)
    images = open_images(
        folder, len(labels), what["settings"]["image_size"], encoding_of(what["settings"], folder)
    )
    classes = [asdict(c) for c in source.classes]
    description = {
        **what,
        "image_size": what["settings"]["image_size"],
        "n_train": len(source.train),
        "n_val": len(source.val),
        **({"n_test": len(source.test)} if source.test else {}),
        "classes": classes,
        "skipped": skipped,
        **found,
        "part_checksums": part_checksums(labels, classes),
        "checksum": checksum_of(images, labels, classes),  # of what the disk gives back
    }
    write_atomic(folder / "dataset.json", json.dumps(description, indent=1) + "\n")


def deduplicate(
    source: RawDataset, config: DatasetConfig, workers: int
) -> tuple[RawDataset, dict[str, Any]]:
    """``source`` as ``duplicates`` wants it, and what was found;
    to drop or refuse, every image is read beforehand.
    """
    if config.duplicates == "keep":
        return source, {}
    read = encoded(source.items, replace(config, encoding="raw"), workers)
    hashes, bad = list[bytes](), dict[str, str]()
    for _, piece in with_progress(read, f"{config.name}: comparing", 0, len(source.items)):
        bad |= failures_of(piece, config)
        hashes += piece.hashes
    groups = find_duplicates(
        _without(source, bad), np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH)
    )
    found = summarize(groups)
    check_duplicates(found, config)
    left_out = redundant(groups)
    if left_out:
        log.warning(
            "%s: %d images dropped, of equal pictures: %s",
            config.name,
            len(left_out),
            describe(found),
        )
        _check_classes(source, config, left_out)
    return _without(source, left_out), found


def check_duplicates(equal: dict[str, Any] | None, config: DatasetConfig) -> None:
    if equal and config.duplicates == "fail":
        raise UserError(
            f"{shown(config.source)} has equal pictures: {describe(equal)}: take them away, or set "
            "dataset.duplicates=drop, or keep"
        )
    if equal and config.duplicates == "keep":
        log.warning(
            "%s has equal pictures: %s; copies flatter accuracy, or mislead it: "
            "dataset.duplicates=drop takes them out",
            config.name,
            describe(equal),
        )


def _say_near(near: dict[str, Any], held_out: int, config: DatasetConfig) -> None:
    """One line where pictures have near-duplicates."""
    if not near:
        return
    if not near["held out"]:
        log.info("%s: %s", config.name, near_sentence(near, held_out))
        return
    names = " and ".join(near["first"])
    # as Roboflow names the copies that it makes of an image
    way = "'([^/]+)[.]rf[.]'" if all(".rf." in name for name in near["first"]) else "PATTERN"
    log.warning(
        '%s: %s (first %s); they flatter accuracy: "dataset.group=%s" keeps the files in '
        "whose paths the pattern finds the same on one side",
        config.name,
        near_sentence(near, held_out),
        names,
        way,
    )


def _say_turned(turned: int, images: int, config: DatasetConfig) -> None:
    """One line where images ask to be turned, as those of a phone that was held upright do."""
    if turned and config.orientation == "apply":
        log.info(
            "%s: %d of %d images are turned, as they ask (dataset.orientation=apply)",
            config.name,
            turned,
            images,
        )
    elif turned:
        log.warning(
            "%s: %d of %d images ask to be turned (EXIF or TIFF) and are packed as they are "
            "stored: dataset.orientation=apply turns them",
            config.name,
            turned,
            images,
        )


def failures_of(piece: Chunk, config: DatasetConfig) -> dict[str, str]:
    """What is wrong with images, by name; an error if they are not to be skipped.

    Raw files of a camera are left out anyhow, as those whose ending says it are.
    """
    corrupt = [(name, why) for name, why in piece.bad if RAW not in why]
    if corrupt and config.on_error == "fail":
        name, error = corrupt[0]
        raise UserError(f"{name} {error}: mend or remove it, or set dataset.on_error=skip")
    return dict(piece.bad)


def _say_skipped(skipped: dict[str, str], source: RawDataset) -> None:
    """One line for raw files of a camera, one for corrupt images."""
    class_of = {item.name: source.classes[item.label].name for item in source.items}
    for what, raw in (("raw files of a camera", True), ("corrupt images", False)):
        if not (own := {name: why for name, why in skipped.items() if (RAW in why) == raw}):
            continue
        lost = sorted(Counter(class_of[name] for name in own).items())
        listed = ", ".join(f"{count} of class {shown(name)}" for name, count in lost)
        name, why = min(own.items())
        log.warning("skipped %d %s (%s); the first: %s %s", len(own), what, listed, name, why)


def resume_point(folder: Path, what: dict[str, Any]) -> dict[str, Any]:
    """How far an earlier try to pack ``what`` is safe on the disk;
    else an empty folder, and a start at 0.
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
        log.info("packing %s goes on after %s images", what["name"], f"{found['items']:,}")
        return found
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return {"items": 0, "skipped": {}, "turned": 0, "sizes": {}}


def _shuffled(source: RawDataset, seed: int) -> RawDataset:
    def of(items: list[Sample], part: str) -> list[Sample]:
        return [items[i] for i in numpy_rng(seed, "pack", part).permutation(len(items))]

    parts: dict[str, Any] = {part: of(getattr(source, part), part) for part in PARTS}
    return replace(source, **parts)


def _without(source: RawDataset, names: Collection[str]) -> RawDataset:
    """The images of other names."""
    own: dict[str, Any] = {p: [i for i in getattr(source, p) if i.name not in names] for p in PARTS}
    return replace(source, **own)


def encoded(items: list[Sample], config: DatasetConfig, workers: int) -> Iterator[Chunk]:
    """``items`` in order, read and fitted.

    Comes in pieces of PIECE items, decoded by ``workers`` threads, a few pieces ahead. Threads, as
    all but the reading of headers and handing over happens outside of Python's lock.
    """
    cv2.setNumThreads(1)
    pieces = (items[i : i + CHUNK] for i in range(0, len(items), CHUNK))
    with ThreadPoolExecutor(workers) as pool:
        try:
            ahead = deque(
                pool.submit(encode_chunk, piece, config) for piece in islice(pieces, 2 * workers)
            )
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(
                    pool.submit(encode_chunk, piece, config) for piece in islice(pieces, 1)
                )
        finally:
            pool.shutdown(cancel_futures=True)


def encode_chunk(items: list[Sample], config: DatasetConfig) -> Chunk:
    piece, preprocessing = Chunk(), Preprocessing.of(vars(config) | {"encoding": None})
    for item in items:
        try:
            image, asks = preprocessing.fitted(item.read())
            row = image if config.encoding == "raw" else as_jpeg(image, config.jpeg_quality)
        except BAD as error:
            piece.bad.append((item.name, fault(error)))
        else:
            piece.rows.append(row)
            piece.hashes.append(pixel_hash(image))
            piece.perceptual.append(perceptual_hash(image))
            piece.turned += asks
    return piece


def with_progress(
    pieces: Iterator[Chunk], name: str, first: int, total: int
) -> Iterator[tuple[int, Chunk]]:
    """Each piece after the number of images done with it;
    a bar on the way, or lines where there is no terminal.
    """
    done, began = first, time.monotonic()
    said = began
    with progress_bar(total=total, initial=first, desc=f"packing {name}", unit="img") as bar:
        for piece in pieces:
            done += len(piece.rows) + len(piece.bad)
            bar.update(len(piece.rows) + len(piece.bad))
            yield done, piece
            if bar.disable and time.monotonic() - said >= LOG_SECONDS:
                said = time.monotonic()
                how = {"ncols": 0, "prefix": f"packing {name}", "unit": "img", "initial": first}
                log.info(tqdm.format_meter(done, total, said - began, **how))
