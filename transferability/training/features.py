"""Features of every layer of a base network, for every image, computed once: linear classifiers on
frozen layers need no more.

One forward pass over all images, center crop, and one over their mirror images where these are
wanted. Of every layer below the classifier what the head of a truncated network sees is kept
(``modules.pooled``). One file per layer, float16, memory-mapped, in a folder named by a hash of the
base's weights, the images and their preprocessing.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.lib.format import open_memmap
from torch import Tensor

from transferability.data.batch import Batch
from transferability.data.packed import PackedDataset
from transferability.data.prefetch import prefetch
from transferability.files import remove_leftovers, replacing
from transferability.fingerprint import to_dict
from transferability.networks.modules import pooled
from transferability.networks.sequential import SequentialNetwork, copy_layers
from transferability.signals import raise_if_stopped
from transferability.study.spec import RunSpec
from transferability.training.state import one_thread

log = logging.getLogger(__name__)
IMAGES = 64  # of a batch: no setting, as the last bits of a feature hang on it
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Features:
    """Those of one base on one dataset, in ``folder``."""

    folder: Path

    def layer(self, n: int, rows: np.ndarray, mirrored: bool = False) -> Tensor:
        """What layer ``n`` (from 1) says of these rows of the dataset, (rows, channels) float32."""
        return torch.from_numpy(self._of(n, mirrored)[rows]).float()

    def channels(self, n: int) -> int:
        return self._of(n, False).shape[1]

    def _of(self, n: int, mirrored: bool) -> np.memmap:
        return np.load(self.folder / _name(n, mirrored), mmap_mode="r")


def features_of(
    spec: RunSpec,
    source: dict[str, Tensor],
    dataset: PackedDataset,
    root: Path,
    device: torch.device,
    threads: int = 1,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """The features of the base that ``spec`` starts from, computed where they are not kept yet.

    Args:
        source: the state of the base.
        root: below which features are kept.
        told: called with the images done and all images, after every batch.
    """
    folder = root / _key(spec, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    top = spec.network.whole_depth - 1
    with FileLock(folder / ".lock"):
        views = [False, True] if spec.recipe.mirror else [False]
        if missing := [m for m in views if not (folder / _name(top, m)).exists()]:
            remove_leftovers(folder)
            network = _frozen(spec, source, top).to(device)
            images = len(dataset.labels)
            for i, mirrored in enumerate(missing):

                def of_all(done: int, before: int = i * images) -> None:
                    told(before + done, len(missing) * images)

                _compute(network, dataset, mirrored, folder, threads, of_all)
    return Features(folder)


def _key(spec: RunSpec, dataset: PackedDataset) -> str:
    """The base's weights, the images, and what is done to these."""
    assert spec.source is not None  # of a linear classifier
    network = to_dict(spec.network.whole, labels=False)
    network.pop("outputs")
    parts = [spec.source.id, dataset.checksum, dataset.image_size, network]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _name(n: int, mirrored: bool) -> str:
    return f"layer-{n:03d}{'-mirrored' if mirrored else ''}.npy"


def _frozen(spec: RunSpec, source: dict[str, Tensor], top: int) -> SequentialNetwork:
    network = SequentialNetwork(spec.network.whole, source["input.mean"].numpy())
    copy_layers(source, network, top)
    return network.requires_grad_(False).eval()


def _compute(
    network: SequentialNetwork,
    dataset: PackedDataset,
    mirrored: bool,
    folder: Path,
    threads: int,
    told: Callable[[int], None],
) -> None:
    """Write the features of every layer for one view of all images; that of the highest layer
    last.
    """
    layers, count = network.layers[:-1], len(dataset.labels)
    size = network.config.input_size
    corner = (dataset.image_size - size) // 2
    device = network.input.mean.device

    def forward(start: int) -> list[np.ndarray]:
        rows = np.arange(start, min(start + IMAGES, count))
        images = torch.from_numpy(dataset.read_rows(rows)).to(device)
        same = torch.full((len(rows),), corner, device=device)
        flags = torch.full((len(rows),), mirrored, device=device)
        out = []
        with torch.no_grad(), one_thread():
            x = network.input(Batch(images, same, same, same, flags, size))
            for layer in layers:
                x = layer(x)
                found = pooled(x, network.config.token_pool).float().clamp(-LARGEST, LARGEST)
                out.append(found.half().cpu().numpy())
        return out

    with ExitStack() as stack:
        # the last that is entered is the first to be renamed
        names = [_name(n, mirrored) for n in range(len(layers), 0, -1)]
        paths = [stack.enter_context(replacing(folder / name)) for name in names][::-1]
        files: list[np.memmap] = []
        for start, values in zip(
            range(0, count, IMAGES),
            prefetch(forward, range(0, count, IMAGES), threads),
            strict=True,
        ):
            raise_if_stopped()
            if not files:
                files = [
                    open_memmap(path, "w+", np.float16, (count, value.shape[1]))
                    for path, value in zip(paths, values, strict=True)
                ]
            for place, value in enumerate(values):
                files[place][start : start + len(value)] = value
            told(min(start + IMAGES, count))
        while files:
            files.pop().flush()  # and closed: Windows renames no file that is mapped
