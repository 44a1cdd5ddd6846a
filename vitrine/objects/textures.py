"""Textures that carry a class: eight patterns, each in two colours of its own, at any angle and size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitrine.core.random_numbers import uniform

SIZE = 128  # texels a side
SCATTER = 0.12  # of colours, either way
SHARPNESS = 6.0  # of edges: soft over a sixth of a cell, so that a texture is not cut into texels


def class_textures(keys: Tensor, labels: Tensor, size: int = SIZE) -> Tensor:
    """A texture [N, 3, size, size] in [0, 1] for each key and class of CLASSES, int64 [N] each."""
    numbers = uniform(keys, 12)
    half_tangent, cells = numbers[:, 0] * 2 - 1, 3.2 + 1.3 * numbers[:, 1]
    square = half_tangent * half_tangent
    cos, sin = (1 - square) / (1 + square), 2 * half_tangent / (1 + square)  # within a right angle either way
    along = (torch.arange(size) + 0.5) / size
    u, v = 2 * along[None, None, :], along.flip(0)[None, :, None]  # a texture goes round an object
    cos, sin = ((turn * cells)[:, None, None] for turn in (cos, sin))
    p = cos * u + sin * v + numbers[:, 2, None, None]
    q = cos * v - sin * u + numbers[:, 3, None, None]
    share = torch.empty_like(p)
    for label, pattern in enumerate(_PATTERNS.values()):
        rows = (labels == label).nonzero()[:, 0]
        if len(rows):
            share[rows] = (pattern(p[rows], q[rows]) * SHARPNESS + 0.5).clamp(0, 1)
    colours = torch.tensor(list(_COLOURS.values()))[labels]  # [N, 2, 3]
    colours = (colours + (numbers[:, 4:10].view(-1, 2, 3) * 2 - 1) * SCATTER).clamp(0, 1)
    ground, figure = colours.unbind(1)
    return ground[:, :, None, None] + share[:, None] * (figure - ground)[:, :, None, None]


def _cell(at: Tensor) -> Tensor:
    """The place within a cell, from -0.5 to 0.5."""
    return at - at.floor() - 0.5


def _stripes(p: Tensor, q: Tensor) -> Tensor:
    return 0.25 - _cell(p).abs()


def _zigzag(p: Tensor, q: Tensor) -> Tensor:
    return 0.25 - _cell(p + _cell(q).abs() * 1.4).abs()


def _checks(p: Tensor, q: Tensor) -> Tensor:
    a, b = (((0.25 - _cell(of).abs()) * SHARPNESS + 0.5).clamp(0, 1) for of in (p, q))
    return (a + b - 2 * a * b - 0.5) / SHARPNESS


def _bricks(p: Tensor, q: Tensor) -> Tensor:
    course = (2 * q).floor()
    joint = torch.minimum(0.5 * (0.5 - _cell(2 * q).abs()), 0.5 - _cell(p + course * 0.5).abs())
    return 0.09 - joint


def _dots(p: Tensor, q: Tensor) -> Tensor:
    return 0.28 - _radius(p, q)


def _rings(p: Tensor, q: Tensor) -> Tensor:
    return 0.1 - (_radius(p, q) - 0.33).abs()


def _crosses(p: Tensor, q: Tensor) -> Tensor:
    x, y = _cell(p).abs(), _cell(q).abs()
    arms = torch.minimum(0.11 - x, 0.42 - y), torch.minimum(0.11 - y, 0.42 - x)
    return torch.maximum(*arms)


def _triangles(p: Tensor, q: Tensor) -> Tensor:
    x, y = _cell(p).abs(), _cell(q)
    return torch.minimum(y + 0.4, (0.45 - y) * 0.52 - x)


def _radius(p: Tensor, q: Tensor) -> Tensor:
    x, y = _cell(p), _cell(q)
    return (x * x + y * y).sqrt()


_PATTERNS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "stripes": _stripes,
    "zigzag": _zigzag,
    "checks": _checks,
    "bricks": _bricks,
    "dots": _dots,
    "rings": _rings,
    "crosses": _crosses,
    "triangles": _triangles,
}
# ground and figure; several classes share one of them, none both
_COLOURS = {
    "stripes": ((0.90, 0.88, 0.82), (0.15, 0.15, 0.18)),
    "zigzag": ((0.18, 0.30, 0.65), (0.90, 0.88, 0.82)),
    "checks": ((0.75, 0.15, 0.15), (0.90, 0.88, 0.82)),
    "bricks": ((0.60, 0.32, 0.20), (0.62, 0.60, 0.56)),
    "dots": ((0.85, 0.72, 0.15), (0.15, 0.15, 0.18)),
    "rings": ((0.20, 0.50, 0.25), (0.85, 0.72, 0.15)),
    "crosses": ((0.45, 0.22, 0.55), (0.85, 0.60, 0.70)),
    "triangles": ((0.25, 0.60, 0.62), (0.75, 0.15, 0.15)),
}
CLASSES = list(_PATTERNS)
