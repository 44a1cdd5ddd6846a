"""What the sources of labelled images have in common, whatever holds the images: splits, sizes, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

from torch import Tensor

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.base import ImageDataModule
from vitrine.datamodules.caching import prepare_splits, prepare_test
from vitrine.datamodules.file_settings import FileSettings
from vitrine.datamodules.files import ImageFiles, square_size
from vitrine.datamodules.splitting import SplitSettings, divide


class Labelled(NamedTuple):
    """The images of a split with their labels."""

    files: Sequence[Any]  # of each image the file, or the number that its store knows it by
    labels: Tensor  # int64, [N]

    def select(self, indices: Tensor) -> Labelled:
        return Labelled([self.files[i] for i in indices.tolist()], self.labels[indices])


class ImageStore(Protocol):
    """Images by number, in something that is no folder of files."""

    description: str  # where they are, for logs

    def path(self, number: int) -> str:
        """Where an image is in the store, for people."""

    def read(self, number: int) -> tuple[BinaryIO, str]:
        """The bytes of an image file, and what messages call it.

        Raises:
            UnreadableImage: they are not there any more.
        """


class StoredImages(ImageFiles):
    """A split whose images are in a store; otherwise like `ImageFiles`.

    Args:
        files: the numbers of the images in the store.
        store: can be pickled, and forked.
    """

    def __init__(
        self, files: Sequence[int], labels: Tensor, image_size: int, *, store: ImageStore, **options: Any
    ):
        super().__init__(files, labels, image_size, **options)
        self.store = store

    def encoded(self, index: int) -> tuple[BinaryIO, str]:
        return self.store.read(self.files[index])

    def path(self, index: int) -> str | None:
        return self.store.path(self.files[index])

    @property
    def storage(self) -> str:
        return self.store.description


@dataclass
class ImageSourceSettings(FileSettings, SplitSettings):
    """With `image_size=0` all images have to be squares of one size; by default there is no augmentation."""

    classes: list[str] | None = setting(
        None, "class names in the order of their labels; null: the names that occur, sorted"
    )


class ImageSource(ImageDataModule):
    """Labelled images; a subclass defines `find`, and `images` where they are no files."""

    Settings = ImageSourceSettings
    settings: ImageSourceSettings
    key = "data.root"  # the setting that says where the images are

    def find(self) -> dict[str, Labelled]:
        """The images of each split that there is, "train", "val" and "test"; sets `classes`."""
        raise NotImplementedError(f"{type(self).__name__} does not define find")

    def images(self, found: Labelled, image_size: int, **options: Any) -> ImageFiles:
        """The split of these images; `options` as for ImageFiles."""
        return ImageFiles(found.files, found.labels, image_size, **options)

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        settings, splits = self.settings, self._divided()
        train, val = splits["train"], splits["val"]
        self.has_test, self._held_out = "test" in splits, splits.get("test")
        self.channels = settings.channels
        self.image_size = settings.image_size or square_size(self._files(train, 0), self._files(val, 0))
        prepared, self.mean, self.std = prepare_splits(settings, *map(self._files, (train, val)))
        return prepared

    def load_test(self) -> ImageDataset:
        return prepare_test(self.settings, self._files(self._held_out))

    def _files(self, split: Labelled, image_size: int | None = None) -> ImageFiles:
        size = self.image_size if image_size is None else image_size
        return self.images(split, size, **self.settings.file_options())

    def _divided(self) -> dict[str, Labelled]:
        found = self.find()
        if "train" not in found:
            came = " and ".join(found)
            raise SettingError(self.key, f"has images for {came}, but none to train on")
        for name, kind in (("val", "validation"), ("test", "test")):
            if name in found:
                check_labels(found["train"].labels, found[name].labels, self.classes, kind)
        labels = {name: split.labels for name, split in found.items()}
        place = str(getattr(self.settings, self.key.removeprefix("data.")))
        divided = divide(labels, self.classes, self.settings, place)
        return {name: found[of].select(indices) for name, (of, indices) in divided.items()}


def check_labels(train: Tensor, other: Tensor, classes: Sequence[str], kind: str = "validation") -> None:
    """Raise SettingError for a class that occurs in a split, of this `kind`, and not in training."""
    if only := set(other.unique().tolist()) - set(train.unique().tolist()):
        name = classes[min(only)]
        raise SettingError("data.name", f"class {name!r} has images in {kind}, but none in training")
