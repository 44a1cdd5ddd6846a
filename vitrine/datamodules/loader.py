"""A data loader over a batch sampler, from memory or by worker processes, that resumes at any step."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vitrine.core.cores import available_cores
from vitrine.core.image_dataset import ImageDataset
from vitrine.datamodules.decoding import UnreadableImage
from vitrine.datamodules.samplers import BatchSampler


class Loader:
    """Yields `batch_type(images, labels, indices, seed)`; stateful and lazy as Lightning's loops need it.

    A split with `in_memory` is indexed a batch at a time; any other is read by worker processes.

    Args:
        batch_type: a named tuple of these four.
        workers: processes for a split that is not in memory; None: one a core, at most 16.
        progress: returns Lightning's count of this epoch's batches (`ready`, `processed`); without it every
            batch that was yielded counts as trained on.
    """

    batch_sampler = None  # Lightning looks for it; the epoch is set by `sampler.set_epoch`

    def __init__(
        self,
        split: ImageDataset,
        sampler: BatchSampler,
        *,
        batch_type: Callable[..., Any],
        workers: int | None = None,
        progress: Callable[[], Any] | None = None,
    ):
        self.split, self.sampler, self.batch_type = split, sampler, batch_type
        self.workers = min(16, available_cores()) if workers is None else workers
        self.progress = progress
        self._epoch, self._yielded, self._shift = 0, 0, 0
        self._resume: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Batches in a whole epoch, whatever remains of this one."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        # A generator: Lightning makes the iterator before it sets the epoch.
        epoch, start = self._next_epoch()
        self._epoch, self._yielded = epoch, start
        batches, seeds = self.sampler.batches(epoch)[start:], self.sampler.seeds(epoch)[start:]
        try:
            for (images, labels), indices, seed in zip(self._read(batches, seeds), batches, seeds):
                self._yielded += 1
                yield self.batch_type(images, labels, indices, seed)
        except UnreadableImage as error:  # a worker's comes with the worker's traceback above it
            last = str(error).strip().splitlines()[-1]
            name = f"{UnreadableImage.__module__}.{UnreadableImage.__qualname__}"
            raise UnreadableImage(last.removeprefix(f"{name}: ")) from None

    def state_dict(self) -> dict[str, int]:
        """The epoch and its batches that have been trained on."""
        if self._resume is not None:
            return {"epoch": self._resume[0], "batches": self._resume[1]}
        if (epoch := self.sampler.epoch + self._shift) != self._epoch:  # Lightning has begun it, we have not
            return {"epoch": epoch, "batches": 0}
        done = self._yielded
        if self.progress is not None:  # a batch that was fetched, but not trained on, comes again
            done = min(done, self.progress().processed)
        return {"epoch": self._epoch, "batches": done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the first `state["batches"]` batches of `state["epoch"]`, or with the next epoch."""
        self._resume = state["epoch"], state["batches"]

    def _next_epoch(self) -> tuple[int, int]:
        """The epoch that begins or is resumed now, and how many of its batches have been trained on."""
        epoch = self.sampler.epoch + self._shift
        if self._resume is None:
            return epoch, 0
        (saved, done), self._resume = self._resume, None
        # Resumed where an epoch ended, Lightning may or may not continue within it; and under max_steps it
        # counts that epoch twice (2.6), so that its epochs and ours differ from here on.
        over = done >= len(self) or (done > 0 and self.progress is not None and self.progress().ready == 0)
        epoch_now, start = (saved + 1, 0) if over else (saved, done)
        self._shift += epoch_now - epoch
        return epoch_now, start

    def _read(self, batches: list[Tensor], seeds: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        if self.split.in_memory:
            return (self.split.batch(indices) for indices in batches)
        return iter(
            DataLoader(
                _SeededItems(self.split),
                batch_sampler=[self._items(*batch) for batch in zip(batches, seeds)],
                num_workers=self.workers,
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator().manual_seed(0),  # else the global one is advanced for a base seed
            )
        )

    def _items(self, indices: Tensor, seed: Tensor) -> list[tuple[int, int | None]]:
        """What `_SeededItems` is indexed by for a batch."""
        one = itertools.repeat(int(seed) if self.sampler.train else None) if seed.ndim == 0 else seed.tolist()
        return list(zip(indices.tolist(), one))


class _SeededItems:
    """A split indexed by (index, seed for training or None)."""

    def __init__(self, split: ImageDataset):
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, item: tuple[int, int | None]) -> tuple[Tensor, int]:
        index, seed = item
        return self.split[index] if seed is None else self.split.training_item(index, seed)
