"""A batch of packed images, and how each is cropped, mirrored and colored."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

GRAY = (0.2989, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601), as in torchvision


@dataclass
class Batch:
    """Packed images and their augmentation. Every network applies the same crops and mirroring to
    the images and the mean image.
    """

    images: Tensor  # (B, H, W, 3) uint8
    labels: Tensor  # (B,) int64, 0..K-1 within the task
    top: Tensor  # (B,) int64, first row of the crop
    left: Tensor  # (B,) int64
    mirror: Tensor  # (B,) bool
    crop: int  # side in pixels
    # (B, 4) float32: top, left, height and width, in pixels, of the region that is resized to the
    # crop; replaces top and left
    boxes: Tensor | None = None
    # (B, 3) float32: factors of brightness, contrast and saturation, in this order
    color: Tensor | None = None
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
        """The images, cropped, mirrored and colored, (B, crop, crop, 3) uint8."""
        if self.boxes is None:
            rows, columns = self._indices
            places = torch.arange(len(self), device=rows.device)[:, None, None]
            pixels = self.images[places, rows, columns]
        else:
            pixels = _as_pixels(self._resized(self.images.float()))
        return pixels if self.color is None else _as_pixels(_colored(pixels.float(), self.color))

    def crop_and_flip(self, picture: Tensor) -> Tensor:
        """Apply the crop and mirroring of each image to one (H, W, C) image, (B, crop, crop, C)."""
        if self.boxes is None:
            return picture[self._indices]
        return self._resized(picture.expand(len(self), *picture.shape))

    def _resized(self, pictures: Tensor) -> Tensor:
        """Resize ``boxes`` of (B, H, W, C) float32, mirrored, to (B, crop, crop, C); bilinear."""
        assert self.boxes is not None
        height, width = pictures.shape[1:3]
        top, left, high, wide = self.boxes.unbind(1)
        sign = 1 - 2 * self.mirror.float()
        zero = torch.zeros_like(top)
        # from coordinates of the crop, -1 to 1, to those of the image
        x = torch.stack([sign * wide / width, zero, (2 * left + wide) / width - 1], 1)
        y = torch.stack([zero, high / height, (2 * top + high) / height - 1], 1)
        shape = [len(self), pictures.shape[3], self.crop, self.crop]
        grid = F.affine_grid(torch.stack([x, y], 1), shape, align_corners=False)
        found = F.grid_sample(
            pictures.permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=False
        )
        return found.permute(0, 2, 3, 1)


def _as_pixels(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _colored(x: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast and saturation of images, (B, H, W, 3) from 0 to 255, as
    torchvision's ``ColorJitter`` does.
    """
    brightness, contrast, saturation = (f[:, None, None, None] for f in factors.unbind(1))
    gray = torch.tensor(GRAY, device=x.device)
    x = (x * brightness).clamp(0, 255)
    mean = (x @ gray).mean((1, 2))[:, None, None, None]
    x = (contrast * x + (1 - contrast) * mean).clamp(0, 255)
    return saturation * x + (1 - saturation) * (x @ gray)[..., None]
