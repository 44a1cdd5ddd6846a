"""Batches of a split in an Order, from memory or from worker processes; can stop at any step and go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.order import Order


class Loader:
    """Yields `make(images, labels, indices, seed)`; stateful and lazy as Lightning's loops need it.

    A split that says `in_memory` is indexed a batch at a time; any other is read by worker processes.

    Args:
        split: a `datamodules.base.Split`.
        order: which images make up which batch.
        make: the batch type.
        workers: processes for a split that is not in memory; None: one a core, at most 16.
        trained: how many batches of the epoch the reader has done with; what was yielded, unless given.
    """

    def __init__(
        self,
        split: Any,
        order: Order,
        *,
        make: Callable[..., Any],
        workers: int | None = None,
        trained: Callable[[], int] | None = None,
    ):
        self.dataset, self.sampler, self.make = split, order, make
        self.workers = min(16, os.cpu_count() or 1) if workers is None else workers
        self.trained = trained
        self._epoch, self._yielded = 0, 0
        self._resume: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Batches in a whole epoch, whatever is left of this one."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        # A generator: Lightning makes the iterator before it says which epoch it is for.
        epoch, start = self.sampler.epoch, 0
        if self._resume is not None and self._resume[0] == epoch:
            start = self._resume[1]
        self._resume = None
        self._epoch, self._yielded = epoch, start
        seed = torch.tensor(self.sampler.key(epoch))
        batches = self.sampler.batches(epoch)[start:]
        for (images, labels), indices in zip(self._read(batches, seed), batches):
            self._yielded += 1
            yield self.make(images, labels, indices, seed)

    def state_dict(self) -> dict[str, int]:
        """Where in which epoch: plain numbers."""
        if self._resume is not None:
            return {"epoch": self._resume[0], "batches": self._resume[1]}
        done = self._yielded if self.trained is None else min(self._yielded, self.trained())
        return {"epoch": self._epoch, "batches": done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin `state["epoch"]`, when it comes, after its first `state["batches"]` batches."""
        self._resume = state["epoch"], state["batches"]

    def _read(self, batches: list[Tensor], seed: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        if self.dataset.in_memory:
            return (self.dataset.batch(indices) for indices in batches)
        draw = int(seed) if self.sampler.train else None
        return iter(
            DataLoader(
                _Keyed(self.dataset),
                batch_sampler=[[(int(i), draw) for i in indices] for indices in batches],
                num_workers=self.workers,
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator().manual_seed(0),  # else the global one is advanced for a base seed
            )
        )


class _Keyed:
    """A split asked for (index, what to draw it from or None)."""

    def __init__(self, split: Any):
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, item: tuple[int, int | None]) -> tuple[Tensor, int]:
        index, seed = item
        return self.split[index] if seed is None else self.split.keyed(index, seed)
