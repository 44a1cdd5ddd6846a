"""Images of your own, one folder a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.caching import load_splits
from vitrine.datamodules.files import ImageFiles

Samples = list[tuple[Path, int]]
_LAYOUT = "expected ROOT/train/CLASS/*.jpg with ROOT/val or ROOT/test, or ROOT/CLASS/*.jpg"


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
    """Images in a folder a class, as torchvision's ImageFolder reads them."""

    Settings = FolderSettings
    settings: FolderSettings

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        settings = self.settings
        self.classes, train, val = list_images(settings.root, settings.val_fraction, settings.split_seed)
        self.channels = settings.channels
        self.image_size = settings.image_size or _square_size(train + val)
        if 0 < settings.resize < self.image_size:
            raise SettingError(
                "data.resize", f"is {settings.resize}, expected at least data.image_size, {self.image_size}"
            )
        splits, self.mean, self.std = load_splits(
            [self._files(train), self._files(val)], settings.cache, settings.skip_corrupt
        )
        return splits

    def _files(self, samples: Samples) -> ImageFiles:
        return ImageFiles(
            [file for file, _ in samples],
            torch.tensor([label for _, label in samples], dtype=torch.int64),
            self.image_size,
            resize=self.settings.resize,
            channels=self.channels,
            min_scale=self.settings.augment.random_resized_crop,
        )


def list_images(root: str | None, val_fraction: float, split_seed: int) -> tuple[list[str], Samples, Samples]:
    """Class names, training and validation images of a folder, each image a file and its label.

    Args:
        root: ROOT/train/CLASS and ROOT/val or test/CLASS, or ROOT/CLASS alone.
        val_fraction: fraction held out where there is no val/ or test/, at least one image.
        split_seed: of the images held out.

    Raises:
        SettingError: `data.root` is missing, empty, or has another layout.
    """
    path = _check_root(root)
    train_dir = path / "train"
    if train_dir.is_dir():
        val_dir = next((path / name for name in ("val", "test") if (path / name).is_dir()), None)
        if val_dir is None:
            raise SettingError("data.root", f"{path} has train/ but neither val/ nor test/; {_LAYOUT}")
        classes = _class_folders(train_dir)
        return classes, _list_samples(train_dir, classes), _list_samples(val_dir, classes)
    classes = _class_folders(path)
    samples = _list_samples(path, classes)
    shuffled = permutation(len(samples), split_seed)
    held_out = max(1, round(len(samples) * val_fraction))
    val = [samples[i] for i in shuffled[:held_out].sort().values]
    return classes, [samples[i] for i in shuffled[held_out:].sort().values], val


def _check_root(root: str | None) -> Path:
    if not root:
        raise SettingError("data.root", f"is not set; {_LAYOUT}")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise SettingError(
            "data.root", f"{path} is {'not a folder' if path.exists() else 'missing'}; {_LAYOUT}"
        )
    return path


def _class_folders(folder: Path) -> list[str]:
    try:
        return find_classes(folder)[0]
    except FileNotFoundError:
        raise SettingError("data.root", f"{folder} holds no folder a class; {_LAYOUT}") from None


def _list_samples(folder: Path, classes: list[str]) -> Samples:
    """The images in the class folders of a folder, with their labels, in order of class and name."""
    unknown = set(find_classes(folder)[0] if any(folder.iterdir()) else []) - set(classes)
    if unknown:
        raise SettingError("data.root", f"{folder} has class {min(unknown)!r}, which train/ has not")
    labels = {name: label for label, name in enumerate(classes)}
    found = make_dataset(str(folder), labels, IMG_EXTENSIONS, allow_empty=True)
    if not found:
        raise SettingError("data.root", f"{folder} holds no images ({', '.join(IMG_EXTENSIONS)}); {_LAYOUT}")
    return [(Path(file), label) for file, label in found]


def _square_size(samples: Samples) -> int:
    """The side of the images, if up to 100 of them, evenly spaced, are squares of one size."""
    sizes = set()
    for file, _ in samples[:: -(-len(samples) // 100)]:
        try:
            with Image.open(file) as image:
                sizes.add(image.size)
        except (OSError, UnidentifiedImageError):
            continue  # reported, or skipped, when it is read
    if len(sizes) == 1 and len(set(*sizes)) == 1:
        return sizes.pop()[0]
    shown = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
    raise SettingError(
        "data.image_size", f"is 0, but the images are {shown or 'unreadable'}; expected pixels a side"
    )
