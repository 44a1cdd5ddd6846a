"""Training images varied a batch at a time, on the batch's device, each by its own draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.core.random_numbers import fold_in, uniform
from vitrine.core.settings import setting

MEANING = {"meaning": "how training images are varied"}
_DRAWS = 16  # uniform numbers an image; each use has its own column, so that one setting never shifts another


@dataclass
class Augment:
    """How training images are varied; the defaults leave them as they are."""

    crop: int = setting(0, "random crop after padding by so many pixels a side (edges repeated)", least=0)
    flip: bool = setting(False, "mirror every other image left to right")
    zoom: float = setting(1.0, "smallest share of the area that a random crop keeps; 1: all", above=0, most=1)
    rotate: float = setting(0.0, "largest rotation either way, degrees", least=0, most=180)
    jitter: float = setting(
        0.0, "brightness, contrast and saturation each change by up to this share", least=0, most=1
    )
    cutout: int = setting(0, "side of a square that is painted over with grey, pixels", least=0)


def augmented(images: Tensor, indices: Tensor, seed: Tensor, how: Augment) -> Tensor:
    """Images varied by what is drawn from (seed, index) for each, as float32 in [0, 1], [N, C, H, W].

    Args:
        images: uint8, or float in [0, 1], [N, C, H, W].
        indices: where each is in its split, int64, [N].
        seed: int64 scalar.
        how: which variations, and how strong.
    """
    draws = uniform(fold_in(seed, indices), _DRAWS) if how != Augment() else None
    if how.crop or how.flip:
        images = _cropped(images, draws[:, 0:2], draws[:, 2] if how.flip else None, how.crop)
    images = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
    if how.zoom < 1 or how.rotate:
        images = _warped(images, draws[:, 3:8], how.zoom, how.rotate)
    if how.jitter:
        images = _jittered(images, draws[:, 8:11], how.jitter)
    if how.cutout:
        images = _cut_out(images, draws[:, 11:13], how.cutout)
    return images


def _cropped(images: Tensor, place: Tensor, mirror: Tensor | None, padding: int) -> Tensor:
    """Shifted by whole pixels, -padding to padding, and mirrored where `mirror` < 1/2: one gather, exact."""
    count, _, height, width = images.shape
    shift = (place * (2 * padding + 1)).long() - padding  # [N, 2]
    rows = torch.arange(height, device=images.device) + shift[:, :1]
    columns = torch.arange(width, device=images.device) + shift[:, 1:]
    rows, columns = rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)
    if mirror is not None:
        columns = torch.where(mirror[:, None] < 0.5, columns.flip(1), columns)
    flat = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
    return images.flatten(2).gather(2, flat.expand(-1, images.shape[1], -1)).view_as(images)


def _warped(images: Tensor, draws: Tensor, zoom: float, degrees: float) -> Tensor:
    """A random part (area zoom to 1, aspect 3/4 to 4/3) of each image, rotated: one bilinear resampling."""
    area = zoom + (1 - zoom) * draws[:, 0]
    stretch = torch.exp((draws[:, 1] * 2 - 1) * math.log(4 / 3) / 2) if zoom < 1 else torch.ones_like(area)
    across, down = (area.sqrt() * stretch).clamp_(max=1), (area.sqrt() / stretch).clamp_(max=1)
    turn = (draws[:, 4] * 2 - 1) * math.radians(degrees)
    cos, sin = turn.cos(), turn.sin()
    right, low = (draws[:, 2] * 2 - 1) * (1 - across), (draws[:, 3] * 2 - 1) * (1 - down)
    height, width = images.shape[-2:]
    skew = width / height  # a rotation is one in pixels, not in the grid's [-1, 1] coordinates
    theta = torch.stack(
        [
            torch.stack([across * cos, -down * sin / skew, right], 1),
            torch.stack([across * sin * skew, down * cos, low], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _jittered(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Brightness, contrast (about the mean grey) and saturation, each times 1 - strength to 1 + strength."""
    factors = 1 + (draws * 2 - 1) * strength
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    images = images * brightness
    grey = _grey(images)
    middle = grey.mean((2, 3), keepdim=True)
    images = middle + (images - middle) * contrast
    if images.shape[1] == 3:
        grey = middle + (grey - middle) * contrast
        images = grey + (images - grey) * saturation
    return images.clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601), [N, 1, H, W]."""
    if images.shape[1] != 3:
        return images
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _cut_out(images: Tensor, place: Tensor, side: int) -> Tensor:
    """A grey square centred anywhere in each image, clipped at its border (DeVries & Taylor 2017)."""
    height, width = images.shape[-2:]
    centre = (place * place.new_tensor([height, width])).floor()
    rows = torch.arange(height, device=images.device) - centre[:, :1] + side // 2
    columns = torch.arange(width, device=images.device) - centre[:, 1:] + side // 2
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    return images.masked_fill(inside[:, None], 0.5)
