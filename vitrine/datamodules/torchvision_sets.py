"""Standard data sets, through torchvision."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.error import URLError

import torch
from filelock import FileLock
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import functional as F

from vitrine.core.home import absolute_path
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.augment import Augment, augment_setting
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.caching import image_files, imagenet_statistics, prepare_splits, prepare_test
from vitrine.datamodules.file_settings import FileSettings
from vitrine.datamodules.files import ImageFiles
from vitrine.datamodules.memory import InMemory
from vitrine.datamodules.splitting import hold_out

_Split = TypeVar("_Split", InMemory, ImageFiles)


@dataclass
class TorchvisionSettings(DataSettings):
    root: str = setting("data", "folder of the data set, where it is downloaded to")
    download: bool = setting(True, "download the data set if it is missing")
    val_fraction: float = setting(
        0.0,
        "fraction of the training images to validate on, while the data set's own test split is held out; "
        "0: validate on that, as published numbers do, and hold out nothing",
        least=0,
        most=0.9,
    )
    test_fraction: float = setting(
        0.0, "with val_fraction=0: fraction of the training images held out as a test set", least=0, most=0.9
    )
    split_seed: int = setting(0, "seed of the images held out; not the run's, so that runs can be compared")


def augmented(**augment: Any) -> type[TorchvisionSettings]:
    """TorchvisionSettings with this augmentation by default."""
    field = ("augment", Augment, augment_setting(**augment))
    return dataclasses.make_dataclass("Settings", [field], bases=(TorchvisionSettings,))


class TorchvisionDataModule(ImageDataModule):
    """One of torchvision's data sets.

    A subclass sets its name there (`source`), the arguments of its splits (`splits`, training first), and the
    mean and standard deviation of its pixels.

    Its second split, which the field calls the test split, is what published numbers are of, and so what is
    validated on; with `val_fraction` it is a test split here, too.
    """

    Settings = TorchvisionSettings
    settings: TorchvisionSettings
    source: ClassVar[str]
    splits: ClassVar[tuple[dict[str, Any], dict[str, Any]]] = ({"train": True}, {"train": False})
    official: ClassVar[str] = "test"  # the name of its second split
    downloadable: ClassVar[bool] = True

    def prepare_data(self) -> None:
        """Downloads what is missing; Lightning calls it on one process a node, before `setup`."""
        if self.train is None:
            self._open_splits()

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        sources = self._open_splits()
        self.classes = class_names(sources[0])
        train, *official = map(self._in_memory, sources)
        train, val, self._held_out = self._divide(train, InMemory.select, *official)
        return train, val

    def load_test(self) -> ImageDataset:
        return self._in_memory(self._open(**self.splits[1])) if self._held_out is None else self._held_out

    def _open_splits(self) -> list[Any]:
        """The training split, and the official one if it is validated on: else it is not opened before
        `load_test`."""
        splits = self.splits[:1] if self.settings.val_fraction else self.splits
        return [self._open(**split) for split in splits]

    def _divide(self, train: _Split, select: Callable[[_Split, Tensor], _Split], *official: _Split) -> Any:
        """The training, validation and test split; the last is None if it is the official one, or none."""
        settings, name = self.settings, f"the official {self.official} split"
        self.has_test = bool(settings.val_fraction or settings.test_fraction)
        if settings.val_fraction and settings.test_fraction:
            problem = f"is {settings.test_fraction:g} beside data.val_fraction, with which {name}"
            raise SettingError("data.test_fraction", f"{problem} is the test split, expected 0")
        self.val_origin = "" if settings.val_fraction else name
        if not self.has_test:
            return train, *official, None
        fractions = settings.val_fraction, settings.test_fraction
        parts = hold_out(train.labels, *fractions, settings.split_seed, self.classes)
        rest, val, test = (select(train, part) if len(part) else None for part in parts)
        return (rest, val, None) if settings.val_fraction else (rest, *official, test)

    def _open(self, **split: Any) -> Any:
        """torchvision's data set of a split, downloaded and checked by torchvision."""
        root, name = str(absolute_path(self.settings.root)), self.source
        self.settings.root = root  # a run is found again from everywhere
        read, lock = functools.partial(getattr(datasets, name), root, **split), Path(root, ".lock")
        try:
            if not (self.downloadable and self.settings.download):
                return read()
            if not lock.exists() or not os.access(root, os.W_OK):  # else it may be half there
                with contextlib.suppress(RuntimeError, OSError):
                    return read()
            with FileLock(lock):
                return read(download=True)
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
    official = "validation"
    settings: TorchvisionFileSettings

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        settings, sources = self.settings, self._open_splits()
        self.classes, self.image_size = class_names(sources[0]), settings.image_size
        found = map(self._files, sources)
        train, val, self._held_out = self._divide(next(found), ImageFiles.select, *found)
        splits, _, _ = prepare_splits(settings, train, val)
        self.channels = settings.channels
        self.mean, self.std = imagenet_statistics(self.channels)
        return splits

    def load_test(self) -> ImageDataset:
        held_out = self._held_out
        return prepare_test(
            self.settings, self._files(self._open(**self.splits[1])) if held_out is None else held_out
        )

    def _files(self, source: Any) -> ImageFiles:
        samples = source.samples if hasattr(source, "samples") else source._samples
        options = self.settings.file_options()
        if self.settings.fit in ("auto", "crop") and not self.settings.resize:
            options["resize"] = round(self.image_size * 8 / 7)  # 256 for 224
        return image_files([(Path(file), label) for file, label in samples], self.image_size, **options)


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
