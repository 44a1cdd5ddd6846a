"""Images in memory."""

from typing import Self

import torch
from torch import Tensor

from vitrine.core.image_dataset import ImageDataset


class InMemory(ImageDataset):
    """A split whose images are one tensor, uint8 [N, C, H, W], with labels [N].

    Args:
        source: the same images where they were read, which has masks of them and knows their files.

    Raises:
        ValueError: they have another type or shape, or differ in number.
    """

    in_memory = True

    def __init__(self, images: Tensor, labels: Tensor, source: ImageDataset | None = None):
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images: {images.dtype} {tuple(images.shape)}, expected uint8 [N, C, H, W]")
        if labels.shape != images.shape[:1]:
            raise ValueError(f"labels: shape {tuple(labels.shape)}, expected one for each of {len(images)}")
        self.images, self.labels, self.source = images, labels.long(), source

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images, uint8 [n, C, H, W], and labels, int64 [n], at `indices`."""
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)

    def masks(self, indices: Tensor) -> dict[str, Tensor]:
        return {} if self.source is None else self.source.masks(indices)

    def path(self, index: int) -> str | None:
        return None if self.source is None else self.source.path(index)

    def select(self, indices: Tensor) -> Self:
        """The split of these images alone."""
        return type(self)(self.images[indices], self.labels[indices])

    @property
    def storage(self) -> str:
        return f"{self.images.nbytes / 2**20:,.1f} MiB in memory"
