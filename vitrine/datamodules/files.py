"""Images in files: decoded when they are asked for, or once, into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import make_key
from vitrine.core.settings import Stopped
from vitrine.datamodules.memory import InMemory

_In, _Out = TypeVar("_In"), TypeVar("_Out")
progress = partial(tqdm, unit="image", leave=False, disable=None)  # on a terminal only, not in a log


class UnreadableImage(Stopped, ValueError):
    """A file that cannot be decoded as an image, or is not there any more; names it."""


class Files(ImageDataset):
    """A split whose images are files, decoded on request: square, centred, of one size.

    Args:
        files: the paths.
        labels: int64, [N].
        image_size: pixels a side.
        resize: pixels of the shorter side before the centre is cut out; 0: `image_size`.
        channels: 1 (grayscale) or 3.
        zoom: smallest share of the area that the random crop of `training_item` keeps.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Tensor,
        image_size: int,
        *,
        resize: int = 0,
        channels: int = 3,
        zoom: float = 1.0,
    ):
        self.files, self.labels = list(files), labels.long()
        self.image_size, self.channels, self.zoom = image_size, channels, zoom
        self.resize = resize or image_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image, uint8 [C, H, W], and its label.

        Raises:
            UnreadableImage: the file cannot be decoded.
        """
        image = self._decoded(index)
        if min(image.size) != self.resize:
            image = F.resize(image, self.resize)
        if image.size != (self.image_size, self.image_size):
            image = F.center_crop(image, self.image_size)
        return _as_tensor(image), int(self.labels[index])

    def training_item(self, index: int, seed: int) -> tuple[Tensor, int]:
        """An item for training: a random part of the whole photograph, a function of (seed, index)."""
        if self.zoom == 1:
            return self[index]
        crop = v2.RandomResizedCrop(self.image_size, scale=(self.zoom, 1.0))
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(make_key(seed, index))
            image = crop(self._decoded(index))
        return _as_tensor(image), int(self.labels[index])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images, uint8 [n, C, H, W], and labels, int64 [n], at `indices`, decoded in threads."""
        images = torch.empty(len(indices), self.channels, self.image_size, self.image_size, dtype=torch.uint8)
        for image, (item, _) in zip(images, in_threads(self.__getitem__, indices.tolist())):
            image.copy_(item)
        return images, self.labels[indices]

    def decoded(self, description: str) -> InMemory:
        """All of them in memory; a progress bar says how far it is."""
        images = torch.empty(len(self), self.channels, self.image_size, self.image_size, dtype=torch.uint8)
        items = in_threads(self.__getitem__, range(len(self)))
        for image, (item, _) in zip(images, progress(items, description, len(self))):
            image.copy_(item)
        return InMemory(images, self.labels)

    def readable(self, description: str) -> Tensor:
        """Which files can be decoded, bool [N]: every one is tried."""
        tried = in_threads(partial(_is_readable, self), range(len(self)))
        return torch.tensor(list(progress(tried, description, len(self))), dtype=torch.bool)

    def at(self, indices: Sequence[int]) -> Files:
        """Some of them."""
        return Files(
            [self.files[i] for i in indices],
            self.labels[torch.as_tensor(indices, dtype=torch.int64)],
            self.image_size,
            resize=self.resize,
            channels=self.channels,
            zoom=self.zoom,
        )

    @property
    def storage(self) -> str:
        return "read from disk"

    def _decoded(self, index: int) -> Image.Image:
        return decoded(self.files[index], self.files[index], self.channels)


def decoded(file: Path | BinaryIO, name: object, channels: int) -> Image.Image:
    """The image in a file, grayscale or in colour.

    Raises:
        UnreadableImage: it cannot be decoded; `name` says which.
    """
    try:
        with Image.open(file) as image:
            return image.convert("RGB" if channels == 3 else "L")
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
        raise UnreadableImage(f"{name} cannot be read as an image ({error})") from error


def cores() -> int:
    """How many cores this process may run on: a job's share of a machine, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterable[_Out]:
    """`work` on every item, in order, in as many threads as there are cores, a little ahead of the reader."""
    threads = cores()
    with ThreadPoolExecutor(threads) as pool:
        waiting = []
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 64 * threads:  # results that nobody has taken yet are whole images
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for left in waiting:
                left.cancel()


def _as_tensor(image: Image.Image) -> Tensor:
    """uint8 [C, H, W]; torchvision's own way takes as long as decoding a small JPEG does."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _is_readable(files: Files, index: int) -> bool:
    try:
        files[index]
    except UnreadableImage:
        return False
    return True
