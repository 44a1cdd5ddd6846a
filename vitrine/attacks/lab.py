"""Distances of colours as they are seen: CIELAB (CIE 1976), from sRGB under the white point D65."""

from __future__ import annotations

import torch
from torch import Tensor

_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE = tuple(sum(row) for row in _TO_XYZ)


def to_lab(images: Tensor) -> Tensor:
    """Images [..., 3, H, W] in sRGB, [0, 1], as lightness (0 to 100), a and b."""
    # the larger operand of each power, so that no gradient is infinite at black
    linear = torch.where(
        images > 0.04045, ((images.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, images / 12.92
    )
    red, green, blue = linear.unbind(-3)
    x, y, z = (
        _response((r * red + g * green + b * blue) / white) for (r, g, b), white in zip(_TO_XYZ, _WHITE)
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -3)


def lab_distance(first: Tensor, second: Tensor) -> Tensor:
    """The root of the mean squared distance in CIELAB over the pixels of images [..., 3, H, W]: [...].
    About 2.3 is what an eye just notices."""
    return root_mean_square(to_lab(first) - to_lab(second))


def root_mean_square(differences: Tensor) -> Tensor:
    """The root of the mean squared length of differences [..., 3, H, W] over the pixels, [...]."""
    return differences.square().sum(-3).mean((-2, -1)).sqrt()


def _response(light: Tensor) -> Tensor:
    edge = (6 / 29) ** 3
    return torch.where(light > edge, light.clamp(min=edge) ** (1 / 3), light * (29 / 6) ** 2 / 3 + 4 / 29)
