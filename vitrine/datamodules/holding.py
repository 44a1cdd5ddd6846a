"""Whether images in files are held in memory or read anew each time."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vitrine.core.settings import SettingError
from vitrine.datamodules.files import Files, UnreadableImage
from vitrine.datamodules.memory import InMemory
from vitrine.datamodules.statistics import imagenet_statistics, statistics

log = logging.getLogger(__name__)

MEMORY = 2 * 2**30  # bytes of decoded images that `cache=auto` takes

Statistics = tuple[float, ...]


def held(
    splits: Sequence[Files], cache: str = "auto", skip_corrupt: bool = False
) -> tuple[tuple[Files, ...] | tuple[InMemory, ...], Statistics, Statistics]:
    """The splits, decoded into memory if they may be, and mean and standard deviation of their pixels.

    Args:
        splits: training split first.
        cache: "auto" (in memory if all are at most 2 GiB when decoded), "always" or "never".
        skip_corrupt: try every file first and leave out those that cannot be decoded.

    Returns:
        The splits, and mean and standard deviation per channel: counted where images are in memory,
        ImageNet's where they are not.

    Raises:
        SettingError: an image cannot be decoded and is not to be skipped; or none of a split can be.
    """
    if skip_corrupt:
        splits = [_readable(split) for split in splits]
    size = sum(len(split) * split.channels * split.image_size**2 for split in splits)
    if cache == "never" or (cache == "auto" and size > MEMORY):
        return tuple(splits), *imagenet_statistics(splits[0].channels)
    try:
        decoded = tuple(split.decoded("reading images") for split in splits)
    except UnreadableImage as error:
        raise SettingError("data.root", f"{error}; data.skip_corrupt=true leaves such images out") from error
    return decoded, *statistics(next(split for split in decoded if len(split)))


def _readable(split: Files) -> Files:
    good = split.readable("checking images")
    for index in (~good).nonzero().flatten().tolist():
        log.warning("left out, it cannot be read as an image: %s", split.files[index])
    if len(split) and not good.any():
        raise SettingError(
            "data.root", f"none of {len(split)} images can be read, the first is {split.files[0]}"
        )
    return split.at(good.nonzero().flatten().tolist())
