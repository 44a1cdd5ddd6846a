"""Data augmentation of a batch at a time, on the batch's device, with random numbers of each image's own."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.core.random_numbers import fold_in, uniform
from vitrine.core.settings import SettingError, setting

_POLICY, _ERASING = 1, 2  # purposes of further random numbers
_CACHED = 2**19  # numbers that a processor's cache holds between two operations
_ATTEMPTS = 10  # at a rectangle to erase
_COLUMNS = 16  # random numbers of an image; each use has its own, so that no setting shifts another's


@dataclass
class Augment:
    """Augmentation of the training images; by default none."""

    crop: int = setting(0, "random crop after padding by so many pixels a side (edges replicated)", least=0)
    flip: bool = setting(False, "flip every other image left to right")
    random_resized_crop: float = setting(
        1.0,
        "smallest scale (fraction of the area) of a random resized crop; 1: none",
        above=0,
        most=1,
        renamed_from="zoom",
    )
    rotate: float = setting(0.0, "largest rotation in either direction, degrees", least=0, most=180)
    jitter: float = setting(
        0.0, "brightness, contrast and saturation each change by up to this fraction", least=0, most=1
    )
    cutout: int = setting(0, "side of a grey square that covers a part, pixels", least=0)
    randaugment: int = setting(
        0, "RandAugment: random operations on each image, 2 is usual; 0: none", least=0
    )
    magnitude: int = setting(9, "of RandAugment's operations", least=0, most=30)
    trivialaugment: bool = setting(False, "TrivialAugmentWide: one random operation of random magnitude")
    augmix: bool = setting(False, "AugMix: each image mixed with chains of random operations")
    augmix_severity: int = setting(3, "magnitude of AugMix's operations", least=1, most=10)
    augmix_width: int = setting(3, "chains of AugMix", least=1)
    erasing: float = setting(
        0.0,
        "probability that a random rectangle, 2 to 33 % of the area, is erased to the mean colour",
        least=0,
        most=1,
    )
    mixup: float = setting(
        0.0, "alpha of mixup of the batch, 0.2 is usual; with cutmix, each gets half the batches", least=0
    )
    cutmix: float = setting(0.0, "alpha of cutmix of the batch, 1 is usual", least=0)
    repeats: int = setting(
        1, "times that an image comes in a batch, differently augmented; an epoch stays as long", least=1
    )

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, and labels become probabilities."""
        return bool(self.mixup or self.cutmix)


def augment_setting(**defaults: Any) -> Any:
    """A source's field `augment`, with these defaults."""
    meaning = {"meaning": "augmentation of the training images"}
    return dataclasses.field(default_factory=partial(Augment, **defaults), metadata=meaning)


def check_augment(settings: Augment, channels: int, batch_size: int) -> None:
    """Raise SettingError for settings that exclude each other, would do nothing, or do not fit images of so
    many channels or batches of so many."""
    for key, of in {
        "magnitude": "randaugment",
        "augmix_severity": "augmix",
        "augmix_width": "augmix",
    }.items():
        if getattr(settings, key) != getattr(Augment(), key) and not getattr(settings, of):
            problem = f"is {getattr(settings, key)}, but data.augment.{of} is off, to which it belongs"
            raise SettingError(f"data.augment.{key}", problem)
    if settings.repeats > batch_size:
        problem = f"is {settings.repeats}, expected at most the {batch_size} of data.batch_size"
        raise SettingError("data.augment.repeats", problem)
    if settings.mixes and batch_size == 1:
        key, problem = "mixup" if settings.mixup else "cutmix", "but data.batch_size=1 leaves no two to mix"
        raise SettingError(f"data.augment.{key}", f"is {getattr(settings, key)}, {problem}")
    policies = {"randaugment": settings.randaugment, "trivialaugment": settings.trivialaugment}
    chosen = [name for name, value in (policies | {"augmix": settings.augmix}).items() if value]
    if len(chosen) > 1:
        problem = f"is {getattr(settings, chosen[1])} beside {chosen[0]}={getattr(settings, chosen[0])}"
        raise SettingError(f"data.augment.{chosen[1]}", f"{problem}, expected one policy of the two")
    if chosen and channels not in (1, 3):
        problem = f"is {getattr(settings, chosen[0])}, but its operations are of images of 1 or 3 channels"
        raise SettingError(f"data.augment.{chosen[0]}", f"{problem}, and these have {channels}")


