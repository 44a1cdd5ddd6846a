"""Data augmentation of a batch at a time, on the batch's device, with random numbers of each image's own."""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.core.random_numbers import fold_in, uniform
from vitrine.core.settings import setting

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


def augment_setting(**defaults: Any) -> Any:
    """A source's field `augment`, with these defaults."""
    meaning = {"meaning": "augmentation of the training images"}
    return dataclasses.field(default_factory=partial(Augment, **defaults), metadata=meaning)


def augment(images: Tensor, indices: Tensor, seed: Tensor, settings: Augment) -> Tensor:
    """Augmented images, float32 in [0, 1], [N, C, H, W]; each is a function of (seed, index) and itself.

    Args:
        images: uint8, or float in [0, 1], [N, C, H, W].
        indices: of the images in their split, int64, [N].
        seed: int64 scalar.
    """
    random = uniform(fold_in(seed, indices), _COLUMNS) if settings != Augment() else None
    if settings.crop or settings.flip:
        flip = random[:, 2] if settings.flip else None
        images = _crop_and_flip(images, random[:, 0:2], flip, settings.crop)
    images = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
    scale, degrees = settings.random_resized_crop, settings.rotate
    if scale < 1 or degrees:
        images = _resized_crop_and_rotate(images, random[:, 3:8], scale, degrees)
    if settings.jitter:
        images = _color_jitter(images, random[:, 8:11], settings.jitter)
    if settings.cutout:
        images = _cutout(images, random[:, 11:13], settings.cutout)
    return images


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
