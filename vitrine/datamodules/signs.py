"""A synthetic data set: traffic signs drawn into cluttered scenes, with masks of the signs."""

from __future__ import annotations

from dataclasses import dataclass

from vitrine.core.settings import setting
from vitrine.datamodules.augment import Augment, augment_setting
from vitrine.datamodules.base import DataSettings
from vitrine.datamodules.drawing.faces import CLASSES
from vitrine.datamodules.drawn import DrawnData
from vitrine.datamodules.sign_images import SignImages, make_split

MEAN, STD = (0.498, 0.434, 0.409), (0.250, 0.229, 0.252)  # of the pixels, whatever the seed


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
    contrast: float = setting(
        1.0,
        "of the signs' colours in training images (never validation or test): 1 as they are, 0 gray",
        least=0,
        most=1,
    )
    augment: Augment = augment_setting(crop=3)


class Signs(DrawnData):
    """Eight traffic signs in cluttered scenes, drawn in seconds, nothing downloaded.

    Position, size, tilt, light, blur, noise and occlusion vary. Blank plates in the signs' colours and
    outlines make sure that neither colour nor outline suffices. `SignImages.masks` are ground truth for
    explanations.
    """

    Settings = SignsSettings
    settings: SignsSettings

    def load(self) -> tuple[SignImages, SignImages]:
        self.classes, self.mean, self.std = list(CLASSES), MEAN, STD
        return super().load()

    def make_split(self, name: str) -> SignImages:
        return make_split(self.settings, self.seed, name)
