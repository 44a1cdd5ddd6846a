"""Batches of somebody's own loaders, in an order and with random numbers that are functions of (seed, epoch).

A DataLoader over a map-style data set gives its batches of indices; those are read as it would read them, by
its workers and its collate function, and a resumed run begins with the next. Any other loader is read from
the start of the epoch, and what has been trained on is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vitrine.core import random_state
from vitrine.core.random_numbers import make_key
from vitrine.core.references import raised_by
from vitrine.datamodules.decoding import UnreadableImage
from vitrine.datamodules.foreign import ForeignSplit
from vitrine.datamodules.foreign_batches import read_batch
from vitrine.datamodules.loader import Loader


class OwnSplit(ForeignSplit):
    """A split of somebody's data set whose items, where they are random, are functions of a seed.

    Attributes:
        classes: how many there are; None: not known yet.
        name: of the data set, for messages.
    """

    classes: int | None = None
    shape: tuple[int, ...] | None = None  # of an image; None: not known yet
    name: str = "the data set"
    seed: int = 0

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.seeded_batch(indices, make_key(self.seed, *indices.tolist()))

    def seeded_batch(self, indices: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """`batch`, with random numbers of this key.

        Raises:
            UnreadableImage: the data set or its collate function raised, or gave what cannot be trained on.
        """
        numbers = ", ".join(map(str, indices[:8].tolist()))
        try:
            with random_state.seeded(key):
                images, labels = self.raw(indices.tolist())
        except Exception as error:  # anything: it is somebody's own
            raise UnreadableImage(
                f"{self.name}: images {numbers} cannot be read: {_said_by(error)}"
            ) from error
        return self.checked(images, labels, f"images {numbers}"), labels

    def checked(self, images: Tensor, labels: Tensor, which: str) -> Tensor:
        """Images in [0, 1]; UnreadableImage where they, or the labels, cannot be trained on."""
        if self.shape is not None and tuple(images.shape[1:]) != self.shape:
            sizes = [" x ".join(map(str, shape)) for shape in (images.shape[1:], self.shape)]
            raise UnreadableImage(f"{self.name}: {which} are {sizes[0]}, the first ones {sizes[1]}")
        self.check_labels(labels)
        try:
            return self.to_pixels(images)
        except ValueError as error:
            raise UnreadableImage(f"{self.name}: {which}: data.{error}") from None

    def check_labels(self, labels: Tensor) -> None:
        """Raise UnreadableImage for a label that no class has."""
        if self.classes is not None and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.classes:
                wrong = low if low < 0 else high
                expected = f"expected 0 to {self.classes - 1} for {self.classes} classes"
                raise UnreadableImage(f"{self.name}: label {wrong} is out of range: {expected}")


class OwnOrder:
    """The training batches of a DataLoader as indices: those of its batch sampler, divided among the ranks.

    For `Loader`, like `BatchSampler`. Samplers draw from generators that are seeded by the epoch.

    Args:
        loader: a DataLoader over a map-style data set.
        subset: the indices of the split's images in the data set, ascending; None: all.
    """

    train = True

    def __init__(
        self, loader: DataLoader, subset: Tensor | None, *, seed: int, rank: int = 0, world_size: int = 1
    ):
        self.loader, self.subset, self.seed, self.number = loader, subset, seed, rank
        # a sampler for several ranks divides the images itself
        divided = getattr(loader.sampler, "num_replicas", 1) > 1
        self.rank, self.world_size = (0, 1) if divided else (rank, world_size)
        self.epoch = 0

    def __len__(self) -> int:
        """Batches an epoch, the same on every rank."""
        return len(self.loader.batch_sampler) // self.world_size

    @property
    def batch_size(self) -> int:
        return self.loader.batch_size or max(map(len, self.batches(0)), default=0)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def epoch_key(self, epoch: int) -> int:
        return make_key(self.seed, 1, epoch)

    def batches(self, epoch: int) -> list[Tensor]:
        """The epoch's batches of this rank, int64 indices each."""
        loader, key = self.loader, self.epoch_key(epoch)
        prepare_epoch(loader, epoch, key)
        with random_state.seeded(key):
            batches = [torch.as_tensor(batch, dtype=torch.int64) for batch in loader.batch_sampler]
        if self.subset is not None:
            batches = [torch.searchsorted(self.subset, batch) for batch in batches]
        used = len(batches) // self.world_size * self.world_size
        return batches[self.rank : used : self.world_size]

    def seeds(self, epoch: int) -> list[Tensor]:
        """The seed of each batch."""
        key = self.epoch_key(epoch)
        return [torch.tensor(make_key(key, self.number, batch)) for batch in range(len(self))]


