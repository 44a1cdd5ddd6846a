"""Anybody's data as analyses read them: images in [0, 1] with labels, whatever a loader yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, default_collate

from vitrine.core.image_dataset import ImageDataset
from vitrine.datamodules.foreign_batches import LABEL_KEYS, batch_parts, read_batch
from vitrine.datamodules.foreign_listing import listed_labels, listed_path
from vitrine.datamodules.input_normalization import IDENTITY, Normalization
from vitrine.datamodules.normalization_search import find_normalizations
from vitrine.datamodules.own_generators import stream_apart

HELD = 2048  # images that are kept of data which cannot be indexed
SLACK = 0.02  # beyond [0, 1] that resizing with overshoot leaves; it is clipped
_CHECKED = 16  # items that are tried at the start

Statistics = tuple[Sequence[float], Sequence[float]]


class ForeignSplit(ImageDataset):
    """A split of somebody's data set: items through its own collate function, un-normalised to [0, 1].

    Args:
        items: the data set; items are what `collate` takes a list of.
        collate: a list of items to a batch, see `read_batch`.
        of_images: by which the images are normalised; None: they are in [0, 1].
        of_network: by which the input of the network is normalised; None: it is in [0, 1].

    Attributes:
        note: what is odd about the images, for people.
    """

    note: str = ""

    def __init__(
        self,
        items: Any,
        collate: Callable[[list[Any]], Any] = default_collate,
        of_images: Normalization | None = None,
        of_network: Normalization | None = None,
    ):
        self.items, self.collate = items, collate
        self.of_images, self.of_network = of_images, of_network

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.batch(torch.tensor([index]))
        return images[0], int(labels[0])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = self.raw(indices.tolist())
        return self.to_pixels(images), labels

    def to_pixels(self, images: Tensor) -> Tensor:
        """Images in [0, 1] from float images as `raw` gives them.

        Raises:
            ValueError: they are in another range.
        """
        if self.of_images is not None:
            images = self.of_images.undo(images)
        check_pixels(images, self.of_images is not None)
        return images.clamp(0, 1)  # not in place: the memory may be the data set's

    def raw(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images, float32 [n, C, H, W] as they are given to the network, and labels, int64 [n]."""
        return read_batch(self.collate([self.items[i] for i in indices]))

    def path(self, index: int) -> str | None:
        return listed_path(self.items, index)

    def listed_labels(self) -> Tensor | None:
        """The labels that the data set lists, if they are those of its items, int64 [N]."""
        labels = listed_labels(self.items)
        if labels is None or len(labels) != len(self):
            return None
        some = torch.linspace(0, len(self) - 1, min(_CHECKED, len(self))).long()
        return labels if torch.equal(self.raw(some.tolist())[1], labels[some]) else None

    @cached_property
    def labels(self) -> Tensor:
        if (labels := self.listed_labels()) is not None:
            return labels
        return torch.cat([self.raw(range(i, min(i + 64, len(self))))[1] for i in range(0, len(self), 64)])


@dataclass
class ForeignData:
    """What analyses need of somebody's data.

    Attributes:
        split: the images to examine.
        classes: names, by label.
        training: the training images, the same at each reading; None: there are none, or none that are.
        training_note: why there are none, or what is odd about them.
    """

    split: ForeignSplit
    classes: list[str]
    training: ImageDataset | None = None
    training_note: str = "none were given"

    def training_split(self) -> tuple[ImageDataset | None, str]:
        return self.training, self.training_note

    @property
    def val(self) -> ForeignSplit:
        return self.split

    @property
    def train(self) -> ForeignSplit:
        return self.split

    def facts(self) -> dict[str, str]:
        """What a page says of the data."""
        facts = {"data": f"{type(self.split.items).__name__}, {len(self.split)} images"}
        if self.split.note:
            facts["images"] = self.split.note
        if (of_images := self.split.of_images) is not None:
            facts["pixels"] = f"un-normalised by {of_images}"
        if (of_network := self.split.of_network) is not None and of_network != of_images:
            facts["input"] = f"the network's is normalised by {of_network}"
        return facts

    @property
    def statistics(self) -> Statistics | None:
        """Mean and standard deviation by which the network's input is normalised; None: it is not."""
        of_network = self.split.of_network
        return None if of_network is None else (of_network.mean, of_network.std)


def plain_split(loader: Any) -> ForeignSplit:
    """The split that a loader loads: its data set, in order, not its batches; images as they come.

    Of a data set that can only be iterated, and of a loader that has none, the first `HELD` images are held.

    Raises:
        ValueError: the data can be read only once; there are none.
    """
    split = ForeignSplit(*_items(loader))
    if not len(split):
        raise ValueError("the data set has no images")
    return split


