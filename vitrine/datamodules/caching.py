"""Whether images in files are decoded into memory once, or each time they are needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from vitrine.core.settings import SettingError
from vitrine.datamodules.files import ImageFiles, UnreadableImage
from vitrine.datamodules.memory import InMemory
from vitrine.datamodules.statistics import compute_statistics, imagenet_statistics

log = logging.getLogger(__name__)

MAX_CACHE_BYTES = 2 * 2**30  # of decoded images, for cache=auto

Statistics = tuple[float, ...]


class _Sized(Protocol):
    channels: int
    image_size: int

    def __len__(self) -> int: ...


def should_cache(cache: str, splits: Sequence[_Sized]) -> bool:
    """Whether the setting `data.cache` (auto, always or never) puts the decoded images of these splits into
    memory; auto does if they are at most 2 GiB."""
    size = sum(len(split) * split.channels * split.image_size**2 for split in splits)
    return cache == "always" or (cache == "auto" and size <= MAX_CACHE_BYTES)


def load_splits(
    splits: Sequence[ImageFiles], cache: str = "auto", skip_corrupt: bool = False
) -> tuple[tuple[ImageFiles, ...] | tuple[InMemory, ...], Statistics, Statistics]:
    """The splits, in memory if `cache` says so, and mean and standard deviation of their pixels.

    Args:
        splits: training split first.
        cache: as for `should_cache`.
        skip_corrupt: decode every file first and leave out those that cannot be.

    Returns:
        The splits, and mean and standard deviation per channel: computed where images are in memory,
        ImageNet's where they are not.

    Raises:
        SettingError: an image cannot be decoded and is not to be skipped; or none of a split can be.
    """
    if skip_corrupt:
        splits = [_without_corrupt(split) for split in splits]
    if not should_cache(cache, splits):
        return tuple(splits), *imagenet_statistics(splits[0].channels)
    try:
        loaded = tuple(split.load("reading images") for split in splits)
    except UnreadableImage as error:
        raise SettingError("data.root", f"{error}; data.skip_corrupt=true leaves such images out") from error
    return loaded, *compute_statistics(next(split for split in loaded if len(split)))


def _without_corrupt(split: ImageFiles) -> ImageFiles:
    readable = split.check_readable("checking images")
    for index in (~readable).nonzero().flatten().tolist():
        log.warning("left out, it cannot be read as an image: %s", split.files[index])
    if len(split) and not readable.any():
        raise SettingError(
            "data.root", f"none of {len(split)} images can be read, the first is {split.files[0]}"
        )
    return split.subset(readable.nonzero().flatten().tolist())
