"""Which images make up which batch: a pure function of (seed, epoch, rank, number of ranks)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitrine.core.random_numbers import make_key


class Order:
    """The batches of one rank, as indices into a split.

    Training shuffles all images anew each epoch and deals every global batch out among the ranks; batches are
    of one size, and what is left over is left out (a split smaller than a global batch is one smaller batch).
    Validation keeps the order, and every image is in exactly one batch of one rank.

    Args:
        length: images in the split.
        batch_size: images a batch, on each rank.
        seed: what the order is drawn from.
        train: shuffled and of constant size, or in order and complete.
        repeat: shuffled alike in all epochs (for overfitting a few batches on purpose).
        rank, world: which share of how many.

    Raises:
        ValueError: there are fewer images than ranks.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int = 0,
        train: bool = True,
        repeat: bool = False,
        rank: int = 0,
        world: int = 1,
    ):
        if length < world:
            raise ValueError(f"length: {length} images cannot be shared among {world} ranks")
        self.length, self.rank, self.world = length, rank, world
        self.seed, self.train, self.repeat = seed, train, repeat
        if train:
            self.batch_size = min(batch_size, length // world)
        else:  # ranks must have equally many batches, and where one is split no batch may be empty
            self.batch_size = max(batch_size, 2) if world > 1 else batch_size
        self.epoch = 0

    def __len__(self) -> int:
        """Batches an epoch, the same on every rank."""
        share = self.batch_size * self.world
        return self.length // share if self.train else -(-self.length // share)

    def set_epoch(self, epoch: int) -> None:
        """Lightning says here which epoch comes next."""
        self.epoch = epoch

    def key(self, epoch: int) -> int:
        """What everything random about the images of an epoch is drawn from."""
        return make_key(self.seed, int(self.train), epoch if self.train else 0)

    def batches(self, epoch: int) -> list[Tensor]:
        """The epoch's batches of this rank, int64 indices each."""
        if not self.train:
            return self._in_order()
        generator = torch.Generator().manual_seed(self.key(0 if self.repeat else epoch))
        taken = len(self) * self.batch_size * self.world
        return list(self._dealt(self._shuffled(generator)[:taken]))

    def _shuffled(self, generator: torch.Generator) -> Tensor:
        """All images in an epoch's order."""
        return torch.randperm(self.length, generator=generator)

    def _dealt(self, shuffled: Tensor) -> Tensor:
        """This rank's batches [batches, batch_size] of an epoch's order."""
        return shuffled.view(len(self), self.batch_size, self.world)[:, :, self.rank]

    def _in_order(self) -> list[Tensor]:
        batches = list(torch.arange(self.rank, self.length, self.world).split(self.batch_size))
        if len(batches) < len(self) and self.batch_size > 1:
            # Another rank has one image and so one batch more; ranks wait for each other, so split one.
            batches[-1:] = batches[-1].split(self.batch_size - 1)
        return batches


class ChunkOrder(Order):
    """An Order for images that lie in chunks, of which a reader has few at hand: the chunks are shuffled, a
    few of them are put together, and the images of these are shuffled.

    Each rank has a stretch of the whole, and so chunks of its own (but for one at each end of the stretch).

    Args:
        chunks: how many images each chunk has, in the split's order.
        window: how many chunks are put together.
        length, ...: as for Order.

    Raises:
        ValueError: the chunks do not add up to `length`.
    """

    def __init__(self, length: int, batch_size: int, *, chunks: Sequence[int], window: int, **others: Any):
        super().__init__(length, batch_size, **others)
        if sum(chunks) != length:
            raise ValueError(f"chunks: they hold {sum(chunks)} images, expected {length}")
        self.chunks, self.window = list(chunks), window

    def _shuffled(self, generator: torch.Generator) -> Tensor:
        images = torch.arange(self.length).split(self.chunks)
        order = torch.randperm(len(images), generator=generator)
        together = (torch.cat([images[i] for i in some]) for some in order.split(self.window))
        return torch.cat([some[torch.randperm(len(some), generator=generator)] for some in together])

    def _dealt(self, shuffled: Tensor) -> Tensor:
        return shuffled.view(self.world, len(self), self.batch_size)[self.rank]
