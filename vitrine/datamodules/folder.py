"""Images of your own, one folder a class."""

from dataclasses import dataclass

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import setting
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.caching import image_files, load_splits
from vitrine.datamodules.files import square_size
from vitrine.datamodules.image_folders import list_images


@dataclass
class FolderSettings(DataSettings):
    """With `image_size=0` all images have to be squares of one size; by default there is no augmentation."""

    root: str | None = setting(None, "ROOT/train/CLASS and ROOT/val or test/CLASS, or ROOT/CLASS alone")
    val_fraction: float = setting(
        0.1, "fraction held out for validation where there is no val/ or test/; 1: all", above=0, most=1
    )
    split_seed: int = setting(0, "seed of the images held out; not the run's, so that runs can be compared")
    resize: int = setting(0, "shorter side before the center crop, pixels; 0: image_size", least=0)
    channels: int = setting(3, "3 for colour, 1 for grayscale", choices=(1, 3))
    skip_corrupt: bool = setting(
        False, "leave out images that cannot be read (all are tried first); else stop at the first"
    )


class Folder(ImageDataModule):
    """Images in one folder per class, in the order of torchvision's ImageFolder."""

    Settings = FolderSettings
    settings: FolderSettings

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        settings = self.settings
        self.classes, train, val = list_images(settings.root, settings.val_fraction, settings.split_seed)
        self.channels = settings.channels
        options = {"resize": settings.resize, "channels": settings.channels}
        self.image_size = settings.image_size or square_size(image_files(train + val, 0))
        splits, self.mean, self.std = load_splits(settings, train, val, image_size=self.image_size, **options)
        return splits
