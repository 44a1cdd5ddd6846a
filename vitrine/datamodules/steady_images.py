"""The images of somebody's data set, the same at each reading though they are made at random."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, Subset

from vitrine.core import random_state
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import make_key
from vitrine.core.references import raised_by
from vitrine.datamodules.foreign import ForeignSplit, foreign_split
from vitrine.datamodules.input_normalization import Normalization
from vitrine.datamodules.own_generators import OWN_GENERATOR, generator_states, own_generators

_ITEMS, _READINGS = 8, 6  # which are compared: an item that is mirrored half of the time differs in 31 of 32

STEADIED = "your data set changes its images at random; of each, one version is taken, always the same"


class SteadyImages(ForeignSplit):
    """A split whose items are random as functions of a seed and their index, in any batch.

    Args:
        split: reads its items with the generators of python, numpy and torch.
    """

    def __init__(self, split: ForeignSplit, seed: int = 0):
        super().__init__(split.items, split.collate, split.of_images, split.of_network)
        self.split, self.seed = split, seed

    @cached_property
    def labels(self) -> Tensor:
        return self.split.labels

    def listed_labels(self) -> Tensor | None:
        return self.split.listed_labels()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with random_state.seeded(make_key(self.seed, index)):
            images, labels = self.split.batch(torch.tensor([index]))
        return images[0], int(labels[0])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return ImageDataset.batch(self, indices)  # each alone

    def raw(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        read = []
        for index in indices:
            with random_state.seeded(make_key(self.seed, index)):
                read.append(self.split.raw([index]))
        images, labels = zip(*read)
        return torch.cat(images), torch.cat(labels)

    def path(self, index: int) -> str | None:
        return self.split.path(index)


def steady_images(split: ForeignSplit, seed: int = 0) -> tuple[ImageDataset | None, str]:
    """Training images that are the same at each reading, and what is to be said of them.

    That is the split itself where its items are not random. The process's random numbers are left as they
    were.

    Returns:
        None with the reason, where the items are drawn by a generator of the data set's own, which reading
        them would advance under the training's feet, or where they cannot be read.
    """
    if own_generators(split.items, split.collate):
        return None, OWN_GENERATOR
    return _steadied(split, seed)


def _steadied(split: ForeignSplit, seed: int) -> tuple[ForeignSplit | None, str]:
    """`steady_images` of a split without a generator of its own."""
    indices = torch.linspace(0, len(split) - 1, min(_ITEMS, len(split))).long().tolist()

    def read(key: int) -> Tensor:
        with random_state.seeded(make_key(seed, key)):
            return split.raw(indices)[0]

    try:
        if not (first := read(0)).isfinite().all():
            return None, "they have numbers that are not finite"
        if all(torch.equal(first, read(key)) for key in range(1, _READINGS)):
            return split, ""
        if torch.equal(first, read(0)):
            return SteadyImages(split, seed), STEADIED
    except Exception as error:  # of somebody's own code
        return None, f"they cannot be read ({raised_by(error)})"
    return None, "your data set changes its images at random, whatever the seed"


def foreign_training(
    loader: Any,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    measured: Normalization | None = None,
) -> tuple[ImageDataset | None, str]:
    """The training images of somebody's loader or data set as `steady_images` gives them: those that a
    SubsetRandomSampler draws from, where there is one; None with the reason, where they cannot be indexed.

    Args:
        loader: None: there is none.
        mean, std, measured: as for `foreign_split`.
    """
    if loader is None:
        return None, "none were given"
    data_set, collate = getattr(loader, "dataset", loader), getattr(loader, "collate_fn", None)
    indexed = hasattr(data_set, "__getitem__") and hasattr(data_set, "__len__")
    if isinstance(data_set, IterableDataset) or not indexed:
        return None, f"a {type(data_set).__name__} cannot be read image by image"
    if own_generators(data_set, collate):  # reading an image would advance it
        return None, OWN_GENERATOR
    try:
        with random_state.seeded(make_key(0)):
            split = foreign_split(loader, mean, std, measured)
    except Exception as error:  # of somebody's own code
        return None, f"they cannot be read ({raised_by(error)})"
    indices = getattr(getattr(loader, "sampler", None), "indices", None)
    if indices is not None:
        split.items = Subset(split.items, sorted(int(index) for index in indices))
    return _steadied(split, seed=0)


def examined_split(loader: Any, *normalization: Any) -> ForeignSplit:
    """`foreign_split` of images to examine, the same at each reading; its `note` says what is odd about them.

    They may be those of training, where there is no validation.

    Args:
        normalization: as for `foreign_split`.

    Raises:
        ValueError: as `foreign_split`; reading the images advances a generator of the data set's own.
    """
    data_set, collate = getattr(loader, "dataset", loader), getattr(loader, "collate_fn", None)
    generators = own_generators(data_set, collate)
    before = generator_states(generators)
    with random_state.seeded(make_key(0)):  # of a stream the first images are held
        split = foreign_split(loader, *normalization)
    steady, note = _steadied(split, seed=0)
    if generator_states(generators) != before:
        expected = (
            "expected one that draws from torch's, numpy's or python's, or a validation loader of others"
        )
        raise ValueError(f"data: {OWN_GENERATOR}: {expected}")
    split = split if steady is None else steady
    split.note = note
    return split
