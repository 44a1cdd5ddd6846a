"""Random affine transformations of pictures while they are optimised, for robustness to small motions,
and random shifts of their colours.

Each picture has its own transformations, sampled beforehand from its own generator. All transformations of a
step are composed into one affine map, so that a picture is resampled once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.analyses.picture_size import Size, sides
from vitrine.core.settings import setting

FULL_SIZE = 128  # pixels of the shorter side: on smaller pictures, distances are scaled down in proportion
CROPPED_SIZE = 512  # pixels of the shorter side: on smaller pictures, crops are scaled up in proportion
GREY = 0.5  # outside a picture


@dataclass(frozen=True)
class Transforms:
    """Jitter, scale, rotate, jitter again (Olah 2017), the picture padded with grey; its size stays the same,
    for networks that take one size only."""

    jitter: float = setting(16, "pixels: width of the range of the first shift", least=0)
    scales: list[float] = setting([0.95, 0.975, 1.0, 1.025, 1.05], "factors, one drawn at each step")
    degrees: float = setting(5, "rotation by up to so many degrees either way", least=0, most=180)
    jitter_after: float = setting(8, "pixels: width of the range of the last shift", least=0)

    RANDOM_NUMBERS: ClassVar[int] = 6  # for a picture and step

    def affine_maps(self, numbers: Tensor, size: Size) -> Tensor:
        """Affine maps [..., 2, 3] as `torch.nn.functional.affine_grid` takes them, from numbers [..., 6]."""
        height, width = sides(size)
        scale = min(1.0, min(height, width) / FULL_SIZE)
        first = _shift(numbers[..., 0:2], self.jitter * scale, size)
        last = _shift(numbers[..., 2:4], self.jitter_after * scale, size)
        scales = numbers.new_tensor(self.scales)[(numbers[..., 4] * len(self.scales)).long()]
        angle = (numbers[..., 5] * 2 - 1) * math.radians(self.degrees)
        cos, sin = torch.cos(angle) / scales, torch.sin(angle) / scales
        # in units of half a side, which are others down than across where the picture is not square
        entries = [cos, -sin * (height / width), sin * (width / height), cos]
        rotation = torch.stack(entries, -1).unflatten(-1, (2, 2))
        # a grid point p of the result is sampled at rotation (p - last) - first
        offset = -(rotation @ last[..., None]) - first[..., None]
        return torch.cat([rotation, offset], -1)


@dataclass(frozen=True)
class Crops:
    """Random crops of a picture, of its own shape, each resized to its size (MACO, Fel 2023)."""

    least: float = setting(0.05, "the smallest part of a side", above=0, most=1)
    most: float = setting(0.5, "the largest part of a side", above=0, most=1)

    RANDOM_NUMBERS: ClassVar[int] = 3

    def affine_maps(self, numbers: Tensor, size: Size) -> Tensor:
        """Affine maps [..., 2, 3], from numbers [..., 3]; every crop lies inside the picture."""
        scale = max(1.0, CROPPED_SIZE / min(sides(size)))
        least, most = min(1.0, self.least * scale), min(1.0, self.most * scale)
        side = least + (most - least) * numbers[..., 0]
        centre = (numbers[..., 1:3] * 2 - 1) * (1 - side)[..., None]
        return torch.cat([side[..., None, None] * torch.eye(2).to(numbers), centre[..., None]], -1)


def sample_maps(
    transforms: Transforms | Crops, generators: Sequence[torch.Generator], steps: int, size: Size
) -> Tensor:
    """The affine maps of all steps and pictures, [steps, N, 2, 3], each picture's from its own generator."""
    numbers = [torch.rand(steps, transforms.RANDOM_NUMBERS, generator=g) for g in generators]
    return transforms.affine_maps(torch.stack(numbers, 1), size)


def colour_shifts(
    generators: Sequence[torch.Generator], steps: int, channels: int, deviation: float
) -> Tensor:
    """What is added to the channels at each step, [steps, N, channels, 1, 1], each picture's from its own
    generator: normal, with a standard deviation that falls evenly from `deviation` towards 0."""
    numbers = torch.stack([torch.randn(steps, channels, generator=g) for g in generators], 1)
    left = 1 - torch.arange(1, steps + 1) / max(steps, 1)
    return (numbers * deviation * left[:, None, None])[..., None, None]


def warp(pictures: Tensor, maps: Tensor) -> Tensor:
    """Pictures [N, C, H, W], each under its affine map [N, 2, 3], grey outside."""
    grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures - GREY, grid, padding_mode="zeros", align_corners=False) + GREY


def _shift(numbers: Tensor, pixels: float, size: Size) -> Tensor:
    """Numbers in [0, 1), [..., 2], as shifts across and down by whole pixels in a centred range, in units of
    half a side."""
    height, width = sides(size)
    return torch.round((numbers - 0.5) * pixels) * numbers.new_tensor([2 / width, 2 / height])
