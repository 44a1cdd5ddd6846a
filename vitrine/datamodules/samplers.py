"""Which images make up which batch: a pure function of (seed, epoch, rank, number of ranks)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitrine.core.random_numbers import fold_in, make_key


class BatchSampler:
    """The batches of one rank, as indices into a split.

    Training shuffles all images in each epoch and divides every global batch among the ranks; batches have
    one size, and the last, incomplete one is dropped (a split smaller than a global batch is one smaller
    batch). Validation keeps the order, and every image is in exactly one batch of one rank.

    Args:
        length: images in the split.
        batch_size: images a batch, on each rank.
        train: shuffled and of constant size, or in order and complete.
        repeat: the same shuffling in all epochs (to overfit a few batches on purpose).
        copies: how often each image comes in a global batch of training (Hoffer 2020); an epoch has as many
            batches as ever, and so fewer images.

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
        copies: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ):
        if length < world_size:
            raise ValueError(f"length: {length} images cannot be shared among {world_size} ranks")
        self.length, self.rank, self.world_size = length, rank, world_size
        self.seed, self.train, self.repeat, self.copies = seed, train, repeat, copies
        if train:
            self.batch_size = min(batch_size, length // world_size)
        else:  # ranks must have equally many batches, and where one is split no batch may be empty
            self.batch_size = max(batch_size, 2) if world_size > 1 else batch_size
        self.epoch = 0

    def __len__(self) -> int:
        """Batches an epoch, the same on every rank."""
        global_batch = self.batch_size * self.world_size
        return self.length // global_batch if self.train else -(-self.length // global_batch)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def epoch_key(self, epoch: int) -> int:
        """The key of all random numbers of an epoch."""
        return make_key(self.seed, int(self.train), epoch if self.train else 0)

    def batches(self, epoch: int) -> list[Tensor]:
        """The epoch's batches of this rank, int64 indices each."""
        return list(self._rank_batches(self._order(epoch))) if self.train else self._sequential_batches()

    def seeds(self, epoch: int) -> list[Tensor]:
        """The seed of each batch's augmentation, int64: the epoch's key, a scalar; or, where images come
        again in an epoch, one for each image of the batch, [batch_size], and another each time."""
        key = torch.tensor(self.epoch_key(epoch))
        if not self.train or not self._may_come_again:
            return [key] * len(self)
        count = occurrences(self._order(epoch))
        return list(self._rank_batches(torch.where(count > 0, fold_in(key, count), key)))

    @property
    def _may_come_again(self) -> bool:
        return self.copies > 1

    def _order(self, epoch: int) -> Tensor:
        """The images of all ranks' batches in a training epoch, with their copies."""
        generator = torch.Generator().manual_seed(self.epoch_key(0 if self.repeat else epoch))
        order, used = self._shuffle(generator), len(self) * self.batch_size * self.world_size
        if self.copies == 1:
            return order[:used]
        distinct = -(-self._together // self.copies)
        parts = order[: used // self._together * distinct].view(-1, distinct)
        # one after another, not each image beside its copies: mixup and cutmix pair neighbours
        return parts.repeat(1, self.copies)[:, : self._together].flatten()

    @property
    def _together(self) -> int:
        """How many images of the order are one batch."""
        return self.batch_size * self.world_size

    def _shuffle(self, generator: torch.Generator) -> Tensor:
        """The indices of all images in an epoch's order."""
        return torch.randperm(self.length, generator=generator)

    def _rank_batches(self, order: Tensor) -> Tensor:
        """This rank's batches [batches, batch_size] of an epoch's order."""
        return order.view(len(self), self.batch_size, self.world_size)[:, :, self.rank]

    def _sequential_batches(self) -> list[Tensor]:
        batches = list(torch.arange(self.rank, self.length, self.world_size).split(self.batch_size))
        if len(batches) < len(self) and self.batch_size > 1:
            # Another rank has one image and so one batch more; ranks wait for each other, so split one.
            batches[-1:] = batches[-1].split(self.batch_size - 1)
        return batches


class BalancedBatchSampler(BatchSampler):
    """Training batches in which every class is equally likely.

    First the class is drawn, and then it is the next image of that class; these are shuffled anew whenever
    all have come. An epoch is as long as without: it leaves out images of common classes, and repeats those
    of rare ones.

    Args:
        labels: of all images of the split, int64, [N].
        batch_size, ...: as for BatchSampler.
    """

    _may_come_again = True

    def __init__(self, labels: Tensor, batch_size: int, **options: Any):
        super().__init__(len(labels), batch_size, **options)
        self.images = [(labels == label).nonzero()[:, 0] for label in labels.unique()]

    def _shuffle(self, generator: torch.Generator) -> Tensor:
        classes = torch.randint(len(self.images), (self.length,), generator=generator)
        order = torch.empty_like(classes)
        for number, images in enumerate(self.images):
            places = (classes == number).nonzero()[:, 0]
            times = -(-len(places) // len(images))
            shuffled = [images[torch.randperm(len(images), generator=generator)] for _ in range(times)]
            order[places] = torch.cat([*shuffled, images[:0]])[: len(places)]
        return order


class ChunkBatchSampler(BatchSampler):
    """Batches of images in chunks, for a reader that keeps few chunks open: the chunks are shuffled, and then
    the images of each `window` chunks that follow one another.

    Each rank has a contiguous part of the order, and so chunks of its own (but for one at each end).

    Args:
        chunks: how many images each chunk has, in the split's order.
        length, ...: as for BatchSampler.

    Raises:
        ValueError: the chunks do not add up to `length`.
    """

    def __init__(self, length: int, batch_size: int, *, chunks: Sequence[int], window: int, **options: Any):
        super().__init__(length, batch_size, **options)
        if sum(chunks) != length:
            raise ValueError(f"chunks: they hold {sum(chunks)} images, expected {length}")
        self.chunks, self.window = list(chunks), window

    def _shuffle(self, generator: torch.Generator) -> Tensor:
        images = torch.arange(self.length).split(self.chunks)
        order = torch.randperm(len(images), generator=generator)
        windows = (torch.cat([images[i] for i in chunks]) for chunks in order.split(self.window))
        return torch.cat([window[torch.randperm(len(window), generator=generator)] for window in windows])

    def _rank_batches(self, order: Tensor) -> Tensor:
        return order.view(self.world_size, len(self), self.batch_size)[self.rank]

    @property
    def _together(self) -> int:
        return self.batch_size


def occurrences(order: Tensor) -> Tensor:
    """How often each value has come before, int64 [N]: 0 0 1 0 for a b a c."""
    values, places = order.sort(stable=True)
    count = torch.empty_like(order)
    count[places] = torch.arange(len(order)) - torch.searchsorted(values, values)
    return count