def foreign_split(
    loader: Any,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    measured: Normalization | None = None,
) -> ForeignSplit:
    """The split that a loader loads, un-normalised, and how the network's input is normalised.

    Args:
        loader: a DataLoader, or any iterable of batches; or a map-style data set.
        mean, std: by which the network's input is normalised; where images are in [0, 1] nevertheless, that
            happens after the loader. None: as found in the data's transforms and measured after the loader;
            where there is none, the network takes images in [0, 1].
        measured: between what the loader yields and what the network was given; None: that is not known.

    Raises:
        ValueError: the images leave [0, 1] and nothing says how they were normalised; several normalisations
            were found; mean and std are not those that were measured; as `plain_split`; a batch has no images
            and labels.
    """
    given, split = Normalization.of(mean, std), plain_split(loader)
    places = (getattr(loader, name, None) for name in ("dataset", "collate_fn"))
    found = find_normalizations(split.items, split.collate, *places)
    if len(found) > 1 and given is None:
        texts = " and ".join(f"mean={list(m)}, std={list(s)}" for m, s in found)
        raise ValueError(f"mean: the data set has several normalisations, {texts}: give mean=... and std=...")
    some = torch.arange(min(_CHECKED, len(split)))
    if found:
        split.of_images = given or Normalization(*found[0])
    elif given is not None and not is_in_unit_range(split.raw(some.tolist())[0]):
        split.of_images = given
    split.of_network = split.of_images or given
    if measured is not None:
        actual = (split.of_images or IDENTITY).then(measured)
        if given is not None and not given.is_close(actual):
            raise ValueError(f"mean, std: came {given}, but the network's input is normalised by {actual}")
        if not actual.is_close(split.of_network or IDENTITY):
            split.of_network = actual
    elif split.of_network is None and _yields_bytes(split):
        raise ValueError(
            "mean: images are bytes, which the network takes in a way that cannot be known: give "
            "mean=(0, 0, 0), std=(1, 1, 1) if they are divided by 255 for it, (1/255, 1/255, 1/255) if not"
        )
    split.batch(some)  # to raise now
    return split


def _yields_bytes(split: ForeignSplit) -> bool:
    images, _ = batch_parts(split.collate([split.items[0]]))
    return images.dtype == torch.uint8


def is_in_unit_range(images: Tensor) -> bool:
    """Whether images are in [0, 1], but for a little overshoot."""
    return float(images.min()) >= -SLACK and float(images.max()) <= 1 + SLACK


def check_pixels(images: Tensor, normalised: bool) -> None:
    """Raise ValueError unless images are in [0, 1], but for a little overshoot."""
    if is_in_unit_range(images):
        return
    low, high = float(images.min()), float(images.max())
    came = f"images run from {low:.3g} to {high:.3g}"
    if normalised:
        raise ValueError(f"mean, std: un-normalised with them {came}, expected 0 to 1: give others")
    hint = "give mean=(...) and std=(...), per channel, of the normalisation"
    if low >= 0 and high > 2:
        hint = "give mean=(0, 0, 0) and std=(1/255, 1/255, 1/255) if they are bytes"
    raise ValueError(f"mean: {came}, and no Normalize was found in the transforms: {hint}")


def class_names(data_sets: Iterable[Any], count: int, given: Sequence[str] | None = None) -> list[str]:
    """The names of `count` classes: as given, else those that a data set has, else the labels as text.

    Raises:
        ValueError: the names given are not as many.
    """
    if given is not None:
        if len(given) != count:
            raise ValueError(f"classes: {len(given)} names came, expected {count}, as the network has logits")
        return [str(name) for name in given]
    for data_set in data_sets:
        names = names_of(data_set)
        if names is not None and len(names) == count:
            return [str(name) for name in names]
    return [str(label) for label in range(count)]


def names_of(data_set: Any) -> Sequence[Any] | None:
    """The class names that a data set has; None: it has none."""
    while isinstance(data_set, Subset):
        data_set = data_set.dataset
    if isinstance(data_set, ConcatDataset):
        return names_of(data_set.datasets[0])
    features = getattr(data_set, "features", None)  # of Hugging Face's data sets
    if isinstance(features, Mapping):
        of_labels = (features[key] for key in LABEL_KEYS if key in features)
        return next((f.names for f in of_labels if hasattr(f, "names")), None)
    classes = getattr(data_set, "classes", None)
    return classes if isinstance(classes, (list, tuple)) else None


def _items(loader: Any) -> tuple[Any, Callable[[list[Any]], Any]]:
    """A loader's items, indexable, and its collate function."""
    data_set = getattr(loader, "dataset", None)
    if data_set is None:
        if hasattr(loader, "__getitem__") and hasattr(loader, "__len__"):
            return loader, default_collate  # a data set itself
        return _held(loader), _whole
    collate = getattr(loader, "collate_fn", None) or default_collate
    if not isinstance(data_set, IterableDataset) and hasattr(data_set, "__getitem__"):
        return data_set, collate
    data_set = stream_apart(data_set)
    size = getattr(loader, "batch_size", None)
    return _held(DataLoader(data_set, size, collate_fn=collate)), _whole


def _held(batches: Iterable[Any]) -> list[tuple[Tensor, Tensor]]:
    """The first images and labels of batches."""
    if iter(batches) is batches:
        kind = type(batches).__name__
        raise ValueError(f"data: a {kind} can be read only once, expected a loader or a map-style data set")
    held: list[tuple[Tensor, Tensor]] = []
    for batch in batches:
        held += zip(*read_batch(batch))
        if len(held) >= HELD:
            break
    return list(islice(held, HELD))


def _whole(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*items)
    return torch.stack(images), torch.stack(labels)
