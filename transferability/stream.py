"""The stream of raw uint8 batches of one target task: one stream feeds every network of a cohort.

Which images come at step t, and how they are cropped and mirrored, is a function of (seed, t) alone.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from transferability.config import RecipeConfig
from transferability.datasets import PackedDataset
from transferability.draws import numpy_generator

ON_DEVICE_BYTES = 8 << 30  # a packed dataset up to this size is moved to the GPU whole


@dataclass
class Batch:
    """Images as packed and what to do with them: the crop and mirror every network applies to images and mean."""

    images: Tensor  # (B, H, W, 3) uint8
    labels: Tensor  # (B,) int64, 0..K-1 within the task
    top: Tensor  # (B,) int64, first row of the crop
    left: Tensor  # (B,) int64
    mirror: Tensor  # (B,) bool
    crop: int  # pixels a side
    _indices: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        span = torch.arange(self.crop, device=self.images.device)
        columns = torch.where(self.mirror[:, None], self.crop - 1 - span, span)
        self._indices = (self.top[:, None] + span)[:, :, None], (self.left[:, None] + columns)[:, None, :]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def pixels(self) -> Tensor:
        """The cropped and mirrored images, (B, crop, crop, 3) uint8."""
        rows, columns = self._indices
        return self.images[torch.arange(len(self), device=rows.device)[:, None, None], rows, columns]

    def view(self, picture: Tensor) -> Tensor:
        """One (H, W, C) picture seen through every image's crop and mirror, (B, crop, crop, C)."""
        return picture[self._indices]


class Stream:
    """Training and validation batches of one task.

    Args:
        dataset: the packed images.
        classes: dataset classes of the task; their order gives the labels 0..K-1.
        images_per_class: train on the first so many images a class only; None for all.
        seed: of the order, crops and mirrors.
        crop: pixels a side of what the networks see.
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
    ):
        self.seed, self.recipe, self.crop, self.device = seed, recipe, crop, device
        self.train_rows = dataset.train_rows(classes, images_per_class)
        self.val_rows = dataset.val_rows(classes)
        self._label_of = np.full(len(dataset.classes), -1)
        self._label_of[classes] = np.arange(len(classes))
        self._dataset = dataset
        self._resident = None
        if device.type != "cpu" and dataset.images.nbytes <= ON_DEVICE_BYTES:
            self._resident = dataset.images_on(device)

    @cached_property
    def mean_image(self) -> np.ndarray:
        """The mean of the task's training images, (H, W, 3) float32."""
        return self._dataset.mean_image(self.train_rows)

    def rows(self, step: int) -> np.ndarray:
        """The dataset rows of training step ``step``: epochs follow each other without a gap."""
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
        if getattr(self, "_cached_epoch", None) != epoch:
            draw = numpy_generator(self.seed, "order", epoch)
            self._cached_epoch, self._cached_order = epoch, draw.permutation(len(self.train_rows))
        return self._cached_order

    def batch(self, step: int) -> Batch:
        """The training batch of step ``step``."""
        size, room = self.recipe.batch_size, self._dataset.image_size - self.crop
        draw = numpy_generator(self.seed, "augment", step)
        top, left = draw.integers(0, room + 1, (2, size))
        mirror = (draw.random(size) < 0.5) & self.recipe.mirror
        return self._assemble(self.rows(step), top, left, mirror)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The training batches of steps start..stop-1; the next is read while the last is used."""
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(self.batch, start) if start < stop else None
            for step in range(start, stop):
                batch = following.result()
                following = reader.submit(self.batch, step + 1) if step + 1 < stop else None
                yield batch

    def validation(self) -> Iterator[Batch]:
        """Every validation image of the task once, centre crop, no mirror."""
        size, centre = self.recipe.eval_batch_size, (self._dataset.image_size - self.crop) // 2
        for start in range(0, len(self.val_rows), size):
            rows = self.val_rows[start : start + size]
            same = np.full(len(rows), centre)
            yield self._assemble(rows, same, same, np.zeros(len(rows), dtype=bool))

    def _assemble(self, rows: np.ndarray, top: np.ndarray, left: np.ndarray, mirror: np.ndarray) -> Batch:
        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)

        resident = self._resident
        images = put(self._dataset.read_rows(rows)) if resident is None else resident[put(rows)]
        labels = put(self._label_of[self._dataset.labels[rows]])
        return Batch(images, labels, put(top), put(left), put(mirror), self.crop)
