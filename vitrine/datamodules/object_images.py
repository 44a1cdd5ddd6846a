"""Six objects from all sides, of which the texture tells the class: the splits of `objects`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vitrine.core.random_numbers import fold_in, make_key
from vitrine.datamodules.drawn_images import DrawnImages, map_in_threads
from vitrine.objects import shapes
from vitrine.objects.render import render
from vitrine.objects.textures import CLASSES, class_textures
from vitrine.objects.views import ViewDistribution, Views, draw_views

if TYPE_CHECKING:
    from vitrine.datamodules.objects_source import ObjectsSettings

# the poses and backgrounds of Athalye (2018); light, colours and noise in half of his ranges or less, so that
# a pattern is never lost in saturated pixels
VIEWS = ViewDistribution(
    lighten=0.05, least_light=0.7, most_light=1.3, tint=0.05, least_channel=0.9, most_channel=1.1, noise=0.04
)

_TRAIN, _VAL, _TEST = range(4, 7)  # purposes of random numbers
_CHUNK = 64  # views drawn at once by a thread


def make_split(settings: ObjectsSettings, seed: int, name: str) -> ObjectImages:
    """The split "train", "val" or "test"."""
    purpose, size = {
        "train": (_TRAIN, settings.train_size),
        "val": (_VAL, settings.val_size),
        "test": (_TEST, settings.test_size),
    }[name]
    return ObjectImages(make_key(seed, purpose), size, settings.image_size)


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
