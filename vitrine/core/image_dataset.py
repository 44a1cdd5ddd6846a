"""A split of a data set, as datamodules offer it and analyses read it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def shown_channels(channels: int) -> tuple[int, ...]:
    """The channels that pictures show of images with so many, unless others are chosen: the first three, as
    red, green and blue; of two the first, as gray."""
    return (0,) if channels < 3 else (0, 1, 2)


def relative_path(file: str | Path, root: str | Path | None) -> str:
    """A file as a person finds it below the data's root; as it is, if it lies elsewhere."""
    file = Path(file)
    inside = root is not None and file.is_relative_to(root)
    return (file.relative_to(root) if inside else file).as_posix()


class ImageDataset:
    """A split of a data set: map-style, and many images at once. A subclass defines length and items.

    Attributes:
        in_memory: whether a loader reads a batch at a time in its own process; else worker processes read an
            item at a time.
        mislabeled: which labels are known to be wrong, as they were planted, bool [N]; None: unknown.
        parts: what its scenes are made of, where they can be drawn without some of it; most images cannot.
        class_parts: those of them of which each class has its own.
        shortcuts: masks, and parts, of what gives a class away without being it.
    """

    in_memory: bool = False
    mislabeled: Tensor | None = None
    parts: Sequence[str] = ()
    class_parts: Sequence[str] = ()
    shortcuts: Sequence[str] = ()

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not define __len__")

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image ([C, H, W], uint8 or float in [0, 1]) and its label."""
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__")

    @cached_property
    def labels(self) -> Tensor:
        """The labels of all images, int64 [N]; a subclass that has them sets them without reading images."""
        return torch.tensor([int(self[i][1]) for i in range(len(self))], dtype=torch.int64)

    def listed_labels(self) -> Tensor | None:
        """The labels, int64 [N], where they are known without reading images; else None."""
        listed = "labels" in vars(self) or type(self).labels is not ImageDataset.labels
        return self.labels if listed else None

    @property
    def storage(self) -> str:
        """Where the images are, in a few words for logs."""
        return "read when needed"

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images [n, C, H, W], of the items' type, and labels, int64 [n], at `indices`."""
        images, labels = zip(*(self[i] for i in indices.tolist()))
        return torch.stack(images), torch.tensor([int(label) for label in labels], dtype=torch.int64)

    def training_item(self, index: int, seed: int) -> tuple[Tensor, int]:
        """The item for training, a function of (seed, index): random where that needs the original image (a
        random crop of the whole photograph)."""
        return self[index]

    def path(self, index: int) -> str | None:
        """The file that an image came from, relative to the data's root, or its place in an archive; None:
        unknown."""
        return None

    def masks(self, indices: Tensor) -> dict[str, Tensor]:
        """Which pixels show what ("sign", "sticker"), bool [n, H, W] by name; empty where that is unknown."""
        return {}

    def part_masks(self, indices: Tensor) -> dict[str, Tensor]:
        """Which pixels show which of `parts`, bool [n, H, W] by name; none where there is no such part."""
        return {}

    def without_parts(self, indices: Tensor, left_out: Tensor) -> Tensor:
        """The images [n, C, H, W] at `indices` without some of their parts, and all else the same to the bit.

        Args:
            left_out: bool [n, parts], in the order of `parts`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no parts to leave out")

    def with_other_parts(self, indices: Tensor, replaced: Tensor) -> Tensor:
        """The same with some of their parts replaced by those of another class, one that is a function of the
        index.

        Args:
            replaced: bool [n, parts], of `class_parts` only. Where there is no such part, nothing changes.
        """
        raise NotImplementedError(f"{type(self).__name__} has no parts to replace")

    def with_stickers(self) -> ImageDataset | None:
        """The same images, each with a sticker that gives its class away and a mask of it, to see whether a
        network relies on such a shortcut; None where the data set has no stickers."""
        return None


class MapDataset(ImageDataset):
    """An `ImageDataset` around anybody's map-style data set of (image, label, ...).

    Args:
        dataset: with a length and items; its `labels`, if it has any, spare reading all images for them.
    """

    def __init__(self, dataset: Sequence[Any]):
        self.dataset = dataset
        if getattr(dataset, "labels", None) is not None:
            self.labels = torch.as_tensor(dataset.labels, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label, *_ = self.dataset[index]
        return image, int(label)


def as_image_dataset(dataset: ImageDataset | Sequence[Any]) -> ImageDataset:
    """The data set itself, or a `MapDataset` around it."""
    return dataset if isinstance(dataset, ImageDataset) else MapDataset(dataset)
