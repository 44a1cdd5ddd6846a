"""A split of images that are drawn rather than read, by a seed: when they are needed, and kept or not.

Neither this nor what makes such a split imports Lightning: `drawing_ahead` begins before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from vitrine.core.image_dataset import ImageDataset

if TYPE_CHECKING:
    from vitrine.datamodules.drawing_ahead import DrawingAhead

Chunk, Result = TypeVar("Chunk"), TypeVar("Result")


class DrawnImages(ImageDataset):
    """A split of images that are drawn when they are needed.

    An image is a function of `seed` and its index: it has the same bits in any batch. A subclass defines
    `draw_images`.

    Args:
        drawn: the class that each image shows, int64 [N], whatever its label may be made to say.
        image_size: pixels a side; what is drawn is the same at any.

    Attributes:
        keep: draw all images when the first is needed, and keep them in memory. Not before: analyses of a
            checkpoint may need none of the training split, which takes seconds to draw.
        ahead: another process is drawing them already; what it has drawn is taken from there.
    """

    # to a loader, even where they are not: a batch is drawn faster than its images one by one
    in_memory = True
    channels = 3

    def __init__(self, seed: int, drawn: Tensor, image_size: int):
        self.seed, self.drawn, self.image_size = seed, drawn, image_size
        self.labels = drawn
        self.keep = False
        self.ahead: DrawingAhead | None = None
        self._images: Tensor | None = None

    def draw_images(self, indices: Tensor) -> Tensor:
        """The images, uint8 [n, 3, H, W], at `indices`."""
        raise NotImplementedError(f"{type(self).__name__} does not define draw_images")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.batch(torch.tensor([range(len(self))[index]]))
        return images[0], int(labels[0])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images, uint8 [n, 3, H, W], and labels, int64 [n], at `indices`."""
        kept = self.images
        images = self.draw_images(indices) if kept is None else kept[indices]
        return images, self.labels[indices]

    @property
    def images(self) -> Tensor | None:
        """All images, uint8 [N, 3, H, W], where they are kept; else None."""
        if self.keep and self._images is None:
            ahead, self.ahead = self.ahead, None
            every = torch.arange(len(self))
            self._images = self.draw_images(every) if ahead is None else ahead.collect(self)
        return self._images

    @property
    def storage(self) -> str:
        if not self.keep:
            return "drawn when needed"
        return f"{len(self) * self.channels * self.image_size**2 / 2**20:,.0f} MiB in memory"


def map_in_threads(function: Callable[[Chunk], Result], chunks: Iterable[Chunk]) -> list[Result]:
    """The function of each chunk, a thread each: faster than all threads at one operation."""
    chunks = list(chunks)
    if len(chunks) == 1:
        return [function(chunks[0])]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # inherited by the threads started below
    try:
        with ThreadPoolExecutor(min(threads, 8)) as pool:
            return list(pool.map(function, chunks))
    finally:
        torch.set_num_threads(threads)
