"""Small random motions of a picture while it is optimised, so that what it shows does not hang on single
pixels.

Each picture moves by numbers of its own, drawn beforehand from its own generator. All motions of a step are
one affine map, so that a picture is resampled once however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.core.settings import setting

FULL_SIZE = 128  # pixels on a side from which distances hold as they are; smaller pictures move in proportion
CROPPED_SIZE = 512  # from which crops are as told; those of smaller pictures are larger in proportion
GREY = 0.5  # what surrounds a picture


@dataclass(frozen=True)
class Transforms:
    """Jitter, scale, rotate, jitter again (Olah 2017), the picture padded with as much grey as that lays
    open.

    What comes out is as large as what went in, for networks that take one size only.
    """

    jitter: float = setting(16, "pixels: width of the range a picture is shifted in at first", least=0)
    scales: list[float] = setting([0.95, 0.975, 1.0, 1.025, 1.05], "one of these factors is drawn a step")
    degrees: float = setting(5, "a picture is turned by up to so many degrees either way", least=0, most=180)
    jitter_after: float = setting(8, "pixels: width of the range it is shifted in at last", least=0)

    NUMBERS: ClassVar[int] = 6  # in [0, 1), a picture and step

    def maps(self, numbers: Tensor, size: int) -> Tensor:
        """Affine maps [..., 2, 3] as `torch.nn.functional.affine_grid` takes them, from numbers [..., 6]."""
        shrink = min(1.0, size / FULL_SIZE)
        first = _shift(numbers[..., 0:2], self.jitter * shrink, size)
        last = _shift(numbers[..., 2:4], self.jitter_after * shrink, size)
        scales = numbers.new_tensor(self.scales)[(numbers[..., 4] * len(self.scales)).long()]
        angle = (numbers[..., 5] * 2 - 1) * math.radians(self.degrees)
        cos, sin = torch.cos(angle) / scales, torch.sin(angle) / scales
        turn = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))
        # a grid point p of the result shows the picture at turn (p - last) - first
        offset = -(turn @ last[..., None]) - first[..., None]
        return torch.cat([turn, offset], -1)


@dataclass(frozen=True)
class Crops:
    """Random square parts of a picture, each enlarged to the whole of it (MACO, Fel 2023)."""

    least: float = setting(0.05, "the smallest part of a side", above=0, most=1)
    most: float = setting(0.5, "the largest part of a side", above=0, most=1)

    NUMBERS: ClassVar[int] = 3

    def maps(self, numbers: Tensor, size: int) -> Tensor:
        """Affine maps [..., 2, 3], from numbers [..., 3]; every crop lies inside the picture."""
        grow = max(1.0, CROPPED_SIZE / size)
        least, most = min(1.0, self.least * grow), min(1.0, self.most * grow)
        part = least + (most - least) * numbers[..., 0]
        centre = (numbers[..., 1:3] * 2 - 1) * (1 - part)[..., None]
        return torch.cat([part[..., None, None] * torch.eye(2).to(numbers), centre[..., None]], -1)


def drawn(
    transforms: Transforms | Crops, generators: Sequence[torch.Generator], steps: int, size: int
) -> Tensor:
    """The maps of every step and picture, [steps, N, 2, 3]: a picture's depend on its own generator alone."""
    numbers = [torch.rand(steps, transforms.NUMBERS, generator=g) for g in generators]
    return transforms.maps(torch.stack(numbers, 1), size)


def moved(pictures: Tensor, maps: Tensor) -> Tensor:
    """Pictures [N, C, H, W], each under its affine map [N, 2, 3]; what comes in from outside is grey."""
    grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures - GREY, grid, padding_mode="zeros", align_corners=False) + GREY


def _shift(numbers: Tensor, pixels: float, size: int) -> Tensor:
    """Numbers in [0, 1) as shifts by whole pixels in a centred range, in units of half a side."""
    return torch.round((numbers - 0.5) * pixels) * (2 / size)
