"""What an analysis is given, what it yields, and the protocol between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from vitrine.core.settings import setting


class Images(Protocol):
    """A split of a data set, map-style.

    Optional: `batch(indices) -> (images, labels)` draws many at once;
    `masks(indices) -> {name: bool [N, H, W]}` says where things are ("sign", "sticker").
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image ([C, H, W], float in [0, 1] or uint8) and its label."""
        ...


@dataclass(frozen=True)
class Probes:
    """A fixed small batch that is looked at again and again.

    Attributes:
        images: float in [0, 1], [N, C, H, W].
        labels: int64, [N].
        indices: where each is in the data set, int64, [N].
        masks: where things are, by name, bool [N, H, W] each; None where the data set does not know.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    masks: Mapping[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Figure:
    """One picture.

    Attributes:
        key: path-like, and the same at every checkpoint: "layer3/unit-017", "probe-004/cat".
        image: uint8, [H, W, 3].
        caption: one line a person can read.
        layer, unit, probe, label: what it is of; None where they do not apply. `label` is a class index.
        values: what the picture cannot say (activation, confidence, ...).
    """

    key: str
    image: Tensor
    caption: str
    layer: str | None = None
    unit: int | None = None
    probe: int | None = None
    label: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scalar:
    """One point of a curve over checkpoints; `key` as in "dead_units/layer3"."""

    key: str
    value: float
    layer: str | None = None


Results = Mapping[str, tuple[Sequence[Figure], Sequence[Scalar]]]  # by analysis


class Scratch(Protocol):
    """Where an analysis that takes hours keeps how far it has come; forgotten once it is complete."""

    def load(self, key: str) -> dict[str, Any] | None:
        """What was last saved under a key by an earlier start of this analysis on these weights, if any."""
        ...

    def save(self, key: str, state: Mapping[str, Any]) -> None:
        """Keep tensors and plain containers under a key, in place of what was there."""
        ...


class NoScratch:
    """A `Scratch` that keeps nothing."""

    def load(self, key: str) -> None:
        return None

    def save(self, key: str, state: Mapping[str, Any]) -> None:
        pass


@dataclass(frozen=True)
class Subject:
    """A network at a step, and what it is looked at with.

    Attributes:
        network: in eval mode, parameters frozen; [N, C, H, W] in [0, 1] in, logits [N, K] out.
        probes: a fixed small batch.
        dataset: the split that dataset examples are picked from.
        classes: class names.
        units: the layers to look at, shallow to deep, each with the channels to show.
        step: optimizer steps taken.
        seed: everything random in an analysis comes from it.
        device: where network and probes are.
        batch_size: images a batch, for passes over the data set.
        previous: what each analysis yielded at the checkpoint before, by name; empty where there is none.
        progress: wraps an iterable with a bar, `progress(iterable, description, total)`.
        scratch: where an analysis that is cut off finds how far it had come.
        rank, ranks: this process among those that run an analysis together, see `map_sharded`.
        all_gather: gives every rank the values (anything that can be pickled) of all ranks, in rank order,
            tensors on the CPU. A collective call: all ranks make it equally often.
    """

    network: nn.Module
    probes: Probes
    dataset: Images
    classes: Sequence[str]
    units: Mapping[str, Sequence[int]]
    step: int = 0
    seed: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)
    batch_size: int = 256
    previous: Mapping[str, Sequence[Figure]] = field(default_factory=dict)
    progress: Callable[..., Any] = lambda iterable, *_, **__: iterable
    scratch: Scratch = NoScratch()  # noqa: RUF009 (immutable)
    rank: int = 0
    ranks: int = 1
    all_gather: Callable[[Any], list[Any]] = lambda value: [value]
    _memo: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def layers(self) -> list[str]:
        """Dotted names of the modules to look at, shallow to deep."""
        return list(self.units)

    def cached(self, key: Any, compute: Callable[[], Any]) -> Any:
        """The result of `compute()`, computed at the first call with `key` and shared by all analyses."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    def clear_cache(self) -> None:
        """Drop what `cached` holds."""
        self._memo.clear()

    def images(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """The images (float [N, C, H, W] in [0, 1]) and labels ([N]) at `indices`, on the device."""
        indices = [int(i) for i in indices]
        if hasattr(self.dataset, "batch"):
            images, labels = self.dataset.batch(torch.tensor(indices, dtype=torch.int64))
        else:
            pairs = [self.dataset[i] for i in indices]
            images, labels = torch.stack([p[0] for p in pairs]), torch.tensor([int(p[1]) for p in pairs])
        return as_float(images.to(self.device)), labels.to(self.device)

    def batches(
        self, description: str = "data set", part: range | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The data set in order, all of it or a part, in batches as `images` gives them."""
        part = range(len(self.dataset)) if part is None else part
        starts = part[:: self.batch_size]
        for start in self.progress(starts, description, len(starts)):
            yield self.images(range(start, min(start + self.batch_size, part.stop)))

    def shard(self, count: int) -> range:
        """This rank's contiguous share of `count` items; shares differ by at most one item.

        On a CPU never a single item of several, so maybe none: convolutions of a batch of one round
        differently there, which some techniques (gradient ascent, attacks) amplify.
        """
        return self._shard(count, self.rank, self.ranks)

    def _shard(self, count: int, number: int, parts: int) -> range:
        smallest = 2 if self.device.type == "cpu" else 1
        parts = max(1, min(parts, count // smallest))
        ends = min(number, parts), min(number + 1, parts)
        return range(*(count * end // parts for end in ends))

    def map_groups_sharded(
        self,
        groups: Mapping[Any, Sequence[Any]],
        function: Callable[[Any, Sequence[Any]], Iterable[Any]],
    ) -> Iterator[tuple[Any, list[Any]]]:
        """`function(key, items)` of each group, computed by all ranks together: keys and results, in order.

        Ranks take turns. Groups stay whole where there are at least two for each rank, so that batches are
        as large as in one process; otherwise they are cut into parts.
        """
        if self.ranks == 1:
            yield from ((key, list(function(key, items))) for key, items in groups.items())
            return
        parts = -(-2 * self.ranks // max(1, len(groups)))
        jobs = [
            (key, items[shard.start : shard.stop])
            for key, items in groups.items()
            for number in range(parts)
            if (shard := self._shard(len(items), number, parts))
        ]
        own = {i: list(function(*jobs[i])) for i in range(self.rank, len(jobs), self.ranks)}
        results = {i: result for gathered in self.all_gather(own) for i, result in gathered.items()}
        for key in groups:
            yield key, [one for i, job in enumerate(jobs) if job[0] == key for one in results[i]]

    def map_sharded(
        self, items: Sequence[Any], function: Callable[[Sequence[Any]], Iterable[Any]]
    ) -> list[Any]:
        """`function(items)` computed by all ranks together, each on its shard; every rank gets all results.

        The result for an item must not depend on the other items. `function` is not called on an empty
        shard.
        """
        shard = self.shard(len(items))
        own = list(function(items[shard.start : shard.stop])) if shard else []
        return [one for part in self.all_gather(own) for one in part]

    def with_network(self, network: nn.Module) -> Subject:
        """The same subject with another network and nothing remembered."""
        return dataclasses.replace(self, network=network, scratch=NoScratch(), _memo={})


@dataclass(frozen=True)
class Analysis:
    """A technique with its settings. Calling it on a Subject yields Figures and Scalars as it goes.

    Attributes:
        sharded: where several processes train together, all of them run it at once and divide the work with
            `Subject.map_sharded`, `shard` and `all_gather`; what rank 0 yields is kept. False: one process
            runs it alone, and makes no collective call.
    """

    sharded: ClassVar[bool] = False
    enabled: bool = setting(True, "make these pictures at every checkpoint")

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        raise TypeError(f"{type(self).__name__} does not say what it yields")


def as_float(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]: uint8 is divided by 255, float is taken as it is."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()
