"""Data sets whose splits are drawn rather than read."""

from __future__ import annotations

from vitrine.datamodules.base import ImageDataModule
from vitrine.datamodules.caching import should_cache
from vitrine.datamodules.drawing_ahead import DrawingAhead
from vitrine.datamodules.drawn_images import DrawnImages


class DrawnData(ImageDataModule):
    """A source whose splits are drawn; a subclass defines `make_split` and what is known of the images.

    Attributes:
        ahead: draws the training images already.
    """

    ahead: DrawingAhead | None = None

    def make_split(self, name: str) -> DrawnImages:
        """The split "train", "val" or "test", of which nothing is drawn yet."""
        raise NotImplementedError(f"{type(self).__name__} does not define make_split")

    def load(self) -> tuple[DrawnImages, DrawnImages]:
        train, val = self.make_split("train"), self.make_split("val")
        train.keep = val.keep = should_cache(self.settings.cache, (train, val))
        train.ahead = self.ahead
        self.image_size, self.has_test = self.settings.image_size, True
        return train, val

    def load_test(self) -> DrawnImages:
        return self.make_split("test")
