"""A batch of images as they are packed, and how each is cropped and mirrored."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


@dataclass
class Batch:
    """Images as packed and what to do with them: the crop and mirror every network applies to
    images and mean.
    """

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
        self._indices = (
            (self.top[:, None] + span)[:, :, None],
            (self.left[:, None] + columns)[:, None, :],
        )

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def pixels(self) -> Tensor:
        """The cropped and mirrored images, (B, crop, crop, 3) uint8."""
        rows, columns = self._indices
        return self.images[
            torch.arange(len(self), device=rows.device)[:, None, None], rows, columns
        ]

    def crop_and_flip(self, picture: Tensor) -> Tensor:
        """One (H, W, C) image seen through every image's crop and mirror, (B, crop, crop, C)."""
        return picture[self._indices]
