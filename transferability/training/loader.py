"""The stream of raw uint8 batches of one target task: one stream feeds every network of a cohort.

The images of step t, and how they are cropped, mirrored and colored, are a function of (seed, t)
alone. The next batches are read, and copied to a GPU, while the current one is used.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from transferability.data.batch import Batch
from transferability.data.packed import PackedDataset
from transferability.data.prefetch import prefetch
from transferability.rng import numpy_rng
from transferability.study.recipe import RecipeConfig
from transferability.training.devices import cuda_stream

if TYPE_CHECKING:
    from transferability.study.spec import RunSpec

ON_DEVICE_BYTES = 8 << 30  # a packed dataset up to this size is kept on the GPU
# Threads that read batches ahead. Two on a CPU: the disk finds the rows of the next batch while
# the last one is copied. On a GPU, a single base network takes as many images per second from its
# stream as a cohort of 28 takes from 28 streams.
READERS = {"cpu": 2, "cuda": 8, "mps": 2}
Crops = dict[str, np.ndarray]  # the fields of a ``Batch`` except images, labels and crop
K = TypeVar("K")


class TaskLoader:
    """Training and validation batches of one task.

    Args:
        dataset: the packed images.
        classes: dataset classes of the task; their order gives the labels 0..K-1.
        images_per_class: train on the first ``images_per_class`` images of each class; None: all.
        all_images: train on validation and test images as well.
        seed: of the order, crops, mirroring and colors.
        crop: the side of the networks' input, in pixels.
    """

    def __init__(
        self,
        dataset: PackedDataset,
        classes: list[int],
        images_per_class: int | None,
        seed: int,
        recipe: RecipeConfig,
        crop: int,
        device: torch.device,
        all_images: bool = False,
    ):
        self.seed, self.recipe, self.crop, self.device = seed, recipe, crop, device
        self.train_rows = (
            dataset.every_row(classes)
            if all_images
            else dataset.train_rows(classes, images_per_class)
        )
        self.val_rows, self.test_rows = dataset.val_rows(classes), dataset.test_rows(classes)
        self._label_of = np.full(len(dataset.classes), -1)
        self._label_of[classes] = np.arange(len(classes))
        self._dataset, self._classes = dataset, classes
        self._cached_order = -1, np.empty(0, np.int64)
        self._copies = cuda_stream(device, "copies") if device.type == "cuda" else None
        self._resident = None
        if self._copies is not None and dataset.images.nbytes <= ON_DEVICE_BYTES:
            self._resident = dataset.images_on(device)

    @classmethod
    def of(cls, spec: "RunSpec", dataset: PackedDataset, device: torch.device) -> "TaskLoader":
        """The loader of a run's batches."""
        return cls(
            dataset,
            list(spec.classes),
            spec.images_per_class,
            spec.seed,
            spec.recipe,
            spec.network.input_size,
            device,
            spec.all_images,
        )

    @property
    def images_of(self) -> dict[str, Any]:
        """The class names, in the order of the labels, and how the images were packed."""
        settings = self._dataset.meta["settings"]
        return {
            "classes": [self._dataset.classes[c].name for c in self._classes],
            "image_size": self._dataset.image_size,
            "resize": settings["resize"],
            "fit": settings.get("fit", "squash"),
            "orientation": settings.get("orientation", "ignore"),
        }

    @cached_property
    def mean_image(self) -> np.ndarray:
        """The mean of the task's training images, (H, W, 3) float32."""
        return self._dataset.mean_image(self.train_rows)

    def rows(self, step: int) -> np.ndarray:
        """The dataset rows of training step ``step``; a batch may span two epochs or more."""
        size, total = self.recipe.batch_size, len(self.train_rows)
        positions = np.arange(step * size, (step + 1) * size)
        epochs = positions // total
        rows = np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = self.train_rows[self._order(int(epoch))[positions[here] % total]]
        return rows

    def _order(self, epoch: int) -> np.ndarray:
        if not self.recipe.reshuffle:
            return np.arange(len(self.train_rows))
        known, order = self._cached_order
        if known != epoch:
            order = numpy_rng(self.seed, "order", epoch).permutation(len(self.train_rows))
            self._cached_order = epoch, order  # one assignment: several threads read it
        return order

    def batch(self, step: int) -> Batch:
        """The training batch of step ``step``."""
        return self._finish_copy(self._start_copy(*self._drawn(step)))

    def batches(self, start: int, stop: int) -> Generator[Batch]:
        """The training batches of steps start..stop-1, read ahead."""
        return self._read_ahead(self._drawn, range(start, stop))

    def validation(self) -> Iterator[Batch]:
        """Every validation image of the task once, center crop, not mirrored; read ahead."""
        return self.batches_of(self.val_rows)

    def test(self) -> Iterator[Batch]:
        """Every test image of the task once, as in :meth:`validation`; may be empty."""
        return self.batches_of(self.test_rows)

    def batches_of(self, rows: np.ndarray) -> Iterator[Batch]:
        """These rows once, center crop, not mirrored; read ahead."""
        size = self.recipe.eval_batch_size
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return self._read_ahead(self._centered, parts)

    def _drawn(self, step: int) -> tuple[np.ndarray, Crops]:
        """The rows of a training step, and their augmentation."""
        size, side = self.recipe.batch_size, self._dataset.image_size
        draw = numpy_rng(self.seed, "augment", step)
        top, left = draw.integers(0, side - self.crop + 1, (2, size))
        crops = {"top": top, "left": left}
        crops["mirror"] = (draw.random(size) < 0.5) & self.recipe.mirror
        if self.recipe.crop_scale < 1:
            crops["boxes"] = boxes(self.seed, step, size, side, self.recipe.crop_scale)
        if strength := self.recipe.color_jitter:
            draw = numpy_rng(self.seed, "color", step)
            crops["color"] = draw.uniform(1 - strength, 1 + strength, (size, 3)).astype(np.float32)
        return self.rows(step), crops

    def _centered(self, rows: np.ndarray) -> tuple[np.ndarray, Crops]:
        """The rows of an evaluation batch, and their center crops."""
        same = np.full(len(rows), (self._dataset.image_size - self.crop) // 2)
        return rows, {"top": same, "left": same, "mirror": np.zeros(len(rows), dtype=bool)}

    def _read_ahead(
        self, choose: Callable[[K], tuple[np.ndarray, Crops]], keys: Iterable[K]
    ) -> Generator[Batch]:
        """Yield the batch that ``choose`` gives for each key; read the next ones meanwhile."""
        start, threads = lambda key: self._start_copy(*choose(key)), READERS[self.device.type]
        for pending in prefetch(start, keys, threads):
            yield self._finish_copy(pending)

    def _start_copy(self, rows: np.ndarray, crops: Crops) -> "_PendingBatch":
        """Read a batch and start its copy to the device, without waiting.

        On a GPU the copies go from pinned memory, in a separate CUDA stream, in parallel with the
        computation. Pinned buffers are released here possibly before their copies have begun:
        torch's allocator of pinned memory reuses a buffer only when the copies from it are done.
        """
        arrays = {"labels": self._label_of[self._dataset.labels[rows]], **crops}
        host = {key: torch.from_numpy(np.ascontiguousarray(a)) for key, a in arrays.items()}
        if self._copies is None:
            host["images"] = torch.from_numpy(self._dataset.read_rows(rows))
            return _PendingBatch({key: t.to(self.device) for key, t in host.items()})
        with torch.cuda.stream(self._copies):
            resident = self._resident is not None
            host["images"] = torch.from_numpy(rows) if resident else self._read_pinned(rows)
            pinned = {key: t.pin_memory() for key, t in host.items()}
            tensors = {key: t.to(self.device, non_blocking=True) for key, t in pinned.items()}
            return _PendingBatch(tensors, self._copies.record_event())

    def _read_pinned(self, rows: np.ndarray) -> Tensor:
        shape = (len(rows), *self._dataset.images.shape[1:])
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._dataset.read_rows(rows, out=images.numpy())
        return images

    def _finish_copy(self, pending: "_PendingBatch") -> Batch:
        """The batch on the device. The caller's CUDA stream waits for the copies, not the host."""
        if pending.copied is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(pending.copied)
            # allocated in the copy stream: its memory must not be reused there while in use here
            for tensor in pending.tensors.values():
                tensor.record_stream(computing)
        tensors = pending.tensors
        if self._resident is not None:
            tensors = tensors | {"images": self._resident[tensors["images"]]}
        return Batch(**tensors, crop=self.crop)


@dataclass(frozen=True)
class _PendingBatch:
    """A batch on its way to the device.

    Attributes:
        tensors: the fields of a ``Batch``; if all images are on the device, ``images`` has rows.
        copied: recorded after the copies; None without a GPU.
    """

    tensors: dict[str, Tensor]
    copied: torch.cuda.Event | None = None


def boxes(seed: int, step: int, count: int, side: int, scale: float) -> np.ndarray:
    """Draw random resized crops (Szegedy et al. 2015) of a square of ``side`` pixels.

    Their area is ``scale`` to 1 of the square's, their ratio of width to height 3:4 to 4:3.

    Returns:
        (count, 4) float32: top, left, height and width, in pixels.
    """
    draw = numpy_rng(seed, "resized crop", step)
    area = side**2 * draw.uniform(scale, 1, count)
    ratio = np.exp(draw.uniform(-np.log(4 / 3), np.log(4 / 3), count))
    sides = np.sqrt(np.stack([area / ratio, area * ratio])).clip(max=side)
    corners = (side - sides) * draw.random((2, count))
    return np.concatenate([corners, sides]).T.astype(np.float32)
