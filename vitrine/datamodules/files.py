"""Images in files, decoded one by one or all into memory."""

import contextlib
import copy
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import make_key
from vitrine.core.settings import RunAborted, SettingError
from vitrine.datamodules.memory import InMemory

log = logging.getLogger(__name__)

_In, _Out = TypeVar("_In"), TypeVar("_Out")
progress_bar = partial(tqdm, unit="image", leave=False, disable=None)  # on a terminal only, not in a log

_BITS_PER_SAMPLE, _PHOTOMETRIC_INTERPRETATION = 258, 262  # tags of TIFF; the latter is 0 where white is 0


class UnreadableImage(RunAborted, ValueError):
    """A file that cannot be decoded as an image, or is missing; the message names it."""


class ImageFiles(ImageDataset):
    """A split whose images are files, resized and center-cropped to squares of one size.

    A subclass whose images are kept in another way says in `encoded` where to read them.

    Args:
        files: of each image the file, or what `encoded` finds it by.
        labels: int64, [N].
        image_size: pixels a side.
        resize: pixels of the shorter side before the center crop; 0: `image_size`.
        channels: 1 (grayscale) or 3.
        min_scale: smallest fraction of the area in the random resized crop of `training_item`; 1: no crop.

    Raises:
        SettingError: the crop is larger than the resized image.
    """

    def __init__(
        self,
        files: Iterable[Any],
        labels: Tensor,
        image_size: int,
        *,
        resize: int = 0,
        channels: int = 3,
        min_scale: float = 1.0,
    ):
        if 0 < resize < image_size:
            raise SettingError("data.resize", f"is {resize}, expected at least data.image_size, {image_size}")
        self.files, self.labels = list(files), labels.long()
        self.image_size, self.channels, self.min_scale = image_size, channels, min_scale
        self.resize = resize or image_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image, uint8 [C, H, W], and its label.

        Raises:
            UnreadableImage: the file cannot be decoded.
        """
        image = self.decode(index)
        if min(image.size) != self.resize:
            image = F.resize(image, self.resize)
        if image.size != (self.image_size, self.image_size):
            image = F.center_crop(image, self.image_size)
        return to_tensor(image), int(self.labels[index])

    def training_item(self, index: int, seed: int) -> tuple[Tensor, int]:
        """A random resized crop of the whole photograph, a function of (seed, index), and its label."""
        if self.min_scale == 1:
            return self[index]
        crop = v2.RandomResizedCrop(self.image_size, scale=(self.min_scale, 1.0))
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(make_key(seed, index))
            image = crop(self.decode(index))
        return to_tensor(image), int(self.labels[index])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images, uint8 [n, C, H, W], and labels, int64 [n], at `indices`, decoded in threads."""
        return self._read(indices.tolist()), self.labels[indices]

    def load(self, description: str) -> InMemory:
        """The split with all images decoded into memory, under a progress bar."""
        bar = partial(progress_bar, desc=description, total=len(self))
        return InMemory(self._read(range(len(self)), bar), self.labels)

    def _read(self, indices: Sequence[int], bar: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> Tensor:
        images = torch.empty(len(indices), self.channels, self.image_size, self.image_size, dtype=torch.uint8)
        for image, (item, _) in zip(images, bar(map_in_threads(self.__getitem__, indices))):
            image.copy_(item)
        return images

    @property
    def storage(self) -> str:
        return "read from disk"

    def encoded(self, index: int) -> tuple[Path | BinaryIO, object]:
        """What the image at `index` is decoded from, and what messages call it."""
        return self.files[index], self.files[index]

    def select(self, indices: Sequence[int]) -> Self:
        """The split of these images alone."""
        selected = copy.copy(self)
        selected.files = [self.files[i] for i in indices]
        selected.labels = self.labels[torch.as_tensor(indices, dtype=torch.int64)]
        return selected

    def decode(self, index: int) -> Image.Image:
        """The whole image.

        Raises:
            UnreadableImage: it cannot be decoded.
        """
        return decode_image(*self.encoded(index), self.channels)


def decode_image(file: Path | BinaryIO, name: object, channels: int) -> Image.Image:
    """The image in a file, upright as its EXIF data say, grayscale (1 channel) or in colour (3).

    Gray levels of 16 bits, and floats from 0 to 1, are scaled to 8 bits.

    Raises:
        UnreadableImage: it cannot be decoded, or its white is not known; the message begins with `name`.
    """
    try:
        with Image.open(file) as image:
            with contextlib.suppress(Exception):  # damaged EXIF data; damaged pixels are reported below
                ImageOps.exif_transpose(image, in_place=True)
            return _to_8_bits(image).convert("RGB" if channels == 3 else "L")
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
        raise UnreadableImage(f"{name} cannot be read as an image ({error})") from error


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Gray levels of more than 8 bits scaled to 8, which Pillow would clip; other images as they are."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    levels, tags = np.asarray(image, np.float64), getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode == "F":
        white = 1.0
        if not (levels.min() >= 0 and levels.max() <= 1):
            raise ValueError(f"it has values from {levels.min():g} to {levels.max():g}, expected 0 to 1")
    elif image.mode != "I":
        white = 2.0 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    elif image.format in ("PNG", "PPM"):
        white = 2.0**16 - 1
    else:
        raise ValueError("it has 32-bit integers, whose white is not known")
    if tags.get(_PHOTOMETRIC_INTERPRETATION) == 0:
        levels = white - levels
    return Image.fromarray(np.rint(levels * (255 / white)).astype(np.uint8))


def available_cores() -> int:
    """How many cores this process may run on: those of its job on a cluster, where the system knows them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterable[_Out]:
    """`work(item)` of every item, in order, in as many threads as cores, a little ahead of the consumer."""
    threads = available_cores()
    with ThreadPoolExecutor(threads) as pool:
        waiting = []
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 64 * threads:  # results waiting to be consumed are whole images
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            pool.shutdown(cancel_futures=True)


def to_tensor(image: Image.Image) -> Tensor:
    """uint8 [C, H, W]; torchvision's own way takes as long as decoding a small JPEG does."""
    return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1)


def drop_unreadable(split: ImageFiles) -> ImageFiles:
    """The images that can be decoded (every one is, under a progress bar); each of the others is logged."""

    def is_readable(index: int) -> bool:
        try:
            split.decode(index)
        except UnreadableImage as error:
            log.warning("left out: %s", error)
            return False
        return True

    indices = range(len(split))
    readable = progress_bar(map_in_threads(is_readable, indices), "checking images", len(split))
    return split.select([index for index, good in zip(indices, readable) if good])


def square_size(*splits: ImageFiles) -> int:
    """The side of the images, if up to 100 of them, evenly spaced, are squares of one size.

    Raises:
        SettingError: of `data.image_size`, if they are not.
    """
    sizes, every = set(), [(split, i) for split in splits for i in range(len(split))]
    for split, index in every[:: max(1, -(-len(every) // 100))]:
        # what is unreadable is reported, or skipped, when it is read
        with contextlib.suppress(OSError, UnreadableImage), Image.open(split.encoded(index)[0]) as image:
            sizes.add(image.size)
    if len(sizes) == 1 and len(set(*sizes)) == 1:
        return sizes.pop()[0]
    shown = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
    problem = f"is 0, but the images are {shown or 'unreadable'}; expected pixels a side"
    raise SettingError("data.image_size", problem)