class StreamOrder:
    """For `StreamLoader` what `BatchSampler` is for `Loader`: the length and the epoch of any loader."""

    def __init__(self, loader: Any, *, seed: int, train: bool):
        self.loader, self.seed, self.train, self.epoch = loader, seed, train, 0
        self.batch_size = getattr(loader, "batch_size", None) or 2

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def epoch_key(self, epoch: int) -> int:
        return make_key(self.seed, int(self.train), epoch if self.train else 0)


class OwnLoader(Loader):
    """Reads batches of indices as a DataLoader would; see `Loader`.

    Args:
        theirs: the DataLoader.
    """

    def __init__(self, split: OwnSplit, sampler: Any, *, theirs: DataLoader, **options: Any):
        super().__init__(split, sampler, workers=theirs.num_workers, **options)
        self.theirs = theirs

    def _read(self, batches: list[Tensor], seeds: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        options = {"num_workers": self.workers, "pin_memory": torch.cuda.is_available()}
        if self.workers:
            for name in ("prefetch_factor", "multiprocessing_context", "timeout"):
                options[name] = getattr(self.theirs, name)
            whole = self.split.items is self.theirs.dataset
            options["worker_init_fn"] = _WorkerInit(self.theirs.worker_init_fn, whole)
        generator = torch.Generator().manual_seed(0)  # else the global one is advanced for a base seed
        items = _Batches(self.split, self.sampler.train)
        order = [(indices, int(seed)) for indices, seed in zip(batches, seeds)]
        return iter(DataLoader(items, sampler=order, batch_size=None, generator=generator, **options))


class _Batches:
    """A split indexed by (indices, seed)."""

    def __init__(self, split: OwnSplit, train: bool):
        self.split, self.train = split, train

    def __getitem__(self, item: tuple[Tensor, int]) -> tuple[Tensor, Tensor]:
        indices, seed = item
        return self.split.seeded_batch(indices, seed) if self.train else self.split.batch(indices)


class _WorkerInit:
    """Their `worker_init_fn`, to which a worker's data set is theirs, not `_Batches`; so it is to the items.

    Args:
        theirs: the function, if any.
        whole: the split is their data set; else a Subset of it.
    """

    def __init__(self, theirs: Callable[[int], Any] | None, whole: bool):
        self.theirs, self.whole = theirs, whole

    def __call__(self, worker: int) -> None:
        info = get_worker_info()
        items = info.dataset.split.items
        object.__setattr__(info, "dataset", items if self.whole else items.dataset)  # it is read-only
        if self.theirs is not None:
            self.theirs(worker)


class StreamLoader(Loader):
    """Yields the batches of any loader, whose random numbers are those of the epoch; see `Loader`."""

    def __iter__(self) -> Iterator[Any]:
        epoch, start = self._next_epoch()
        self._epoch, self._yielded = epoch, start
        theirs, key = self.sampler.loader, self.sampler.epoch_key(epoch)
        prepare_epoch(theirs, epoch, key)
        with random_state.seeded(key):
            iterator, own = iter(theirs), random_state.capture()
        first = 0
        for number in range(len(self)):
            before = random_state.capture()
            random_state.restore(own)
            try:
                images, labels = read_batch(next(iterator))
            except StopIteration:
                return
            except Exception as error:
                raise UnreadableImage(f"{self.split.name}: batch {number}: {_said_by(error)}") from error
            finally:
                own = random_state.capture()
                random_state.restore(before)
            indices = torch.arange(first, first + len(labels))
            first += len(labels)
            if number < start:
                continue
            self._yielded += 1
            images = self.split.checked(images, labels, f"batch {number}")
            yield self.batch_type(images, labels, indices, torch.tensor(key))


def prepare_epoch(loader: Any, epoch: int, key: int) -> None:
    """Seed the generators of a loader and its samplers, and tell those that want to know the epoch."""
    for place in (loader, *(getattr(loader, name, None) for name in ("sampler", "batch_sampler", "dataset"))):
        if isinstance(generator := getattr(place, "generator", None), torch.Generator):
            generator.manual_seed(key)
        if callable(set_epoch := getattr(place, "set_epoch", None)):
            set_epoch(epoch)


def is_map_style(loader: Any) -> bool:
    """Whether a loader is a DataLoader that reads a data set by batches of indices."""
    plain = isinstance(loader, DataLoader) and loader.batch_sampler is not None
    return plain and not isinstance(loader.dataset, IterableDataset)


def _said_by(error: Exception) -> str:
    """An error in one line, with its place if that is in somebody's code."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    ours = frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith("vitrine.")
    return str(error) if ours else raised_by(error)
