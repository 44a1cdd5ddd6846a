"""Images of your own, one folder a class."""

from dataclasses import dataclass

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import setting
from vitrine.datamodules.base import ImageDataModule
from vitrine.datamodules.caching import image_files, load_splits
from vitrine.datamodules.file_settings import FileSettings
from vitrine.datamodules.files import square_size
from vitrine.datamodules.image_folders import list_images


@dataclass
class FolderSettings(FileSettings):
    """With `image_size=0` all images have to be squares of one size; by default there is no augmentation."""

    root: str | None = setting(None, "ROOT/train/CLASS and ROOT/val or test/CLASS, or ROOT/CLASS alone")
    val_fraction: float = setting(
        0.1, "fraction held out for validation where there is no val/ or test/; 1: all", above=0, most=1
    )
    split_seed: int = setting(0, "seed of the images held out; not the run's, so that runs can be compared")


class Folder(ImageDataModule):
    """Images in one folder per class, in the order of torchvision's ImageFolder."""

    Settings = FolderSettings
    settings: FolderSettings

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        settings = self.settings
        self.classes, train, val = list_images(settings.root, settings.val_fraction, settings.split_seed)
        self.channels = settings.channels
        options = settings.file_options()
        self.image_size = settings.image_size or square_size(image_files(train + val, 0, **options))
        splits, self.mean, self.std = load_splits(settings, train, val, image_size=self.image_size, **options)
        return splits
