"""Tensors into pictures: uint8 [H, W, 3], and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.core.image_dataset import shown_channels

GAP = 2  # pixels between the pictures of a grid
BACKGROUND = 255  # white
_shown: ContextVar[Sequence[int] | None] = ContextVar("shown", default=None)


@cache
def _colormap(name: str) -> Tensor:
    from matplotlib import colormaps  # takes a third of a second: only where it is needed

    return torch.tensor(colormaps[name](range(256)))[:, :3].mul(255).round().to(torch.uint8)


@contextmanager
def showing(channels: Sequence[int] | None) -> Iterator[None]:
    """Within it, pictures of images with neither 1 nor 3 channels show these: one in gray, or three as red,
    green and blue; None: `core.image_dataset.shown_channels`."""
    token = _shown.set(channels)
    try:
        yield
    finally:
        _shown.reset(token)


def visible(image: Tensor) -> Tensor:
    """The channels [1 or 3, H, W] of an image [C, H, W] that pictures show; all of 1 or 3."""
    if len(image) in (1, 3):
        return image
    return image[list(_shown.get() or shown_channels(len(image)))]


def picture(image: Tensor) -> Tensor:
    """An image [C, H, W], float in [0, 1], as uint8 [H, W, 3]; of more channels than 3 those of `showing`."""
    image = visible(image).detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    return image.expand(3, -1, -1).permute(1, 2, 0).contiguous()


def signed_picture(values: Tensor, scale: float | None = None) -> Tensor:
    """Signed values [C, H, W] as a picture in their own colours, in which zero is mid-grey and `scale`
    (the largest magnitude unless given) full brightness."""
    scale = values.abs().max().item() if scale is None else scale
    return picture(values.detach() / (2 * scale if scale > 0 else 1) + 0.5)


def percentile_scale(values: Tensor) -> float:
    """The 99th percentile of the magnitudes: a scale at which a few pixels do not darken all others."""
    magnitudes = values.abs().flatten()
    scale = magnitudes.kthvalue(max(1, round(0.99 * magnitudes.numel()))).values.item()
    return scale or magnitudes.max().item() or 1.0


def colorize(values: Tensor, colormap: str = "inferno") -> Tensor:
    """A map [H, W] in [0, 1] through one of matplotlib's colour maps, as uint8 [H, W, 3]."""
    levels = values.detach().float().cpu().nan_to_num(0).clamp(0, 1).mul(255).round().long()
    return _colormap(colormap)[levels]


def overlay_heatmap(values: Tensor, image: Tensor, opacity: float = 0.6, colormap: str = "inferno") -> Tensor:
    """A map [h, w] with values >= 0, divided by its maximum, over an image [C, H, W] in grey levels.

    The map is upsampled bilinearly. Its minimum is not subtracted: zero stays the colour map's first colour.
    """
    values = values.detach().float().cpu()
    peak = values.max().item()
    return _overlay(values / peak if peak > 0 else values * 0, image, opacity, colormap)


def overlay_signed(values: Tensor, image: Tensor, opacity: float = 0.6) -> Tensor:
    """A signed map [h, w] over an image [C, H, W] in grey levels: red above 0, blue as far below."""
    values = values.detach().float().cpu()
    peak = values.abs().max().item()
    return _overlay(values / (2 * peak if peak > 0 else 1) + 0.5, image, opacity, "RdBu_r")


def _overlay(values: Tensor, image: Tensor, opacity: float, colormap: str) -> Tensor:
    grey = picture(visible(image).float().mean(0, keepdim=True)).float()
    colours = colorize(upsample(values, image.shape[-2:]), colormap).float()
    return (grey * (1 - opacity) + colours * opacity).round().to(torch.uint8)


def upsample(values: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [..., h, w] upsampled bilinearly to [..., H, W]."""
    flat = values.reshape(-1, 1, *values.shape[-2:])  # as channels, their number would choose how it rounds
    scaled = F.interpolate(flat, tuple(size), mode="bilinear", align_corners=False)
    return scaled.reshape(*values.shape[:-2], *size)


def resize(image: Tensor, side: int) -> Tensor:
    """A picture [H, W, 3] scaled so that its longer side is `side` pixels: by whole pixels, unsmoothed, where
    `side` is a multiple of it, otherwise bilinearly."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    exact = size[0] % height == 0 and size[1] % width == 0
    mode = {"mode": "nearest"} if exact else {"mode": "bilinear", "antialias": True, "align_corners": False}
    scaled = F.interpolate(image.permute(2, 0, 1)[None].float(), size, **mode)
    return scaled[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)


def magnify(image: Tensor, min_side: int) -> Tensor:
    """A picture [H, W, 3] scaled by `magnification`."""
    return resize(image, magnification(image.shape[:2], min_side) * max(image.shape[:2]))


def magnification(size: Sequence[int], min_side: int) -> int:
    """The smallest whole number by which the longer of height and width becomes at least `min_side`."""
    return max(1, -(-min_side // max(size)))


def tile_side(size: Sequence[int]) -> int:
    """The longer side of a tile of images of that height and width: theirs, or a multiple of about 128."""
    return max(size) * max(1, round(128 / max(size)))


def draw_box(image: Tensor, box: Sequence[int], colour: Sequence[int] = (255, 45, 85)) -> Tensor:
    """A copy of a picture [H, W, 3] with a one-pixel frame just inside a box (top, left, bottom, right)."""
    image, pixel = image.clone(), torch.tensor(colour, dtype=torch.uint8)
    top, left, bottom, right = (int(b) for b in box)
    image[top, left:right] = image[bottom - 1, left:right] = pixel
    image[top:bottom, left] = image[top:bottom, right - 1] = pixel
    return image


def fit_square(image: Tensor, side: int) -> Tensor:
    """A picture resized to fit into a square of `side` pixels, centred on white."""
    image = resize(image, side)
    square = torch.full((side, side, 3), BACKGROUND, dtype=torch.uint8)
    top, left = (side - image.shape[0]) // 2, (side - image.shape[1]) // 2
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    return square


def grid(images: Sequence[Tensor], columns: int, gap: int = GAP) -> Tensor:
    """Pictures of one size laid out row by row, `columns` a row, with a white gap between them."""
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    sheet = torch.full(size, BACKGROUND, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def row(images: Sequence[Tensor], gap: int = GAP) -> Tensor:
    """Pictures of one size side by side."""
    return grid(images, len(images), gap)
