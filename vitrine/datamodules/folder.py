"""Images of your own, one folder a class."""

from dataclasses import dataclass

import torch

from vitrine.core.home import absolute_path
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import setting
from vitrine.datamodules.base import ImageDataModule
from vitrine.datamodules.caching import image_files, prepare_splits, prepare_test
from vitrine.datamodules.file_settings import FileSettings
from vitrine.datamodules.files import ImageFiles, square_size
from vitrine.datamodules.image_folders import Samples, list_images
from vitrine.datamodules.mask_files import MaskFiles, MaskSettings, open_masks
from vitrine.datamodules.splitting import SplitSettings, divide


@dataclass
class FolderSettings(MaskSettings, FileSettings, SplitSettings):
    """With `image_size=0` all images have to be squares of one size; by default there is no augmentation."""

    root: str | None = setting(None, "ROOT/train/CLASS with ROOT/val/ and ROOT/test/, or ROOT/CLASS alone")


class Folder(ImageDataModule):
    """Images in one folder per class, in the order of torchvision's ImageFolder."""

    Settings = FolderSettings
    settings: FolderSettings
    _masks: MaskFiles | None = None

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        settings = self.settings
        if settings.root:
            settings.root = str(absolute_path(settings.root))  # found again from everywhere
        self.classes, splits = divide_folder(settings.root, settings)
        self.has_test, self._held_out = "test" in splits, splits.get("test", [])
        train, val = splits["train"], splits["val"]
        self.channels = settings.channels
        self.image_size = settings.image_size or square_size(self._files(train + val, 0))
        files = [file for split in splits.values() for file, _ in split]
        self._masks = open_masks(settings, settings.root, files)
        prepared, self.mean, self.std = prepare_splits(settings, *map(self._files, (train, val)))
        return prepared

    def load_test(self) -> ImageFiles:
        return prepare_test(self.settings, self._files(self._held_out))

    def _files(self, samples: Samples, image_size: int | None = None) -> ImageFiles:
        size = self.image_size if image_size is None else image_size
        files = image_files(samples, size, **self.settings.file_options())
        files.mask_files, files.class_names = self._masks, self.classes
        return files


def divide_folder(root: str | None, settings: SplitSettings) -> tuple[list[str], dict[str, Samples]]:
    """Class names, and the images of "train", "val" and, where there is one, "test"; see `list_images` and
    `divide`, whose errors are raised."""
    classes, listed = list_images(root)
    labels = {name: torch.tensor([label for _, label in samples]) for name, samples in listed.items()}
    found = divide(labels, classes, settings, str(root))
    return classes, {name: [listed[of][i] for i in indices.tolist()] for name, (of, indices) in found.items()}
