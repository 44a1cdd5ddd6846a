"""Which images make up which batch: a pure function of (seed, epoch, rank, number of ranks)."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.draws import key


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
        self.batch_size = min(batch_size, length // world) if train else batch_size
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
        return key(self.seed, int(self.train), epoch if self.train else 0)

    def batches(self, epoch: int) -> list[Tensor]:
        """The epoch's batches of this rank, int64 indices each."""
        if not self.train:
            return self._in_order()
        generator = torch.Generator().manual_seed(self.key(0 if self.repeat else epoch))
        shuffled = torch.randperm(self.length, generator=generator)
        shared = shuffled[: len(self) * self.batch_size * self.world]
        return list(shared.view(len(self), self.batch_size, self.world)[:, :, self.rank])

    def _in_order(self) -> list[Tensor]:
        batches = list(torch.arange(self.rank, self.length, self.world).split(self.batch_size))
        if len(batches) < len(self) and self.batch_size > 1:
            # Another rank has one image and so one batch more; ranks wait for each other, so split one.
            batches[-1:] = batches[-1].split(self.batch_size - 1)
        return batches
