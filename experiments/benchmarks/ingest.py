"""How fast images are packed and read back, compared with what a cohort consumes.

python -m experiments.benchmarks.ingest                      packs synthetic images, enlarged
python -m experiments.benchmarks.ingest dataset=imagenet dataset.source=PATH
                                                             packs JPEG files from a folder or a
                                                             zip, again and again

Every comparison is a ratio measured in this one run, the variants taking turns; absolute speeds
depend on the machine and its load. Only temporary files are written, below data_dir, whose disk is
measured.

Settings used most:
dataset.source=PATH    JPEG files, a folder or a zip
data_dir=FOLDER        the disk that is measured
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import joblib
import numpy as np
import torch
from numpy.lib.format import open_memmap

from experiments.benchmarks.ingest_tables import (
    ENCODINGS,
    WAYS,
    print_needs,
    print_packing,
    print_reading,
)
from experiments.benchmarks.timing import taking_turns
from transferability.data.arrays import JpegRows
from transferability.data.config import DatasetConfig
from transferability.data.pack import pack
from transferability.data.packed import PackedDataset
from transferability.data.prefetch import prefetch
from transferability.data.readers import read_dataset
from transferability.data.readers.file_tree import FileTree
from transferability.errors import UserError
from transferability.study.config import Config
from transferability.study.recipe import RecipeConfig
from transferability.training.loader import READERS, TaskLoader

SIDE, BATCH = 256, 256
# images to pack; rows of the pack that is read; rows read per measurement; rounds
IMAGES, ROWS, READS, ROUNDS = 400, 16384, 1024, 3


def make_files(config: DatasetConfig, folder: Path, count: int) -> str:
    """Fill two class folders in ``folder`` with ``count`` links to at most 100 JPEG files; return
    their description.
    """
    tree = FileTree(config.source) if config.source and Path(config.source).exists() else None
    if tree and (names := tree.images("")):
        files = [tree.read(name) for name in names[:: -(-len(names) // 100)]]
        what = "JPEG files of dataset.source"
    else:
        items = read_dataset(config).train
        images = [cv2.resize(item.load(), (500, 375)) for item in items[:: -(-len(items) // 100)]]
        files = [cv2.imencode(".jpg", image)[1].tobytes() for image in images]
        what = "synthetic images as JPEG files of 500x375"
    for name in "ab":
        (folder / name).mkdir(parents=True)
    paths = [folder / "ab"[i % 2] / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        original = paths[i % len(files)]
        if path == original:
            path.write_bytes(files[i])
        else:
            os.link(original, path)
    return (
        f"{min(count, len(files))} {what}, "
        f"{np.mean([len(f) for f in files]) / 1000:.0f} kB on average"
    )


def packing_rates(
    source: Path, folder: Path, side: int, rounds: int
) -> dict[tuple[str, int], list[float]]:
    """Images/s of packing ``source`` by (encoding, workers), one number per round. The packs are
    left in ``folder``/raw and ``folder``/jpeg.
    """
    images = len(list(source.rglob("*.jpg")))

    def rate(encoding: str, workers: int, _: int) -> float:
        packed = folder / encoding
        shutil.rmtree(packed, ignore_errors=True)
        config = DatasetConfig(
            "folder", "ingest", str(packed), side, str(source), "linear", encoding=encoding
        )
        began = time.perf_counter()
        pack(config, workers)
        return images / (time.perf_counter() - began)

    ways = product(ENCODINGS, dict.fromkeys((1, joblib.cpu_count())))
    return taking_turns({way: partial(rate, *way) for way in ways}, rounds)


def enlarge(packed: Path, folder: Path, rows: int) -> None:
    """Write a dataset of ``rows`` rows that repeat the rows of ``packed`` to ``folder``, and flush
    it to the disk.
    """
    small = PackedDataset(packed)
    which = np.arange(rows) % len(small.labels)
    folder.mkdir()
    source: np.ndarray
    if isinstance(small.images, JpegRows):
        lengths = np.diff(small.images.offsets)[which]
        np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
        shape, name, source = (int(lengths.sum()),), "jpegs.npy", small.images.files
    else:
        shape, name, source = (rows, *small.images.shape[1:]), "images.npy", small.images
    large = open_memmap(folder / name, "w+", np.uint8, shape)
    for start in range(0, len(large), len(source)):
        large[start : start + len(source)] = source[: len(large) - start]
    large.flush()
    np.save(folder / "labels.npy", small.labels[which])
    description = {key: value for key, value in small.meta.items() if key != "n_test"}
    (folder / "dataset.json").write_text(
        json.dumps({**description, "n_train": rows - 1, "n_val": 1}), encoding="utf-8"
    )


def reading_rate(
    folder: Path, way: str, order: str, cold: bool, reads: int, batch: int, seed: int
) -> float:
    """Rows/s of reading ``reads`` training rows of the dataset in ``folder`` in batches.

    Args:
        way: one of WAYS.
        order: random or file.
        cold: drop the files from the page cache before; else read the rows once before.
    """
    recipe = RecipeConfig(
        "", reads // batch, batch, 1.0, "cosine", 1, batch, reshuffle=order == "random"
    )
    dataset = PackedDataset(folder)
    stream = TaskLoader(dataset, [0], None, seed, recipe, dataset.image_size, torch.device("cpu"))
    steps = range(recipe.steps)
    if cold:
        _forget(folder)
    else:
        for step in steps:
            dataset.read_rows(stream.rows(step))
    began = time.perf_counter()
    with closing(_read(stream, dataset, way, steps)) as batches:
        read = sum(len(b) for b in batches)
    return read / (time.perf_counter() - began)


def _read(stream: TaskLoader, dataset: PackedDataset, way: str, steps: range) -> Generator:
    if way == "cpu":
        yield from stream.batches(steps.start, steps.stop)
        return
    free = [
        np.empty((stream.recipe.batch_size, *dataset.images.shape[1:]), np.uint8)
        for _ in range(READERS["cuda"] + 2)
    ]
    if way == "gpu":
        for out in prefetch(
            lambda step: dataset.read_rows(stream.rows(step), free.pop()), steps, READERS["cuda"]
        ):
            yield out
            free.append(out)
        return
    for step in steps:
        rows, out = stream.rows(step), free[0]
        if way == "announced":
            yield dataset.read_rows(rows, out)
        elif isinstance(dataset.images, JpegRows):
            yield dataset.images.decode(rows, out)
        else:
            yield np.take(dataset.images, rows, axis=0, out=out, mode="clip")


def _forget(folder: Path) -> None:
    """Drop the files from the system's page cache, which keeps pages that are mapped and were
    accessed.
    """
    for path in folder.glob("*.npy"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reading_rates(
    folder: Path, reads: int, batch: int, rounds: int
) -> dict[tuple[str, str, str, bool], list[float]]:
    """Rows/s by (encoding, order, way, cold), one number per round."""
    states = (True, False) if hasattr(os, "posix_fadvise") else (False,)

    def rate(encoding: str, order: str, way: str, cold: bool) -> Callable[[int], float]:
        return lambda seed: reading_rate(
            folder / f"large-{encoding}", way, order, cold, reads, batch, seed
        )

    every = product(ENCODINGS, states, ("random", "file"), WAYS)
    return taking_turns(
        {(e, order, way, cold): rate(e, order, way, cold) for e, cold, order, way in every}, rounds
    )


def main(
    config: Config,
    images: int = IMAGES,
    rows: int = ROWS,
    reads: int = READS,
    side: int = SIDE,
    batch: int = BATCH,
    rounds: int = ROUNDS,
) -> None:
    """Print all tables.

    Raises:
        UserError: the source has no images, or data_dir lacks space.
    """
    where = Path(config.data_dir)
    where.mkdir(parents=True, exist_ok=True)
    needed, free = 2 * (images + rows) * 3 * side**2, shutil.disk_usage(where).free
    if needed > free:
        raise UserError(
            f"{where} has {free / 1e9:.1f} GB free, this needs {needed / 1e9:.1f} for a "
            "while: set data_dir"
        )
    with tempfile.TemporaryDirectory(prefix=".ingest-", dir=where) as name:
        folder = Path(name)
        files = make_files(config.dataset, folder / "source", images)
        packing = packing_rates(folder / "source", folder, side, rounds)
        sizes = {
            e: sum(f.stat().st_size for f in (folder / e).glob("*.npy")) / images for e in ENCODINGS
        }
        print_packing(files, images, sizes, packing)
        for encoding in ENCODINGS:
            enlarge(folder / encoding, folder / f"large-{encoding}", rows)
        rates = reading_rates(folder, reads, batch, rounds)
        print_reading({e: sizes[e] * rows / 1e9 for e in ENCODINGS}, batch, rates)
        print_needs(rates)
