"""Splits of image files: in memory or read each time they are needed; mean and deviation of their pixels."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import SettingError
from vitrine.datamodules.cache_limit import is_cached
from vitrine.datamodules.decoding import UnreadableImage
from vitrine.datamodules.files import ImageFiles, drop_unreadable
from vitrine.datamodules.image_folders import Samples
from vitrine.datamodules.memory import InMemory

_MASKS_TRIED = 100  # of a split, evenly spaced, before a run starts
_SAMPLE = 2000  # images that mean and standard deviation are taken of: accurate to about a hundredth

Statistics = tuple[float, ...]  # per channel


class _Sized(Protocol):
    channels: int
    image_size: int

    def __len__(self) -> int: ...


def should_cache(cache: str, splits: Sequence[_Sized]) -> bool:
    """Whether the setting `data.cache` (auto, always or never) puts the decoded images of these splits into
    memory; auto does if they are at most 2 GiB."""
    size = sum(len(split) * split.channels * split.image_size**2 for split in splits)
    return is_cached(cache, size)


def image_files(samples: Samples, image_size: int, **options: Any) -> ImageFiles:
    """The split of these files with labels; `image_size` and `options` as for ImageFiles."""
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    return ImageFiles((file for file, _ in samples), labels, image_size, **options)


def prepare_splits(
    settings: Any, *splits: ImageFiles
) -> tuple[tuple[ImageFiles, ...] | tuple[InMemory, ...], Statistics, Statistics]:
    """Splits without what is not to be read, in memory if `cache` says so, and their statistics.

    Args:
        settings: of the source, with `skip_corrupt`.
        splits: training first.

    Returns:
        The splits, and mean and standard deviation per channel of their pixels: computed where images are in
        memory, or have neither 1 nor 3 channels; else ImageNet's.

    Raises:
        SettingError: an image cannot be decoded and is not to be skipped; or none of a split can be.
    """
    files = [_readable(settings, split) for split in splits]
    cached = should_cache(settings.cache, files)
    if not cached and files[0].channels in (1, 3):
        return tuple(files), *imagenet_statistics(files[0].channels)
    try:
        prepared = tuple(split.load("reading images") for split in files) if cached else tuple(files)
        return prepared, *compute_statistics(next(split for split in prepared if len(split)))
    except UnreadableImage as error:
        raise SettingError("data.root", f"{error}; data.skip_corrupt=true leaves such images out") from error


def prepare_test(settings: Any, split: ImageFiles) -> ImageFiles:
    """The test split without what is not to be read; each image is read when it is needed, which is once.

    Raises:
        SettingError: as `prepare_splits`.
    """
    return _readable(settings, split)


def _readable(settings: Any, split: ImageFiles) -> ImageFiles:
    kept = drop_unreadable(split) if settings.skip_corrupt else split
    if len(split) and not len(kept):
        problem = f"none of {len(split)} images can be read, the first is {split.encoded(0)[1]}"
        raise SettingError("data.root", problem)
    try:
        kept.masks(torch.arange(len(kept))[:: max(1, -(-len(kept) // _MASKS_TRIED))])
    except UnreadableImage as error:
        raise SettingError("data.masks", str(error)) from error
    kept.min_scale = settings.augment.random_resized_crop
    return kept


def imagenet_statistics(channels: int = 3) -> tuple[Statistics, Statistics]:
    """Mean and standard deviation of ImageNet's [0, 1] pixels; in grayscale for one channel."""
    if channels == 1:
        return (0.449,), (0.226,)
    if channels != 3:
        raise SettingError("data.normalize", f"is imagenet, whose images have 3 channels, not {channels}")
    return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def compute_statistics(split: ImageDataset, seed: int = 0) -> tuple[Statistics, Statistics]:
    """Mean and standard deviation of a split's [0, 1] pixels, from 2,000 random images at most."""
    sample = permutation(len(split), seed)[:_SAMPLE].sort().values
    count, total, squares = 0, 0.0, 0.0
    for indices in sample.split(100):
        pixels = split.batch(indices)[0].double().div_(255)
        count += pixels[:, 0].numel()
        total, squares = total + pixels.sum((0, 2, 3)), squares + pixels.square_().sum((0, 2, 3))
    mean = total / count
    std = (squares / count - mean.square()).clamp_(min=1e-6).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())
