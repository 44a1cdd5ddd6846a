"""A rectangle of each image that changes, of one size and at a place of each image's own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Patch:
    """What some images [N, C, H, W] are to have in a rectangle each."""

    values: Tensor  # [N, C, h, w]
    top: Tensor  # int64 [N], the rectangle's first row
    left: Tensor  # int64 [N], its first column

    @classmethod
    def whole(cls, images: Tensor) -> Patch:
        """All of each image."""
        corner = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return cls(images, corner, corner)

    @property
    def area(self) -> int:
        """Pixels of one rectangle."""
        return self.values.shape[2] * self.values.shape[3]

    def covers(self, other: Patch) -> bool:
        """Whether another's rectangles lie within these."""
        inside = (self.top <= other.top) & (self.left <= other.left)
        for axis, (own, its) in enumerate(((self.top, other.top), (self.left, other.left)), start=2):
            inside &= its + other.values.shape[axis] <= own + self.values.shape[axis]
        return bool(inside.all())

    def on(self, images: Tensor) -> Tensor:
        """The images with their patches, [N, C, H, W]."""
        if self.values.shape == images.shape:
            return self.values
        patched = images.clone()
        self.write(patched, torch.arange(len(images), device=images.device))
        return patched

    def write(self, images: Tensor, rows: Tensor) -> None:
        """Set the patches of some images, int64, in place."""
        if self.values.shape == images.shape:
            images[rows] = self.values[rows]
        else:
            images[self.where(images.shape[1], rows)] = self.values[rows]

    def where(self, channels: int, rows: Tensor) -> tuple[Tensor, ...]:
        """The rectangles of some images, as indices of a tensor of images."""
        return rectangles(rows, channels, self.top[rows], self.left[rows], *self.values.shape[2:])


def rectangles(
    rows: Tensor, channels: int, top: Tensor, left: Tensor, height: int, width: int
) -> tuple[Tensor, ...]:
    """Indices into images [N, C, H, W] that give some rows' rectangles, [n, C, height, width]."""
    down, across = (torch.arange(size, device=rows.device) for size in (height, width))
    every = torch.arange(channels, device=rows.device)[:, None, None]
    y, x = (top[:, None] + down)[:, None, :, None], (left[:, None] + across)[:, None, None]
    return rows[:, None, None, None], every, y, x
