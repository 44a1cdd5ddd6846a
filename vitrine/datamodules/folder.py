"""Your own images: a folder a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.base import DataSettings, ImageData
from vitrine.datamodules.files import Files
from vitrine.datamodules.holding import held

Samples = list[tuple[Path, int]]
_LAYOUT = "expected ROOT/train/CLASS/*.jpg with ROOT/val or ROOT/test, or ROOT/CLASS/*.jpg"


@dataclass
class FolderSettings(DataSettings):
    """`image_size=0` asks that all images be squares of one size; augmentation is off unless asked for."""

    root: str | None = setting(None, "ROOT/train/CLASS and ROOT/val or test/CLASS, or ROOT/CLASS alone")
    val_fraction: float = setting(
        0.1, "share held out for validation where there is no val/ or test/; 1: all", above=0, most=1
    )
    split_seed: int = setting(0, "which images are held out; not the run's seed, so that runs compare")
    resize: int = setting(0, "shorter side before the centre is cut out, pixels; 0: image_size", least=0)
    channels: int = setting(3, "3 for colour, 1 for grayscale", choices=(1, 3))
    skip_corrupt: bool = setting(False, "leave unreadable images out (all are tried first), not stop at them")


class Folder(ImageData):
    """Images in a folder a class, as torchvision's ImageFolder reads them."""

    Settings = FolderSettings
    settings: FolderSettings

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        how = self.settings
        self.classes, train, val = listed(how.root, how.val_fraction, how.split_seed)
        self.channels = how.channels
        self.image_size = how.image_size or _common_size(train + val)
        if 0 < how.resize < self.image_size:
            raise SettingError(
                "data.resize", f"is {how.resize}, expected at least data.image_size, {self.image_size}"
            )
        splits, self.mean, self.std = held(
            [self._files(train), self._files(val)], how.cache, how.skip_corrupt
        )
        return splits

    def _files(self, samples: Samples) -> Files:
        return Files(
            [file for file, _ in samples],
            torch.tensor([label for _, label in samples], dtype=torch.int64),
            self.image_size,
            resize=self.settings.resize,
            channels=self.channels,
            zoom=self.settings.augment.zoom,
        )


def listed(root: str | None, val_fraction: float, split_seed: int) -> tuple[list[str], Samples, Samples]:
    """Class names, training and validation images of a folder, each image a file and its label.

    Args:
        root: ROOT/train/CLASS and ROOT/val or test/CLASS, or ROOT/CLASS alone.
        val_fraction: share held out where there is no val/ or test/, at least one image.
        split_seed: which those are.

    Raises:
        SettingError: of `data.root`: it is missing, empty, or laid out otherwise.
    """
    path = _existing(root)
    train_dir = path / "train"
    if train_dir.is_dir():
        val_dir = next((path / name for name in ("val", "test") if (path / name).is_dir()), None)
        if val_dir is None:
            raise SettingError("data.root", f"{path} has train/ but neither val/ nor test/; {_LAYOUT}")
        classes = _classes(train_dir)
        return classes, _listed(train_dir, classes), _listed(val_dir, classes)
    classes = _classes(path)
    both = _listed(path, classes)
    shuffled = permutation(len(both), split_seed)
    held_out = max(1, round(len(both) * val_fraction))
    val = [both[i] for i in shuffled[:held_out].sort().values]
    return classes, [both[i] for i in shuffled[held_out:].sort().values], val


def _existing(root: str | None) -> Path:
    if not root:
        raise SettingError("data.root", f"is not set; {_LAYOUT}")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise SettingError(
            "data.root", f"{path} is {'not a folder' if path.exists() else 'missing'}; {_LAYOUT}"
        )
    return path


def _classes(folder: Path) -> list[str]:
    try:
        return find_classes(folder)[0]
    except FileNotFoundError:
        raise SettingError("data.root", f"{folder} holds no folder a class; {_LAYOUT}") from None


def _listed(folder: Path, classes: list[str]) -> Samples:
    """The images under a folder with their labels, in order of class and name."""
    unknown = set(find_classes(folder)[0] if any(folder.iterdir()) else []) - set(classes)
    if unknown:
        raise SettingError("data.root", f"{folder} has class {min(unknown)!r}, which train/ has not")
    labels = {name: label for label, name in enumerate(classes)}
    found = make_dataset(str(folder), labels, IMG_EXTENSIONS, allow_empty=True)
    if not found:
        raise SettingError("data.root", f"{folder} holds no images ({', '.join(IMG_EXTENSIONS)}); {_LAYOUT}")
    return [(Path(file), label) for file, label in found]


def _common_size(samples: Samples) -> int:
    """The side of the images, if all that are looked at (up to 100, spread evenly) are alike squares."""
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
