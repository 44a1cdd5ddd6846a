"""A synthetic data set: six objects from all sides, of which the texture tells the class."""

from __future__ import annotations

from dataclasses import dataclass

from vitrine.core.settings import setting
from vitrine.datamodules.augment import Augment, augment_setting
from vitrine.datamodules.base import DataSettings
from vitrine.datamodules.drawn import DrawnData
from vitrine.datamodules.object_images import ObjectImages, make_split
from vitrine.objects.textures import CLASSES

MEAN, STD = (0.51, 0.49, 0.48), (0.26, 0.26, 0.27)  # of the pixels, about, whatever the seed


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
        return make_split(self.settings, self.seed, name)
