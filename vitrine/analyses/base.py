"""What an analysis is given, and the protocol. What it yields is in `outputs`, and here for techniques."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrine.analyses.outputs import (
    ALARM,
    Figure,
    File,
    Histogram,
    Scalar,
    State,
    Table,
    Turntable,
    alarm,
)
from vitrine.analyses.traits import Traits
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import setting

__all__ = [
    "ALARM",
    "Analysis",
    "Figure",
    "File",
    "Histogram",
    "Probes",
    "Progress",
    "Scalar",
    "Scratch",
    "State",
    "Subject",
    "Table",
    "Turntable",
    "alarm",
    "as_float",
    "no_progress",
]

Progress = Callable[..., Any]
"""Wraps an iterable with a bar: `progress(iterable, description, total)`."""


def no_progress(iterable: Any, *_: Any, **__: Any) -> Any:
    return iterable


@dataclass(frozen=True)
class Probes:
    """A fixed small batch of images, the same at every checkpoint."""

    images: Tensor  # float in [0, 1], [N, C, H, W]
    labels: Tensor  # int64, [N]
    indices: Tensor  # where each is in the data set, int64, [N]
    masks: Mapping[str, Tensor] | None = None  # where things are, bool [N, H, W] by name; None: unknown

    def __len__(self) -> int:
        return len(self.images)


class Scratch:
    """Where a long analysis saves its progress, until it is complete; this one keeps nothing."""

    def load(self, key: str) -> dict[str, Any] | None:
        """What an interrupted run of this analysis on the same weights saved under a key, or None."""
        return None

    def save(self, key: str, state: Mapping[str, Any]) -> None:
        """Save tensors and plain containers under a key, replacing what was there."""

    def empty(self, key: str, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """An uninitialised tensor of any size, of this process alone: where there is a disk, in a file."""
        return torch.empty(tuple(shape), dtype=dtype)


@dataclass(frozen=True)
class Subject:
    """A network at a step, with everything that an analysis may ask for."""

    network: nn.Module  # in eval mode, parameters frozen; [N, C, H, W] in [0, 1] in, logits [N, K] out
    probes: Probes
    dataset: ImageDataset  # the split that dataset examples are picked from
    classes: Sequence[str]  # class names
    units: Mapping[str, Sequence[int]]  # the layers to look at, shallow to deep, and the channels to show
    step: int = 0  # optimizer steps taken
    seed: int = 0  # everything random in an analysis comes from it
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable); where network and probes are
    batch_size: int = 256  # images a batch, for passes over the data set
    shown: Sequence[int] | None = (
        None  # channels in pictures of images that have neither 1 nor 3; see `paint`
    )
    # what each analysis yielded at the checkpoint before, by name; empty where there is none
    previous: Mapping[str, Sequence[Figure]] = field(default_factory=dict)
    # by analysis, the tensors of the `State` that it last yielded at a checkpoint before; read on access
    previous_state: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    train: ImageDataset | None = None  # the training split as it is, without augmentation
    train_note: str = ""  # why there is no training split, or what is odd about it
    learning_rate: float | None = None  # of the checkpoint's optimizer, its first parameter group
    progress: Progress = no_progress
    scratch: Scratch = Scratch()  # noqa: RUF009 (immutable); where an interrupted analysis goes on from
    rank: int = 0  # of the `world_size` processes that run an analysis together, see `map_sharded`
    world_size: int = 1
    # hands a value (anything picklable: plain containers, tensors, Figures) to all ranks and returns every
    # rank's value, by rank, tensors on the CPU; a collective: all ranks call it equally often
    all_gather: Callable[[Any], list[Any]] = lambda value: [value]
    cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # what `cached` computed

    @property
    def layers(self) -> list[str]:
        """Dotted names of the modules to look at, shallow to deep."""
        return list(self.units)

    def cached(self, key: Any, compute: Callable[[], Any]) -> Any:
        """The result of `compute()`, computed when `key` is first asked for and shared by all analyses."""
        if key not in self.cache:
            self.cache[key] = compute()
        return self.cache[key]

    def log_level(self, analysis: str) -> int:
        """At which an analysis logs what it leaves out of a network's pictures: a warning at a run's first
        checkpoint, information later."""
        return logging.INFO if analysis in self.previous else logging.WARNING

    def images(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """The images (float [N, C, H, W] in [0, 1]) and labels ([N]) at `indices`, on the device."""
        return self._read(self.dataset, indices)

    def batches(
        self, description: str = "data set", part: range | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The data set in order, all of it or a part, in batches as `images` gives them."""
        yield from self._batches(self.dataset, description, part)

    def train_images(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """As `images`, of the training split; ValueError where there is none."""
        return self._read(self._training_split, indices)

    def train_batches(
        self, description: str = "training images", part: range | Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `batches`, of the training split; ValueError where there is none."""
        yield from self._batches(self._training_split, description, part)

    @property
    def _training_split(self) -> ImageDataset:
        if self.train is None:
            raise ValueError(f"there are no training images: {self.train_note or 'none were given'}")
        return self.train

    def _read(self, split: ImageDataset, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        images, labels = split.batch(torch.tensor([int(i) for i in indices], dtype=torch.int64))
        return as_float(images.to(self.device)), labels.to(self.device)

    def _batches(
        self, split: ImageDataset, description: str, part: range | Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        part = range(len(split)) if part is None else part
        starts = range(0, len(part), self.batch_size)
        for start in self.progress(starts, description, len(starts)):
            yield self._read(split, part[start : start + self.batch_size])

    def shard(self, count: int) -> range:
        """This rank's shard of `count` items: contiguous indices; shards differ by at most one item.

        On a CPU a shard of several items never holds just one (it may be empty instead): convolutions of a
        batch of one round differently there, which some techniques (gradient ascent, attacks) amplify.
        """
        return self._part(count, self.rank, self.world_size)

    def _part(self, count: int, number: int, parts: int) -> range:
        least = 2 if self.device.type == "cpu" else 1
        parts = max(1, min(parts, count // least))
        ends = min(number, parts), min(number + 1, parts)
        return range(*(count * end // parts for end in ends))

    def map_sharded(
        self, items: Sequence[Any], compute: Callable[[Sequence[Any]], Iterable[Any]]
    ) -> list[Any]:
        """`compute(items)` by all ranks together: each computes its shard, and all get all results, in order.

        The result for an item must not depend on the other items of its shard. `compute` is not called for an
        empty shard.
        """
        own = self.shard(len(items))
        results = list(compute(items[own.start : own.stop])) if own else []
        return [result for shard in self.all_gather(results) for result in shard]

    def map_sharded_groups(
        self, groups: Mapping[Any, Sequence[Any]], compute: Callable[[Any, Sequence[Any]], Iterable[Any]]
    ) -> Iterator[tuple[Any, list[Any]]]:
        """`compute(key, items)` of each group, by all ranks together: each key with its results, in order.

        With at least two groups a rank, every rank takes whole groups in turn, so that a batch is the same as
        in one process. Fewer groups are split into parts.
        """
        if self.world_size == 1:
            yield from ((key, list(compute(key, items))) for key, items in groups.items())
            return
        parts = -(-2 * self.world_size // max(1, len(groups)))
        jobs = [
            (key, items[cut.start : cut.stop])
            for key, items in groups.items()
            for number in range(parts)
            if (cut := self._part(len(items), number, parts))
        ]
        own = {i: list(compute(*jobs[i])) for i in range(self.rank, len(jobs), self.world_size)}
        results = {i: of_job for of_rank in self.all_gather(own) for i, of_job in of_rank.items()}
        for key in groups:
            yield key, [result for i, job in enumerate(jobs) if job[0] == key for result in results[i]]

    def with_network(self, network: nn.Module) -> Subject:
        """The same subject with another network, an empty cache and no scratch."""
        return dataclasses.replace(self, network=network, scratch=Scratch(), cache={})


@dataclass(frozen=True)
class Analysis:
    """A technique with its settings. Calling it on a Subject yields Figures and Scalars as it goes.

    It may yield one `State` and several `File`s as well.
    """

    traits: ClassVar[Traits] = Traits()  # how it is shown, how it ranks runs, what a budget may do to it
    # Where several processes train together, all of them run it at once and share the work by
    # `Subject.map_sharded`, `shard` and `all_gather`; what rank 0 yields is kept. False: one of them runs it
    # alone, without collectives.
    sharded: ClassVar[bool] = False
    batch_size = 1  # images at once, halved when memory runs out; a field of techniques that have the setting
    enabled: bool = setting(True, "make these pictures at every checkpoint")

    @property
    def needs_previous(self) -> bool:
        """Whether the pictures depend on those of the previous checkpoint, so that order matters."""
        return False

    def check(self, network: nn.Module, images: Tensor) -> None:
        """Before a run begins, raise SettingError for a setting with which this network cannot be analyzed.

        Args:
            images: [1, C, H, W], of the size of the data set's.
        """

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar | State | File]:
        raise TypeError(f"{type(self).__name__} does not say what it yields")


def as_float(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]: uint8 is divided by 255, float is taken as it is."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()
