"""What Square tries: how it begins, and how one query changes an image, in Linf and in L2.

Every image has its own squares, drawn from its own numbers, so that its result does not depend on its batch.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from vitrine.attacks.threat import L2, Linf
from vitrine.core.random_numbers import uniform


def numbers(channels: int) -> int:
    """How many uniform numbers a query takes: two corners, a transposition, two signs a channel."""
    return 5 + channels


def side(share: float, height: int, width: int, least: int = 1) -> int:
    """Pixels along a square that covers this share of the image."""
    return min(max(round(math.sqrt(share * height * width)), least), height, width)


def stripes(ball: Linf, keys: Tensor) -> Tensor:
    """Vertical stripes of +-eps, a sign for each column and channel."""
    _, channels, _, width = ball.images.shape
    return ball.project(ball.images + ball.eps * _signs(uniform(keys, channels, 1, width), ball.images))


def flip(ball: Linf, points: Tensor, share: float, uniform: Tensor) -> Tensor:
    """One square at +-eps, a sign for each channel."""
    height, width = points.shape[2:]
    inside = _inside(uniform[:, 0], uniform[:, 1], side(share, height, width), height, width)
    signs = _signs(uniform[:, 5:, None, None], points)
    return torch.where(inside, ball.project(ball.images + ball.eps * signs), points)


def tiles(ball: L2, keys: Tensor) -> Tensor:
    """A grid of five by five bumps, a sign for each and for each channel, of norm eps in all."""
    count, channels, height, width = ball.images.shape
    bump_side = max(min(height, width) // 5, 1)
    across, down = width // bump_side, height // bump_side
    bumps = _bump(bump_side).to(ball.images)
    signs = _signs(uniform(keys, channels, down, across), ball.images)
    grid = torch.einsum("ncij,hw->ncihjw", signs, bumps).reshape(
        count, channels, down * bump_side, across * bump_side
    )
    top, left = (height - grid.shape[2]) // 2, (width - grid.shape[3]) // 2
    change = torch.zeros_like(ball.images)
    change[:, :, top : top + grid.shape[2], left : left + grid.shape[3]] = grid
    return _at_radius(ball, change)


def shift(ball: L2, points: Tensor, share: float, uniform: Tensor) -> Tensor:
    """The change within one square moved into another, as a bump, together with what is left of eps."""
    _, channels, height, width = points.shape
    length = side(share, height, width, least=3)
    if length % 2 == 0:
        length += 1 if length < min(height, width) else -1
    change = points - ball.images
    here = _inside(uniform[:, 0], uniform[:, 1], length, height, width)
    there = _inside(uniform[:, 2], uniform[:, 3], length, height, width)
    spent = change.square().sum((1, 2, 3), keepdim=True)
    in_both = (change * (here | there)).square().sum((2, 3), keepdim=True)
    left = (ball.eps**2 - spent).clamp(min=0) / channels
    # the new bump, laid where the first square is, with a share of the old pattern
    old = change * here
    old = old / old.square().sum((2, 3), keepdim=True).sqrt().clamp(min=1e-12)
    bump = _bump(length).to(points)
    bump = torch.where((uniform[:, 4] < 0.5).view(-1, 1, 1), bump.T, bump)[:, None]
    signs = _signs(uniform[:, 5:, None, None], points)
    new = old + _placed(bump, uniform[:, 0], uniform[:, 1], height, width) * signs
    new = new / new.square().sum((2, 3), keepdim=True).sqrt().clamp(min=1e-12) * (in_both + left).sqrt()
    return _at_radius(ball, torch.where(here, new, change * ~there))


def _signs(uniform: Tensor, like: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0).to(like.dtype)


def _inside(down: Tensor, right: Tensor, length: int, height: int, width: int) -> Tensor:
    """Where a square with a random corner is, bool [N, 1, H, W]."""
    top, left = _corner(down, height - length), _corner(right, width - length)
    rows, columns = torch.arange(height, device=down.device), torch.arange(width, device=down.device)
    in_rows = (rows >= top[:, None]) & (rows < top[:, None] + length)
    in_columns = (columns >= left[:, None]) & (columns < left[:, None] + length)
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]


def _corner(uniform: Tensor, most: int) -> Tensor:
    return (uniform * (most + 1)).long().clamp(max=most)


def _placed(patterns: Tensor, down: Tensor, right: Tensor, height: int, width: int) -> Tensor:
    """Patterns [N, 1, s, s] laid into images of zeros at random corners, [N, 1, H, W]."""
    length = patterns.shape[-1]
    top, left = _corner(down, height - length), _corner(right, width - length)
    rows = torch.arange(height, device=down.device) - top[:, None]
    columns = torch.arange(width, device=down.device) - left[:, None]
    picked = patterns.expand(len(down), -1, -1, -1)[
        torch.arange(len(down), device=down.device)[:, None, None],
        0,
        rows.clamp(0, length - 1)[:, :, None],
        columns.clamp(0, length - 1)[:, None, :],
    ][:, None]
    return picked * _inside(down, right, length, height, width)


def _at_radius(ball: L2, change: Tensor) -> Tensor:
    size = change.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
    return ball.project(ball.images + change / size * ball.eps)


@functools.cache
def _bump(length: int) -> Tensor:
    """A wavelet's half or the whole of it, as the side allows, of norm 1, [s, s]."""
    return _wavelet(length) if length > 1 else torch.ones(1, 1)


@functools.cache
def _wavelet(length: int) -> Tensor:
    """A positive bump above a negative one, of norm 1, [s, s]."""
    half = length // 2
    both = torch.cat([_pyramid(half, length), -_pyramid(length - half, length)])
    return both / both.norm()


def _pyramid(height: int, width: int) -> Tensor:
    """Rectangles around the middle, the k-th weighing 1 / k^2, of norm 1, [h, w]."""
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    ring = torch.maximum(rows[:, None], columns)
    most = max(height // 2, width // 2) + 1
    weights = 1 / torch.arange(1, most + 1, dtype=torch.float32) ** 2
    falls = weights.flip(0).cumsum(0).flip(0)  # a pixel lies in every rectangle from its own ring on
    value = falls[ring.clamp(max=most - 1)] * (ring < most)
    return value / value.norm()
