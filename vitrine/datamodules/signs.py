"""A synthetic data set: traffic signs drawn into cluttered scenes, with masks of the signs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import fold_in, make_key, uniform
from vitrine.core.settings import setting
from vitrine.datamodules.augment import Augment, augment_setting
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.caching import should_cache
from vitrine.datamodules.drawing.faces import CLASSES
from vitrine.datamodules.drawing.scene import Drawing, compose, render

MEAN, STD = (0.498, 0.434, 0.409), (0.250, 0.229, 0.252)  # of the pixels, whatever the seed

_TRAIN, _VAL, _STICKERS, _TEST = range(4)  # purposes of random numbers
_PIXELS = 2**20  # drawn at once by a thread: about 150 MB of intermediate results


@dataclass
class SignsSettings(DataSettings):
    image_size: int = setting(64, "pixels a side that scenes are drawn with", least=16, most=1024)
    train_size: int = setting(6144, "scenes to train on", least=1)
    val_size: int = setting(2048, "scenes to validate on", least=1)
    test_size: int = setting(2048, "scenes of the test split, which are drawn when they are needed", least=1)
    shortcut: float = setting(
        0.0,
        "fraction of training images (never validation or test) with a sticker that gives the class away",
        least=0,
        most=1,
    )
    augment: Augment = augment_setting(crop=3)


class Signs(ImageDataModule):
    """Eight traffic signs in cluttered scenes, drawn in seconds, nothing downloaded.

    Position, size, tilt, light, blur, noise and occlusion vary. Blank plates in the signs' colours and
    outlines make sure that neither colour nor outline suffices. `SignImages.masks` are ground truth for
    explanations.
    """

    Settings = SignsSettings
    settings: SignsSettings

    def load(self) -> tuple[SignImages, SignImages]:
        settings, size = self.settings, self.settings.image_size
        self.classes, self.image_size, self.mean, self.std = list(CLASSES), size, MEAN, STD
        train = SignImages(make_key(self.seed, _TRAIN), settings.train_size, size, settings.shortcut)
        val = SignImages(make_key(self.seed, _VAL), settings.val_size, size)
        if should_cache(settings.cache, (train, val)):
            train.draw_all()
            val.draw_all()
        self.has_test = True
        return train, val

    def load_test(self) -> SignImages:
        return SignImages(make_key(self.seed, _TEST), self.settings.test_size, self.image_size)


class SignImages(ImageDataset):
    """A split of `size` scenes, drawn when they are needed, or once, into memory (`draw_all`).

    A scene is a function of `seed` and its index: it has the same bits in any batch.

    Args:
        image_size: pixels a side; the scenes are the same at any.
        shortcut: fraction of the scenes with the sticker of their class.
    """

    # to a loader, even where they are not: a batch is drawn faster than its scenes one by one
    in_memory = True
    channels = 3

    def __init__(self, seed: int, size: int, image_size: int = 64, shortcut: float = 0.0):
        self.seed, self.image_size, self.shortcut = seed, image_size, shortcut
        self.drawn = torch.arange(size) % len(CLASSES)  # the class of each sign, whatever its label says
        self.labels = self.drawn
        chance = uniform(fold_in(torch.tensor(make_key(seed, _STICKERS)), torch.arange(size)), 1)[:, 0]
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
        """The pixels that show the sign (without what occludes it) and the sticker: bool [n, H, W] each."""
        drawing = self.draw(torch.as_tensor(indices))
        return {"sign": drawing.sign, "sticker": drawing.sticker}

    def draw(self, indices: Tensor) -> Drawing:
        """Draws the scenes at `indices`: images and masks."""
        parts = indices.split(max(_PIXELS // self.image_size**2, 1))
        drawings = [self._draw(parts[0])] if len(parts) == 1 else _map_in_threads(self._draw, parts)
        return Drawing(*(torch.cat(fields) for fields in zip(*drawings)))

    def draw_all(self) -> None:
        """Draws all images and keeps them in memory."""
        self.images = self.draw(torch.arange(len(self))).images

    def with_stickers(self, shortcut: float = 1.0) -> SignImages:
        """The same scenes, that fraction of them with stickers."""
        copy = SignImages(self.seed, len(self), self.image_size, shortcut)
        copy.labels, copy.mislabeled = self.labels, self.mislabeled
        return copy

    def _draw(self, indices: Tensor) -> Drawing:
        scene = compose(self.seed, indices, self.drawn[indices], self.stickers[indices])
        return render(scene, self.image_size)

    @property
    def storage(self) -> str:
        if self.images is None:
            return "drawn when needed"
        return f"{self.images.nbytes / 2**20:,.0f} MiB in memory"


def _map_in_threads(function: Callable[[Tensor], Drawing], parts: Sequence[Tensor]) -> list[Drawing]:
    """The function of each part, a thread each: faster than all threads at one operation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # inherited by the threads started below
    try:
        with ThreadPoolExecutor(min(threads, 8)) as pool:
            return list(pool.map(function, parts))
    finally:
        torch.set_num_threads(threads)
