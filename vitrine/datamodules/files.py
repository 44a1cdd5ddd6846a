"""Images in files, decoded one by one or all into memory, as squares of one size."""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from vitrine.core.cores import available_cores
from vitrine.core.image_dataset import ImageDataset, relative_path
from vitrine.core.random_numbers import make_key
from vitrine.core.settings import SettingError
from vitrine.datamodules.decoding import Decoding, UnreadableImage, to_tensor
from vitrine.datamodules.mask_files import OBJECT, MaskFiles
from vitrine.datamodules.memory import InMemory

log = logging.getLogger(__name__)

_BY_TORCH = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
_In, _Out = TypeVar("_In"), TypeVar("_Out")
progress_bar = partial(tqdm, unit="image", leave=False, disable=None)  # on a terminal only, not in a log


class ImageFiles(ImageDataset):
    """A split whose images are files, made squares of one size.

    A subclass whose images are kept in another way says in `encoded` where to read them.

    Args:
        files: of each image the file, or what `encoded` finds it by.
        labels: int64, [N].
        image_size: pixels a side.
        resize: pixels of the shorter side before the center crop; 0: `image_size`.
        fit: how an image that is no square becomes one: crop (the middle), letterbox (all of it, centred on
            the background), stretch.
        interpolation: nearest, bilinear, bicubic or lanczos.
        decoding: what is made of a file; by default the usual, of `channels`.
        min_scale: smallest fraction of the area in the random resized crop of `training_item`; 1: no crop.
        root: of the data, which `path` is relative to.

    Raises:
        SettingError: the crop is larger than the resized image; or nothing is cropped of it.
    """

    def __init__(
        self,
        files: Iterable[Any],
        labels: Tensor,
        image_size: int,
        *,
        resize: int = 0,
        fit: str = "crop",
        interpolation: str = "bilinear",
        channels: int = 3,
        decoding: Decoding | None = None,
        min_scale: float = 1.0,
        root: str | Path | None = None,
    ):
        if 0 < resize < image_size:
            raise SettingError("data.resize", f"is {resize}, expected at least data.image_size, {image_size}")
        if resize and fit != "crop":
            problem = f"is {resize}, but data.fit={fit} crops nothing; expected 0"
            raise SettingError("data.resize", problem)
        self.files, self.labels = list(files), labels.long()
        self.decoding = decoding or Decoding(channels)
        self.image_size, self.channels, self.min_scale = image_size, self.decoding.channels, min_scale
        self.resize, self.fit = resize or image_size, fit
        self.interpolation = InterpolationMode(interpolation)
        self.mask_files: MaskFiles | None = None  # where it should look
        self.class_names: Sequence[str] = ()  # by label, for boxes
        self.root = None if root is None else Path(root).expanduser()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image, uint8 [C, H, W], and its label.

        Raises:
            UnreadableImage: the file cannot be decoded.
        """
        return to_tensor(self._square(self.decode(index))), int(self.labels[index])

    def training_item(self, index: int, seed: int) -> tuple[Tensor, int]:
        """A random resized crop of the whole photograph, of what `fit` makes a square of it, a function of
        (seed, index), and its label.

        Bilinear and bicubic crops are resized by torch, which takes two thirds of Pillow's time and rounds a
        level of 255 otherwise now and then.
        """
        if self.min_scale == 1:
            return self[index]
        by_torch = self.interpolation in _BY_TORCH
        image = self.decoding.levels(*self.encoded(index)) if by_torch else self.decode(index)
        if self.fit == "letterbox":
            image = self._letterbox(image, max(F.get_size(image)))
        elif self.fit == "stretch":
            image = self._resize(image, [max(F.get_size(image))] * 2)
        scale = (self.min_scale, 1.0)
        crop = v2.RandomResizedCrop(self.image_size, scale, interpolation=self.interpolation)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(make_key(seed, index))
            place = crop.make_params([image])
        image = F.resized_crop(image, **place, size=crop.size, interpolation=self.interpolation)
        return to_tensor(image), int(self.labels[index])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images, uint8 [n, C, H, W], and labels, int64 [n], at `indices`, decoded in threads."""
        return self._read(indices.tolist()), self.labels[indices]

    def load(self, description: str) -> InMemory:
        """The split with all images decoded into memory, under a progress bar."""
        bar = partial(progress_bar, desc=description, total=len(self))
        return InMemory(self._read(range(len(self)), bar), self.labels, self)

    def _read(self, indices: Sequence[int], bar: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> Tensor:
        images = torch.empty(len(indices), self.channels, self.image_size, self.image_size, dtype=torch.uint8)
        for image, (item, _) in zip(images, bar(map_in_threads(self.__getitem__, indices))):
            image.copy_(item)
        return images

    def masks(self, indices: Tensor) -> dict[str, Tensor]:
        """Which pixels show what the network should look at, where `mask_files` are given: more than half of
        each, or those that it covers most. False for an image without a mask.

        Raises:
            UnreadableImage: a mask cannot be read, or is not of the image's size.
        """
        if self.mask_files is None or not len(indices):
            return {}
        found = map_in_threads(self._mask, torch.as_tensor(indices).tolist())
        return {OBJECT: torch.stack(list(found))}

    def _mask(self, index: int) -> Tensor:
        file, label = self.files[index], int(self.labels[index])
        name = self.class_names[label] if self.class_names else ""
        mask = self.mask_files.read(file, lambda: self.decoding.upright_size(file, file), name)
        if mask is None:
            return torch.zeros(self.image_size, self.image_size, dtype=torch.bool)
        pixels = copy.copy(self)
        pixels.interpolation, pixels.decoding = InterpolationMode.BILINEAR, Decoding(1, background=(0, 0, 0))
        cover = to_tensor(pixels._square(mask))[0]
        return cover > 127 if (cover > 127).any() else (cover == cover.max()) & (cover > 0)

    def _square(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        """An image of any size as a square of `image_size`."""
        side = self.image_size
        if self.fit == "letterbox":
            return self._letterbox(image, side)
        if self.fit == "stretch":
            return self._resize(image, [side, side])
        if min(F.get_size(image)) != self.resize:
            image = F.resize(image, self.resize, self.interpolation)
        return image if F.get_size(image) == [side, side] else F.center_crop(image, side)

    def _resize(self, image: Image.Image | Tensor, size: list[int]) -> Image.Image | Tensor:
        return image if F.get_size(image) == size else F.resize(image, size, self.interpolation)

    def _letterbox(self, image: Image.Image | Tensor, side: int) -> Image.Image | Tensor:
        """All of an image in the middle of a square."""
        scale = side / max(F.get_size(image))
        height, width = (max(1, round(length * scale)) for length in F.get_size(image))
        top, left = (side - height) // 2, (side - width) // 2
        padding = [left, top, side - width - left, side - height - top]
        image = self._resize(image, [height, width])
        return F.pad(image, padding, fill=self.decoding.fill) if any(padding) else image

    @property
    def storage(self) -> str:
        return "read from disk"

    def encoded(self, index: int) -> tuple[Path | BinaryIO, object]:
        """What the image at `index` is decoded from, and what messages call it."""
        return self.files[index], self.files[index]

    def path(self, index: int) -> str | None:
        return relative_path(self.files[index], self.root)

    def prepare(self, file: Path) -> Tensor:
        """Another file's image, made as the split's are: uint8 [C, H, W]; UnreadableImage if it is none."""
        return to_tensor(self._square(self.decoding.decode(file, file)))

    def select(self, indices: Sequence[int]) -> Self:
        """The split of these images alone."""
        selected = copy.copy(self)
        selected.files = [self.files[i] for i in indices]
        selected.labels = self.labels[torch.as_tensor(indices, dtype=torch.int64)]
        selected.mislabeled = None  # of labels of another number
        return selected

    def decode(self, index: int) -> Image.Image | Tensor:
        """The whole image, see `Decoding.decode`.

        Raises:
            UnreadableImage: it cannot be decoded.
        """
        return self.decoding.decode(*self.encoded(index))


def map_in_threads(work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterable[_Out]:
    """`work(item)` of every item, in order, in as many threads as cores, a little ahead of the consumer."""
    threads = available_cores()
    with ThreadPoolExecutor(threads) as pool:
        waiting = []
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 64 * threads:  # results waiting to be consumed are whole images
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            pool.shutdown(cancel_futures=True)


def drop_unreadable(split: ImageFiles) -> ImageFiles:
    """The images that can be decoded (every one is, under a progress bar); each of the others is logged."""

    def is_readable(index: int) -> bool:
        try:
            split.decode(index)
        except UnreadableImage as error:
            log.warning("left out: %s", error)
            return False
        return True

    indices = range(len(split))
    readable = progress_bar(map_in_threads(is_readable, indices), "checking images", len(split))
    return split.select([index for index, good in zip(indices, readable) if good])


def square_size(*splits: ImageFiles) -> int:
    """The side of the images, if up to 100 of them, evenly spaced, are squares of one size.

    Raises:
        SettingError: of `data.image_size`, if they are not.
    """
    sizes, every = set(), [(split, i) for split in splits for i in range(len(split))]
    for split, index in every[:: max(1, -(-len(every) // 100))]:
        with contextlib.suppress(OSError, UnreadableImage):  # reported, or skipped, when it is read
            sizes.add(split.decoding.size(*split.encoded(index)))
    if len(sizes) == 1 and len(set(*sizes)) == 1:
        return sizes.pop()[0]
    shown = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
    problem = f"is 0, but the images are {shown or 'unreadable'}; expected pixels a side"
    raise SettingError("data.image_size", problem)
