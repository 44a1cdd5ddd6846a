"""Batches of a split in an Order, from memory or from worker processes; can stop at any step and go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vitrine.core.image_dataset import ImageDataset
from vitrine.datamodules.files import UnreadableImage, cores
from vitrine.datamodules.order import Order


class Loader:
    """Yields `make(images, labels, indices, seed)`; stateful and lazy as Lightning's loops need it.

    A split that says `in_memory` is indexed a batch at a time; any other is read by worker processes.

    Args:
        split: the images.
        order: which images make up which batch.
        make: the batch type.
        workers: processes for a split that is not in memory; None: one a core, at most 16.
        progress: Lightning's count of this epoch's batches (`ready`, `processed`), when asked; without it
            every batch yielded counts as trained on.
    """

    batch_sampler = None  # Lightning asks; it says the epoch to `sampler.set_epoch`

    def __init__(
        self,
        split: ImageDataset,
        order: Order,
        *,
        make: Callable[..., Any],
        workers: int | None = None,
        progress: Callable[[], Any] | None = None,
    ):
        self.split, self.sampler, self.make = split, order, make
        self.workers = min(16, cores()) if workers is None else workers
        self.progress = progress
        self._epoch, self._yielded, self._shift = 0, 0, 0
        self._resume: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Batches in a whole epoch, whatever is left of this one."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        # A generator: Lightning makes the iterator before it says which epoch it is for.
        epoch, start = self._begin()
        self._epoch, self._yielded = epoch, start
        seed = torch.tensor(self.sampler.key(epoch))
        batches = self.sampler.batches(epoch)[start:]
        try:
            for (images, labels), indices in zip(self._read(batches, seed), batches):
                self._yielded += 1
                yield self.make(images, labels, indices, seed)
        except UnreadableImage as error:  # a worker's comes with the worker's traceback above it
            last = str(error).strip().splitlines()[-1]
            raise UnreadableImage(last.removeprefix(f"{_named(UnreadableImage)}: ")) from None

    def state_dict(self) -> dict[str, int]:
        """Where in which epoch: plain numbers."""
        if self._resume is not None:
            return {"epoch": self._resume[0], "batches": self._resume[1]}
        done = self._yielded
        if self.progress is not None:  # a batch that was fetched when the run broke off is not done with
            done = min(done, self.progress().processed)
        return {"epoch": self._epoch, "batches": done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the first `state["batches"]` batches of `state["epoch"]`, or with the next epoch."""
        self._resume = state["epoch"], state["batches"]

    def _begin(self) -> tuple[int, int]:
        """The epoch that begins now, and how many of its batches have been."""
        epoch = self.sampler.epoch + self._shift
        if self._resume is None:
            return epoch, 0
        (saved, done), self._resume = self._resume, None
        # Resumed where an epoch ended, Lightning may or may not go on within it; and under max_steps it
        # counts that epoch twice (2.6), so that from here on its epochs are not ours.
        over = done >= len(self) or (done > 0 and self.progress is not None and self.progress().ready == 0)
        begun, start = (saved + 1, 0) if over else (saved, done)
        self._shift += begun - epoch
        return begun, start

    def _read(self, batches: list[Tensor], seed: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        if self.split.in_memory:
            return (self.split.batch(indices) for indices in batches)
        draw = int(seed) if self.sampler.train else None
        return iter(
            DataLoader(
                _Keyed(self.split),
                batch_sampler=[[(int(i), draw) for i in indices] for indices in batches],
                num_workers=self.workers,
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator().manual_seed(0),  # else the global one is advanced for a base seed
            )
        )


def _named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class _Keyed:
    """A split asked for (index, what to draw it from or None)."""

    def __init__(self, split: ImageDataset):
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, item: tuple[int, int | None]) -> tuple[Tensor, int]:
        index, seed = item
        return self.split[index] if seed is None else self.split.training_item(index, seed)