def augment(
    images: Tensor, indices: Tensor, seed: Tensor, settings: Augment, mean: Sequence[float] = (0.0,)
) -> Tensor:
    """Augmented images, float32 in [0, 1], [N, C, H, W]; each is a function of (seed, index) and itself.

    Args:
        images: uint8, or float in [0, 1], [N, C, H, W].
        indices: of the images in their split, int64, [N].
        seed: int64, scalar, or [N] where an image comes more than once.
        mean: of the pixels, per channel, that what is erased becomes.
    """
    keys = fold_in(seed, indices) if settings != Augment() else None
    random = uniform(keys, _COLUMNS) if keys is not None else None
    if settings.crop or settings.flip:
        flip = random[:, 2] if settings.flip else None
        images = _crop_and_flip(images, random[:, 0:2], flip, settings.crop)
    scale, degrees = settings.random_resized_crop, settings.rotate
    if scale < 1 or degrees:
        images = _resized_crop_and_rotate(_to_float(images), random[:, 3:8], scale, degrees)
    images = _to_float(_apply_policy(images, keys, settings))
    if settings.jitter:
        images = _color_jitter(images, random[:, 8:11], settings.jitter)
    if settings.cutout:
        images = _cutout(images, random[:, 11:13], settings.cutout)
    if settings.erasing:
        images = _erase(images, uniform(fold_in(keys, _ERASING), 1 + 4 * _ATTEMPTS), settings.erasing, mean)
    return images


