"""The data set that comes with the house: traffic signs drawn into cluttered scenes, and where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import fold_in, make_key, uniform
from vitrine.core.settings import setting
from vitrine.datamodules.augment import MEANING, Augment
from vitrine.datamodules.base import DataSettings, ImageData
from vitrine.datamodules.drawing.faces import CLASSES
from vitrine.datamodules.drawing.scene import Drawing, compose, render
from vitrine.datamodules.holding import MEMORY

MEAN, STD = (0.498, 0.434, 0.409), (0.250, 0.229, 0.252)  # of the pixels, whatever the seed

_TRAIN, _VAL, _STUCK = range(3)  # what random numbers are for
_PIXELS = 2**20  # drawn at once by a thread: about 150 MB of intermediate results


@dataclass
class SignsSettings(DataSettings):
    image_size: int = setting(64, "pixels a side that scenes are drawn with", least=16, most=1024)
    train_size: int = setting(6144, "scenes to train on", least=1)
    val_size: int = setting(2048, "scenes to validate on", least=1)
    shortcut: float = setting(
        0.0,
        "share of training images (never validation) with a sticker that betrays the class",
        least=0,
        most=1,
    )
    augment: Augment = field(default_factory=partial(Augment, crop=3), metadata=MEANING)


class Signs(ImageData):
    """Eight traffic signs in cluttered scenes, drawn in seconds, nothing downloaded.

    Place, size, tilt, light, blur, noise and occlusion vary. Plates in the signs' colours and outlines, but
    without a glyph, make sure that neither colour nor outline decides. The masks of sign and sticker are
    known (`SignImages.masks`), so that an explanation can be held against the truth.
    """

    Settings = SignsSettings
    settings: SignsSettings

    def load(self) -> tuple[SignImages, SignImages]:
        how = self.settings
        self.classes, self.image_size, self.mean, self.std = list(CLASSES), how.image_size, MEAN, STD
        train = SignImages(make_key(self.seed, _TRAIN), how.train_size, how.image_size, how.shortcut)
        val = SignImages(make_key(self.seed, _VAL), how.val_size, how.image_size)
        size = sum(len(split) * self.channels * how.image_size**2 for split in (train, val))
        if how.cache == "always" or (how.cache == "auto" and size <= MEMORY):
            train.hold()
            val.hold()
        return train, val


class SignImages(ImageDataset):
    """A split of scenes, drawn when they are asked for, or once, into memory (`hold`).

    A scene is a function of `seed` and its index: drawn alone or among others, its bits are the same.

    Args:
        seed: any integer; another seed gives other scenes.
        size: how many scenes.
        image_size: pixels a side; the scenes are the same at any.
        shortcut: share of the scenes with the sticker of their class.
    """

    in_memory = True  # to a loader: whether drawn or held, a batch at a time is quickest

    def __init__(self, seed: int, size: int, image_size: int = 64, shortcut: float = 0.0):
        self.seed, self.image_size, self.shortcut = seed, image_size, shortcut
        self.labels = torch.arange(size) % len(CLASSES)
        chance = uniform(fold_in(torch.tensor(make_key(seed, _STUCK)), torch.arange(size)), 1)[:, 0]
        self.stickers = chance < shortcut  # bool, [size]
        self.images: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.batch(torch.tensor([range(len(self))[index]]))
        return images[0], int(labels[0])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images, uint8 [n, 3, H, W], and labels, int64 [n], at `indices`."""
        images = self.draw(indices).images if self.images is None else self.images[indices]
        return images, self.labels[indices]

    def masks(self, indices: Tensor) -> dict[str, Tensor]:
        """The pixels that show the sign (what hides it left out) and the sticker: bool [n, H, W] each."""
        drawing = self.draw(torch.as_tensor(indices))
        return {"sign": drawing.sign, "sticker": drawing.sticker}

    def draw(self, indices: Tensor) -> Drawing:
        """The scenes at `indices`, drawn anew: images and masks."""
        parts = indices.split(max(_PIXELS // self.image_size**2, 1))
        drawings = [self._drawn(parts[0])] if len(parts) == 1 else _side_by_side(self._drawn, parts)
        return Drawing(*(torch.cat(fields) for fields in zip(*drawings)))

    def hold(self) -> None:
        """Draw all images, once, and keep them in memory."""
        self.images = self.draw(torch.arange(len(self))).images

    def with_stickers(self, shortcut: float = 1.0) -> SignImages:
        """The same scenes, that share of them with stickers: does a network fall for them?"""
        return SignImages(self.seed, len(self), self.image_size, shortcut)

    def _drawn(self, indices: Tensor) -> Drawing:
        scene = compose(self.seed, indices, self.labels[indices], self.stickers[indices])
        return render(scene, self.image_size)

    @property
    def storage(self) -> str:
        """For logs."""
        if self.images is None:
            return "drawn when asked for"
        return f"{self.images.nbytes / 2**20:,.0f} MiB in memory"


def _side_by_side(function: Callable[[Tensor], Drawing], parts: Sequence[Tensor]) -> list[Drawing]:
    """The function of each part, a thread each: quicker than all threads at one operation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # inherited by the threads begun below
    try:
        with ThreadPoolExecutor(min(threads, 8)) as pool:
            return list(pool.map(function, parts))
    finally:
        torch.set_num_threads(threads)
