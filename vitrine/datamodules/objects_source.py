"""A synthetic data set: six objects from all sides, of which the texture tells the class."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import fold_in, make_key
from vitrine.core.settings import setting
from vitrine.datamodules.augment import Augment, augment_setting
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.caching import should_cache
from vitrine.objects import shapes
from vitrine.objects.render import render
from vitrine.objects.textures import CLASSES, class_textures
from vitrine.objects.views import ViewDistribution, Views, draw_views

MEAN, STD = (0.51, 0.49, 0.48), (0.26, 0.26, 0.27)  # of the pixels, about, whatever the seed
# the poses and backgrounds of Athalye (2018); light, colours and noise in half of his ranges or less, so that
# a pattern is never lost in saturated pixels
VIEWS = ViewDistribution(
    lighten=0.05, least_light=0.7, most_light=1.3, tint=0.05, least_channel=0.9, most_channel=1.1, noise=0.04
)

_TRAIN, _VAL, _TEST = range(4, 7)  # purposes of random numbers
_CHUNK = 64  # views drawn at once by a thread


@dataclass
class ObjectsSettings(DataSettings):
    image_size: int = setting(48, "pixels a side that objects are drawn with", least=16, most=512)
    train_size: int = setting(6144, "views to train on", least=1)
    val_size: int = setting(2048, "views to validate on", least=1)
    test_size: int = setting(2048, "views of the test split, which are drawn when they are needed", least=1)
    augment: Augment = augment_setting()


class Objects(ImageDataModule):
    """Sphere, cube, mug, bottle, turtle and car in eight patterns, from any side, nothing downloaded.

    The pattern is the class; shape, colours, pose, light and background are drawn. What an attack on the
    texture of an object is tried on.
    """

    Settings = ObjectsSettings
    settings: ObjectsSettings

    def load(self) -> tuple[ObjectImages, ObjectImages]:
        settings, size = self.settings, self.settings.image_size
        self.classes, self.image_size, self.mean, self.std = list(CLASSES), size, MEAN, STD
        train = ObjectImages(make_key(self.seed, _TRAIN), settings.train_size, size)
        val = ObjectImages(make_key(self.seed, _VAL), settings.val_size, size)
        if should_cache(settings.cache, (train, val)):
            train.draw_all()
            val.draw_all()
        self.has_test = True
        return train, val

    def load_test(self) -> ObjectImages:
        return ObjectImages(make_key(self.seed, _TEST), self.settings.test_size, self.image_size)


class ObjectImages(ImageDataset):
    """A split of `size` views, drawn when they are needed, or once, into memory (`draw_all`).

    A view is a function of `seed` and its index: it has the same bits in any batch.

    Args:
        image_size: pixels a side; the views are the same at any.
    """

    in_memory = (
        True  # to a loader, even where they are not: a batch is drawn faster than its views one by one
    )
    channels = 3

    def __init__(self, seed: int, size: int, image_size: int = 48):
        self.seed, self.image_size = seed, image_size
        self.drawn = torch.arange(size) % len(CLASSES)  # the pattern of each, whatever its label says
        self.labels = self.drawn
        self.shapes = torch.arange(size) // len(CLASSES) % len(shapes.SHAPES)
        self.images: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.batch(torch.tensor([range(len(self))[index]]))
        return images[0], int(labels[0])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images, uint8 [n, 3, H, W], and labels, int64 [n], at `indices`."""
        images = self.draw(indices) if self.images is None else self.images[indices]
        return images, self.labels[indices]

    def draw(self, indices: Tensor) -> Tensor:
        """The images, uint8 [n, 3, H, W], at `indices`."""
        images = torch.empty(len(indices), 3, self.image_size, self.image_size, dtype=torch.uint8)
        chunks = [
            (name, rows)
            for number, name in enumerate(shapes.SHAPES)
            for rows in (self.shapes[indices] == number).nonzero()[:, 0].split(_CHUNK)
            if len(rows)
        ]

        def draw(chunk: tuple[str, Tensor]) -> None:
            name, rows = chunk
            images[rows] = self._draw_shape(name, indices[rows])

        threads = torch.get_num_threads()
        if len(chunks) == 1 or threads == 1:
            for chunk in chunks:
                draw(chunk)
            return images
        torch.set_num_threads(1)  # inherited by the threads started below
        try:
            with ThreadPoolExecutor(min(threads, 8)) as pool:
                list(pool.map(draw, chunks))
        finally:
            torch.set_num_threads(threads)
        return images

    def views(self, indices: Tensor) -> Views:
        """From where, and in which light, each is seen."""
        return draw_views(fold_in(torch.tensor(self.seed), indices, 0), VIEWS)

    def textures(self, indices: Tensor) -> Tensor:
        """The texture of each, [n, 3, T, T] in [0, 1]."""
        return class_textures(fold_in(torch.tensor(self.seed), indices, 1), self.drawn[indices])

    def draw_all(self) -> None:
        """Draws all images and keeps them in memory."""
        self.images = self.draw(torch.arange(len(self)))

    @property
    def storage(self) -> str:
        if self.images is None:
            return "drawn when needed"
        return f"{self.images.nbytes / 2**20:,.0f} MiB in memory"

    def _draw_shape(self, name: str, indices: Tensor) -> Tensor:
        pictures = render(shapes.make(name), self.textures(indices), self.views(indices), self.image_size)
        return pictures.mul(255).round().to(torch.uint8)
