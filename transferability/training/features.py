"""Features of every layer of a base network, for every image, computed once: all that linear
classifiers on frozen layers need.

One forward pass over the center crops of all images, and if needed one over the mirrored training
images; over fewer images if no classifier reads more. For every layer below the classifier, the
pooled output (``modules.pooled``) is stored, as in the head of a truncated network. Each layer is
one memory-mapped float16 file, in a folder named by a hash of the base, the images and their
preprocessing.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
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
IMAGES = 64  # per batch; not a setting, because the last bits of a feature depend on it
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class View:
    """Images of a dataset as they are, or their mirror images.

    Attributes:
        rows: rows of the dataset, ascending.
        whole: whether ``rows`` are all rows of the dataset.
    """

    mirrored: bool
    rows: np.ndarray
    whole: bool

    def name(self, n: int) -> str:
        """The name of the file with the activations of layer ``n`` (from 1)."""
        rows = "" if self.whole else f"-{hashlib.sha256(self.rows.tobytes()).hexdigest()[:8]}"
        return f"layer-{n:03d}{'-mirrored' if self.mirrored else ''}{rows}.npy"


@dataclass(frozen=True)
class Features:
    """The features of one base on one dataset, in ``folder``.

    ``views`` has the images as they are and, if needed, their mirror images.
    """

    folder: Path
    views: tuple[View, ...]

    def layer(self, n: int, rows: np.ndarray, mirrored: bool = False) -> Tensor:
        """Features of layer ``n`` (from 1) for rows of the dataset, (rows, channels) float32."""
        view = self.views[mirrored]
        return torch.from_numpy(self._of(n, view)[np.searchsorted(view.rows, rows)]).float()

    def channels(self, n: int) -> int:
        return self._of(n, self.views[0]).shape[1]

    def _of(self, n: int, view: View) -> np.memmap:
        return np.load(self.folder / view.name(n), mmap_mode="r")


def features_of(
    specs: Sequence[RunSpec],
    source: dict[str, Tensor],
    dataset: PackedDataset,
    root: Path,
    device: torch.device,
    threads: int = 1,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """The features of the base that ``specs`` start from; computed unless they are stored.

    Args:
        source: the state dict of the base.
        root: the folder below which features are stored.
        told: called after every batch with the number of images done and of all images.
    """
    folder = root / _key(specs[0], dataset)
    folder.mkdir(parents=True, exist_ok=True)
    top = specs[0].network.whole_depth - 1
    with FileLock(folder / ".lock"):
        views = [_kept(folder, top, specs, dataset, mirrored) for mirrored in _mirrored(specs)]
        if missing := [view for view in views if not (folder / view.name(top)).exists()]:
            remove_leftovers(folder)
            network = frozen(specs[0], source).to(device)
            total, before = sum(len(view.rows) for view in missing), 0
            for view in missing:

                def of_all(done: int, before: int = before) -> None:
                    told(before + done, total)

                _compute(network, dataset, view, folder, threads, of_all)
                before += len(view.rows)
    return Features(folder, tuple(views))


def images_read(specs: Sequence[RunSpec], dataset: PackedDataset) -> int:
    """The number of images to pass through the base for ``specs`` if no features are stored."""
    return sum(len(_wanted(specs, dataset, mirrored)) for mirrored in _mirrored(specs))


def _mirrored(specs: Sequence[RunSpec]) -> list[bool]:
    return [False, True] if any(spec.recipe.mirror for spec in specs) else [False]


def _kept(
    folder: Path, top: int, specs: Sequence[RunSpec], dataset: PackedDataset, mirrored: bool
) -> View:
    """The stored view with all rows that ``specs`` read; if none is stored, the one to compute."""
    count = len(dataset.labels)
    wanted = _wanted(specs, dataset, mirrored)
    views = [
        View(mirrored, rows, len(rows) == count)
        for rows in (np.arange(count), np.arange(dataset.n_train), wanted)
        if np.isin(wanted, rows).all()
    ]
    return next((view for view in views if (folder / view.name(top)).exists()), views[-1])


def _wanted(specs: Sequence[RunSpec], dataset: PackedDataset, mirrored: bool) -> np.ndarray:
    """The rows that ``specs`` read, ascending.

    If a run uses all images of its classes, the rows of all classes, so that other tasks can reuse
    the features: of mirror images only training rows, unless a run trains on all subsets.
    """
    if any(spec.all_images for spec in specs):
        return np.arange(len(dataset.labels))
    if any(spec.images_per_class is None for spec in specs):
        return np.arange(dataset.n_train if mirrored else len(dataset.labels))
    rows = [dataset.train_rows(list(s.classes), s.images_per_class) for s in specs]
    if not mirrored:
        rows += [of(list(s.classes)) for s in specs for of in (dataset.val_rows, dataset.test_rows)]
    return np.unique(np.concatenate(rows))


def _key(spec: RunSpec, dataset: PackedDataset) -> str:
    """A hash of the base's id, the images, and the network, which includes the preprocessing."""
    assert spec.source is not None  # of a linear classifier
    network = to_dict(spec.network.whole, labels=False)
    network.pop("outputs")
    parts = [spec.source.id, dataset.checksum, dataset.image_size, network]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def frozen(spec: RunSpec, source: dict[str, Tensor]) -> SequentialNetwork:
    """The whole network whose layers ``spec`` copies: frozen, its classifier not copied."""
    network = SequentialNetwork(spec.network.whole, source["input.mean"].numpy())
    copy_layers(source, network, spec.network.whole_depth - 1)
    return network.requires_grad_(False).eval()


def _compute(
    network: SequentialNetwork,
    dataset: PackedDataset,
    view: View,
    folder: Path,
    threads: int,
    told: Callable[[int], None],
) -> None:
    """Write the features of every layer for one view, the file of the highest layer last."""
    count, top = len(view.rows), len(network.layers) - 1
    forward = partial(features_of_batch, network, network.channel_dims, dataset, view)
    with ExitStack() as stack:
        # contexts exit in reverse order: the file entered last is renamed first
        names = [view.name(n) for n in range(top, 0, -1)]
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
            files.pop().flush()  # and close: Windows cannot rename a mapped file


def features_of_batch(
    network: SequentialNetwork,
    channel_dims: list[int],
    dataset: PackedDataset,
    view: View,
    start: int,
) -> list[np.ndarray]:
    """Features of every layer below the classifier for IMAGES rows of ``view`` from ``start`` on.

    Args:
        channel_dims: the channel dimension of each layer's output.

    Returns:
        One (images, channels) float16 array per layer.
    """
    size, device = network.config.input_size, network.input.mean.device
    corner = (dataset.image_size - size) // 2
    rows = view.rows[start : start + IMAGES]
    images = torch.from_numpy(dataset.read_rows(rows)).to(device)
    same = torch.full((len(rows),), corner, device=device)
    flags = torch.full((len(rows),), view.mirrored, device=device)
    out = []
    with torch.no_grad(), one_thread():
        x = network.input(Batch(images, same, same, same, flags, size))
        for layer, channel_dim in zip(network.layers[:-1], channel_dims[:-1], strict=True):
            x = layer(x)
            found = pooled(x, channel_dim, network.config.token_pool).float()
            found = found.clamp(-LARGEST, LARGEST)
            out.append(found.half().cpu().numpy())
    return out
