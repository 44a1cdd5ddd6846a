"""Standard data sets, through torchvision."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import torch
from filelock import FileLock
from torchvision import datasets
from torchvision.transforms.v2 import functional as F

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.augment import Augment, augment_setting
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.caching import imagenet_statistics, load_splits
from vitrine.datamodules.file_settings import FileSettings
from vitrine.datamodules.memory import InMemory


@dataclass
class TorchvisionSettings(DataSettings):
    root: str = setting("data", "folder of the data set, where it is downloaded to")
    download: bool = setting(True, "download the data set if it is missing")


def augmented(**augment: Any) -> type[TorchvisionSettings]:
    """TorchvisionSettings with this augmentation by default."""
    field = ("augment", Augment, augment_setting(**augment))
    return dataclasses.make_dataclass("Settings", [field], bases=(TorchvisionSettings,))


class TorchvisionDataModule(ImageDataModule):
    """One of torchvision's data sets.

    A subclass sets its name there (`source`), the arguments of its splits (`splits`, training first), and the
    mean and standard deviation of its pixels.
    """

    Settings = TorchvisionSettings
    settings: TorchvisionSettings
    source: ClassVar[str]
    splits: ClassVar[tuple[dict[str, Any], dict[str, Any]]] = ({"train": True}, {"train": False})
    downloadable: ClassVar[bool] = True

    def prepare_data(self) -> None:
        """Downloads what is missing; Lightning calls it on one process a node, before `setup`."""
        if self.train is None:
            self._open_splits()

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        train, val = self._open_splits()
        self.classes = class_names(train)
        return self._in_memory(train), self._in_memory(val)

    def _open_splits(self) -> list[Any]:
        return [self._open(**split) for split in self.splits]

    def _open(self, **split: Any) -> Any:
        """torchvision's data set of a split, downloaded and checked by torchvision."""
        root, name = str(Path(self.settings.root).expanduser()), self.source
        try:
            if not (self.downloadable and self.settings.download):
                return getattr(datasets, name)(root, **split)
            with FileLock(Path(root, ".lock")):
                return getattr(datasets, name)(root, download=True, **split)
        except URLError as error:
            problem = f"{name} is not in {root} and cannot be downloaded ({error})"
            raise SettingError("data.root", problem) from error
        except (RuntimeError, OSError) as error:
            raise SettingError("data.root", f"{name} cannot be read from {root} ({error})") from error

    def _in_memory(self, source: Any) -> InMemory:
        images = torch.as_tensor(source.data)
        if images.ndim == 3:  # [N, H, W]
            images = images[:, None]
        elif images.shape[-1] == 3:  # [N, H, W, C]
            images = images.permute(0, 3, 1, 2)
        self.channels, self.image_size = images.shape[1], self.settings.image_size or images.shape[-1]
        labels = source.targets if hasattr(source, "targets") else source.labels
        size = [self.image_size, self.image_size]
        parts = [F.resize(part, size, antialias=True) for part in images.contiguous().split(1000)]
        return InMemory(torch.cat(parts), torch.as_tensor(labels))


def class_names(source: Any) -> list[str]:
    """The names of a torchvision data set's classes, the first where they have several; digits for SVHN."""
    names = getattr(source, "classes", [str(digit) for digit in range(10)])
    return [name if isinstance(name, str) else name[0] for name in names]


class MNIST(TorchvisionDataModule):
    """Handwritten digits, 28 x 28 (LeCun 1998)."""

    Settings = augmented(crop=2)  # a mirrored digit is no digit
    source = "MNIST"
    mean, std = (0.1307,), (0.3081,)


class FashionMNIST(TorchvisionDataModule):
    """Articles of clothing, 28 x 28 (Xiao 2017)."""

    Settings = augmented(crop=2, flip=True)
    source = "FashionMNIST"
    mean, std = (0.2860,), (0.3530,)


class CIFAR10(TorchvisionDataModule):
    """Photographs in ten classes, 32 x 32 (Krizhevsky 2009)."""

    Settings = augmented(crop=4, flip=True)
    source = "CIFAR10"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class CIFAR100(TorchvisionDataModule):
    """Photographs in a hundred classes, 32 x 32 (Krizhevsky 2009)."""

    Settings = CIFAR10.Settings
    source = "CIFAR100"
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


class SVHN(TorchvisionDataModule):
    """House numbers, 32 x 32 (Netzer 2011)."""

    Settings = augmented(crop=4)
    source = "SVHN"
    splits = ({"split": "train"}, {"split": "test"})
    mean, std = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)


class STL10(TorchvisionDataModule):
    """Photographs in ten classes, 96 x 96, only 5,000 to train on (Coates 2011)."""

    Settings = augmented(crop=12, flip=True)
    source = "STL10"
    splits = ({"split": "train"}, {"split": "test"})
    mean, std = (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)


@dataclass
class TorchvisionFileSettings(FileSettings, TorchvisionSettings):
    resize: int = setting(0, "shorter side before the center crop, pixels; 0: 8/7 image_size", least=0)


class TorchvisionFiles(TorchvisionDataModule):
    """One of torchvision's data sets whose images are files."""

    splits = ({"split": "train"}, {"split": "val"})
    settings: TorchvisionFileSettings

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        settings, sources = self.settings, self._open_splits()
        self.classes, self.image_size = class_names(sources[0]), settings.image_size
        listed = [source.samples if hasattr(source, "samples") else source._samples for source in sources]
        train, val = ([(Path(file), label) for file, label in samples] for samples in listed)
        options = settings.file_options()
        if settings.fit == "crop" and not settings.resize:
            options["resize"] = round(self.image_size * 8 / 7)  # 256 for 224
        splits, _, _ = load_splits(settings, train, val, image_size=self.image_size, **options)
        self.channels = settings.channels
        self.mean, self.std = imagenet_statistics(self.channels)
        return splits


class Imagenette(TorchvisionFiles):
    """Ten easy classes of ImageNet, 13,394 photographs (Howard 2019)."""

    source = "Imagenette"

    @dataclass
    class Settings(TorchvisionFileSettings):
        image_size: int = setting(128, "pixels a side, images are resized to it", least=1)
        augment: Augment = augment_setting(random_resized_crop=0.35, flip=True)


class ImageNet(TorchvisionFiles):
    """1,000 classes, 1.28 million photographs (Russakovsky 2015); put its archives into `root` yourself."""

    source, downloadable = "ImageNet", False

    @dataclass
    class Settings(TorchvisionFileSettings):
        image_size: int = setting(224, "pixels a side, images are resized to it", least=1)
        augment: Augment = augment_setting(random_resized_crop=0.08, flip=True)
