"""Backgrounds: gradients, stripes, checks, bricks, a horizon, all under 1/f noise."""

from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.datamodules.drawing.faces import PAINTS
from vitrine.datamodules.drawing.noise import fractal
from vitrine.datamodules.drawing.plates import select
from vitrine.datamodules.drawing.random_stream import RandomStream

# Sky, haze, foliage, soil, asphalt, concrete, brick, wood: and the paints of the signs, see `_colour`.
_WORLD = torch.tensor(
    [
        [0.50, 0.68, 0.88],
        [0.80, 0.82, 0.84],
        [0.20, 0.32, 0.12],
        [0.36, 0.28, 0.18],
        [0.30, 0.30, 0.32],
        [0.62, 0.60, 0.56],
        [0.55, 0.27, 0.20],
        [0.58, 0.44, 0.28],
    ]
)


class Ground(NamedTuple):
    """How each image's background looks; tensors over images."""

    kind: Tensor  # int64 [n], which of _PATTERNS
    colours: Tensor  # [n, 2, 3], what it varies between
    heading: Tensor  # [n, 2], across the pattern
    pitch: Tensor  # [n], of the pattern, in half widths of the image
    phase: Tensor  # [n, 2], where the pattern begins, in pitches
    contrast: Tensor  # [n], of the pattern
    roughness: Tensor  # [n], strength of the noise
    tint: Tensor  # [n], strength of the noise's colours
    fall: Tensor  # [n], see `noise.fractal`
    seeds: Tensor  # int32 [n, 2], for the noise's light and colour


def ground(random: RandomStream) -> Ground:
    """A background for each image."""
    return Ground(
        kind=random.integers(len(_PATTERNS)),
        colours=torch.stack([_colour(random), _colour(random)], dim=1),
        heading=random.unit_vector(),
        pitch=random.uniform(0.12, 0.5),
        phase=random.uniform(0, 1, 2),
        contrast=random.uniform(0.3, 1.0),
        roughness=random.uniform(0.1, 0.7),
        tint=random.uniform(0.0, 0.12),
        fall=random.uniform(0.55, 1.0),
        seeds=torch.stack([random.bits(), random.bits()], dim=1),
    )


def paint_background(canvas: Tensor, ground: Ground, x: Tensor, y: Tensor) -> Tensor:
    """Paint the backgrounds onto `canvas` (float32, [n, 3, size, size]), in place.

    Args:
        x, y: [size], the middles of pixels, right and down, -1 to 1 over the image.

    Returns:
        The light of the noise, [n, size, size].
    """
    noise = fractal(ground.seeds[:, 0], len(x), ground.fall)
    pattern = torch.empty_like(noise)
    for kind, function in enumerate(_PATTERNS):
        rows = torch.nonzero(ground.kind == kind).flatten()
        if len(rows):
            pattern[rows] = function(select(ground, rows), noise[rows], x, y)
    share = pattern.mul_(ground.contrast[:, None, None]).add_(noise * ground.roughness[:, None, None])
    share.clamp_(-0.3, 1.3)
    # Light too varies with the noise, so that no two colours ever make a flat wall.
    tint = fractal(ground.seeds[:, 1], len(x), ground.fall, octaves_left_out=2)
    tint *= ground.tint[:, None, None]
    shade = noise * (ground.roughness * 0.3)[:, None, None]
    first, second = ground.colours[:, :, :, None, None].unbind(1)
    for channel, light in enumerate((shade + tint, shade, shade - tint)):
        colour = torch.mul(share, (second - first)[:, channel], out=canvas[:, channel])
        colour += light
        colour += first[:, channel]
    return noise


def _colour(random: RandomStream) -> Tensor:
    """A natural colour, or sometimes a sign's paint, darker or lighter: [n, 3]."""
    palette = torch.cat([_WORLD, _WORLD, PAINTS])
    base = palette[random.integers(len(palette))]
    light = random.uniform(0.55, 1.2)[:, None]
    return base * light + random.uniform(-0.08, 0.08, 3)


def _pattern_coordinates(ground: Ground, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates in the pattern's own frame, in pitches: two of [n, size, size]."""
    c, s = (ground.heading / ground.pitch[:, None])[:, :, None, None].unbind(1)
    x, y = x[None, None, :], y[None, :, None]
    return c * x + s * y + ground.phase[:, :1, None], c * y - s * x + ground.phase[:, 1:, None]


def _flat(ground: Ground, noise: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.full_like(noise, 0.5)


def _gradient(ground: Ground, noise: Tensor, x: Tensor, y: Tensor) -> Tensor:
    c, s = ground.heading[:, :, None, None].unbind(1)
    return (c * x[None, None, :] + s * y[None, :, None]) * 0.4 + 0.5


def _wave(at: Tensor, sharpness: float) -> Tensor:
    """Between 0 and 1 and back once a unit, with edges that are soft over 1 / sharpness."""
    return (((at - at.floor() - 0.5).abs() - 0.25) * (2 * sharpness)).add_(0.5).clamp_(0, 1)


def _stripes(ground: Ground, noise: Tensor, x: Tensor, y: Tensor) -> Tensor:
    along, _ = _pattern_coordinates(ground, x, y)
    return _wave(along, 4.0)


def _checks(ground: Ground, noise: Tensor, x: Tensor, y: Tensor) -> Tensor:
    along, across = _pattern_coordinates(ground, x, y)
    a, b = _wave(along * 0.5, 8.0), _wave(across * 0.5, 8.0)
    return a + b - 2 * a * b


def _bricks(ground: Ground, noise: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Courses of bricks with mortar between, upright as walls are; each brick in its own shade."""
    row = y[None, :, None] / (ground.pitch * 0.6)[:, None, None] + ground.phase[:, 1:, None]
    course = row.floor()
    column = x[None, None, :] / (ground.pitch * 1.4)[:, None, None] + ground.phase[:, :1, None]
    column = column + course * 0.5
    brick = column.floor()
    joint = torch.minimum((0.5 - (row - course - 0.5).abs()) * 0.43, 0.5 - (column - brick - 0.5).abs())
    scatter = brick * 0.618 + course * 0.414
    shade = (scatter - scatter.floor()) * 0.35
    return ((joint - 0.035) * 30).clamp_(0, 1) * (0.65 + shade)


def _horizon(ground: Ground, noise: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """One thing above, another below, and a rough line (trees, roofs) between them."""
    line = (ground.phase[:, 0] * 1.2 - 0.5)[:, None, None]
    return ((y[None, :, None] - line + noise * 0.25) * 12 + 0.5).clamp_(0, 1)


_PATTERNS = (_flat, _gradient, _stripes, _checks, _bricks, _horizon)