def _to_float(images: Tensor) -> Tensor:
    """float32 in [0, 1]."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()


def _apply_policy(images: Tensor, keys: Tensor | None, settings: Augment) -> Tensor:
    """The images, as bytes where they still are, after the policy that the settings name, if any."""
    if not (settings.randaugment or settings.trivialaugment or settings.augmix):
        return images
    from vitrine.datamodules import policies  # torchvision takes half a second

    if settings.randaugment:
        how = {"operations": settings.randaugment, "magnitude": settings.magnitude}
        policy = partial(policies.randaugment, **how)
    elif settings.trivialaugment:
        policy = policies.trivialaugment
    else:
        policy = partial(policies.augmix, severity=settings.augmix_severity, width=settings.augmix_width)
    block = max(_CACHED // images[0].numel(), 1) if images.device.type == "cpu" else len(images)
    parts = zip(images.split(block), fold_in(keys, _POLICY).split(block))
    return torch.cat([policy(*part) for part in parts])


def _crop_and_flip(images: Tensor, position: Tensor, flip: Tensor | None, padding: int) -> Tensor:
    """A shift by whole pixels, -padding to padding, and a flip where `flip` < 1/2: one gather, exact."""
    count, _, height, width = images.shape
    shift = (position * (2 * padding + 1)).long() - padding  # [N, 2]
    rows = torch.arange(height, device=images.device) + shift[:, :1]
    columns = torch.arange(width, device=images.device) + shift[:, 1:]
    rows, columns = rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)
    if flip is not None:
        columns = torch.where(flip[:, None] < 0.5, columns.flip(1), columns)
    flat = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
    return images.flatten(2).gather(2, flat.expand(-1, images.shape[1], -1)).view_as(images)


def _resized_crop_and_rotate(images: Tensor, random: Tensor, scale: float, degrees: float) -> Tensor:
    """A random crop of each image (fraction of the area from `scale` to 1, aspect ratio from 3/4 to 4/3),
    rotated and resized in one bilinear interpolation."""
    area = scale + (1 - scale) * random[:, 0]
    aspect = torch.exp((random[:, 1] * 2 - 1) * math.log(4 / 3) / 2) if scale < 1 else torch.ones_like(area)
    w, h = (area.sqrt() * aspect).clamp_(max=1), (area.sqrt() / aspect).clamp_(max=1)
    angle = (random[:, 4] * 2 - 1) * math.radians(degrees)
    cos, sin = angle.cos(), angle.sin()
    x, y = (random[:, 2] * 2 - 1) * (1 - w), (random[:, 3] * 2 - 1) * (1 - h)
    height, width = images.shape[-2:]
    ratio = width / height  # the rotation is one of pixels, not of the grid's [-1, 1] coordinates
    theta = torch.stack([w * cos, -h * sin / ratio, x, w * sin * ratio, h * cos, y], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _color_jitter(images: Tensor, random: Tensor, strength: float) -> Tensor:
    """Brightness, contrast (about the mean grey) and saturation, each times 1 - strength to 1 + strength."""
    factors = 1 + (random * 2 - 1) * strength
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    images = images * brightness
    grey = _to_grayscale(images)
    mean = grey.mean((2, 3), keepdim=True)
    images = mean + (images - mean) * contrast
    if images.shape[1] == 3:
        grey = mean + (grey - mean) * contrast
        images = grey + (images - grey) * saturation
    return images.clamp_(0, 1)


def _to_grayscale(images: Tensor) -> Tensor:
    """Luma (ITU-R 601), [N, 1, H, W]."""
    if images.shape[1] != 3:
        return images
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _cutout(images: Tensor, position: Tensor, side: int) -> Tensor:
    """A grey square centred anywhere in each image, clipped at its border (DeVries & Taylor 2017)."""
    height, width = images.shape[-2:]
    centre = (position * position.new_tensor([height, width])).floor()
    rows = torch.arange(height, device=images.device) - centre[:, :1] + side // 2
    columns = torch.arange(width, device=images.device) - centre[:, 1:] + side // 2
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    return images.masked_fill(inside[:, None], 0.5)


def _erase(images: Tensor, random: Tensor, probability: float, mean: Sequence[float]) -> Tensor:
    """A rectangle of some images becomes `mean` (Zhong 2020): as in torchvision's RandomErasing, the first of
    ten random ones that is smaller than the image, if any is."""
    height, width = images.shape[-2:]
    area, aspect, row, column = random[:, 1:].view(len(images), 4, _ATTEMPTS).unbind(1)
    sides = erased_sides(
        0.02 + (0.33 - 0.02) * area, math.log(0.3) + math.log(3.3 / 0.3) * aspect, height, width
    )
    fits = (sides[..., 0] < height) & (sides[..., 1] < width)  # [N, attempts]
    first = fits.int().argmax(1, keepdim=True)  # of equal ones the first
    tall, wide = sides.gather(1, first[..., None].expand(-1, -1, 2))[:, 0].unbind(1)
    top = (row.gather(1, first)[:, 0] * (height - tall + 1)).long()
    left = (column.gather(1, first)[:, 0] * (width - wide + 1)).long()
    rows = torch.arange(height, device=images.device) - top[:, None]
    columns = torch.arange(width, device=images.device) - left[:, None]
    inside = ((rows >= 0) & (rows < tall[:, None]))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < wide[:, None]))[:, None, :]
    inside &= ((random[:, 0] < probability) & fits.any(1))[:, None, None]
    return torch.where(inside[:, None], images.new_tensor(mean).view(-1, 1, 1), images)


def erased_sides(scale: Tensor, log_aspect: Tensor, height: int, width: int) -> Tensor:
    """Height and width of rectangles of this share of the area and this logarithm of height by width, rounded
    to pixels, int64, [..., 2]."""
    area, aspect = height * width * scale, log_aspect.exp()
    return torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], -1).round().long()
