"""A synthetic data set: six objects from all sides, of which the texture tells the class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.core.random_numbers import fold_in, make_key
from vitrine.core.settings import setting
from vitrine.datamodules.augment import Augment, augment_setting
from vitrine.datamodules.base import DataSettings
from vitrine.datamodules.drawn import DrawnData, DrawnImages, map_in_threads
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


class Objects(DrawnData):
    """Sphere, cube, mug, bottle, turtle and car in eight patterns, from any side, nothing downloaded.

    The pattern is the class; shape, colours, pose, light and background are drawn. What an attack on the
    texture of an object is tried on.
    """

    Settings = ObjectsSettings
    settings: ObjectsSettings

    def load(self) -> tuple[ObjectImages, ObjectImages]:
        self.classes, self.mean, self.std = list(CLASSES), MEAN, STD
        return super().load()

    def make_split(self, name: str) -> ObjectImages:
        settings = self.settings
        purpose, size = {
            "train": (_TRAIN, settings.train_size),
            "val": (_VAL, settings.val_size),
            "test": (_TEST, settings.test_size),
        }[name]
        return ObjectImages(make_key(self.seed, purpose), size, settings.image_size)


class ObjectImages(DrawnImages):
    """A split of `size` views."""

    def __init__(self, seed: int, size: int, image_size: int = 48):
        super().__init__(seed, torch.arange(size) % len(CLASSES), image_size)
        self.shapes = torch.arange(size) // len(CLASSES) % len(shapes.SHAPES)

    def draw_images(self, indices: Tensor) -> Tensor:
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

        map_in_threads(draw, chunks)
        return images

    def views(self, indices: Tensor) -> Views:
        """From where, and in which light, each is seen."""
        return draw_views(fold_in(torch.tensor(self.seed), indices, 0), VIEWS)

    def textures(self, indices: Tensor) -> Tensor:
        """The texture of each, [n, 3, T, T] in [0, 1]."""
        return class_textures(fold_in(torch.tensor(self.seed), indices, 1), self.drawn[indices])

    def _draw_shape(self, name: str, indices: Tensor) -> Tensor:
        pictures = render(shapes.make(name), self.textures(indices), self.views(indices), self.image_size)
        return pictures.mul(255).round().to(torch.uint8)
