"""The proposals of Square: its initial points, and what one query changes in an image, in Linf and in L2.

Every image has its own squares, from its own random numbers: its result does not depend on its batch.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from vitrine.attacks.patch import Patch, rectangles
from vitrine.attacks.threat import L2, Linf
from vitrine.core.random_numbers import uniform

FIXED_NUMBERS = 5  # uniform numbers that a query takes beside a sign a channel: two corners, a transposition


def square_side(share: float, height: int, width: int, least: int = 1) -> int:
    """Pixels along a square that covers this share of the image."""
    return min(max(round(math.sqrt(share * height * width)), least), height, width)


def initial_stripes(ball: Linf, keys: Tensor) -> Tensor:
    """Vertical stripes of +-eps, a sign for each column and channel."""
    _, channels, _, width = ball.images.shape
    return ball.project(ball.images + ball.eps * _signs(uniform(keys, channels, 1, width), ball.images))


def square_linf(ball: Linf, points: Tensor, share: float, numbers: Tensor) -> Patch:
    """One square at +-eps, a sign for each channel."""
    count, channels, height, width = points.shape
    side = square_side(share, height, width)
    top, left = _corner(numbers[:, 0], side, height), _corner(numbers[:, 1], side, width)
    square = rectangles(torch.arange(count, device=points.device), channels, top, left, side, side)
    # the ball's bounds are the image moved by eps and projected; only the square is computed
    upwards = numbers[:, 5:, None, None] >= 0.5
    return Patch(torch.where(upwards, ball.upper[square], ball.lower[square]), top, left)


def initial_tiles(ball: L2, keys: Tensor) -> Tensor:
    """A grid of five by five bumps, a sign for each and for each channel, of norm eps in all."""
    count, channels, height, width = ball.images.shape
    side = max(min(height, width) // 5, 1)
    across, down = width // side, height // side
    bumps = _bump(side).to(ball.images)
    signs = _signs(uniform(keys, channels, down, across), ball.images)
    grid = torch.einsum("ncij,hw->ncihjw", signs, bumps).reshape(count, channels, down * side, across * side)
    top, left = (height - grid.shape[2]) // 2, (width - grid.shape[3]) // 2
    change = torch.zeros_like(ball.images)
    change[:, :, top : top + grid.shape[2], left : left + grid.shape[3]] = grid
    return _scale_to_eps(ball, change)


def square_l2(ball: L2, points: Tensor, share: float, numbers: Tensor) -> Patch:
    """The perturbation within one square moved into another, as a bump, with the rest of the budget."""
    _, channels, height, width = points.shape
    length = square_side(share, height, width, least=3)
    if length % 2 == 0:
        length += 1 if length < min(height, width) else -1
    change = points - ball.images
    first = _square_mask(numbers[:, 0], numbers[:, 1], length, height, width)
    second = _square_mask(numbers[:, 2], numbers[:, 3], length, height, width)
    used = change.square().sum((1, 2, 3), keepdim=True)
    in_both = (change * (first | second)).square().sum((2, 3), keepdim=True)
    left = (ball.eps**2 - used).clamp(min=0) / channels
    # the new bump, placed in the first square, with a share of the old pattern
    old = change * first
    old = old / old.square().sum((2, 3), keepdim=True).sqrt().clamp(min=1e-12)
    bump = _bump(length).to(points)
    bump = torch.where((numbers[:, 4] < 0.5).view(-1, 1, 1), bump.T, bump)[:, None]
    signs = _signs(numbers[:, 5:, None, None], points)
    placed = torch.zeros_like(points[:, :1]).masked_scatter(first, bump.expand(len(points), -1, -1, -1))
    new = old + placed * signs
    new = new / new.square().sum((2, 3), keepdim=True).sqrt().clamp(min=1e-12) * (in_both + left).sqrt()
    return Patch.whole(_scale_to_eps(ball, torch.where(first, new, change * ~second)))


def _signs(numbers: Tensor, like: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0).to(like.dtype)


def _corner(numbers: Tensor, length: int, size: int) -> Tensor:
    """Where a square begins along a side of the image, int64 [N], from uniform numbers [N]."""
    return (numbers * (size - length + 1)).long().clamp(max=size - length)


def _square_mask(down: Tensor, right: Tensor, length: int, height: int, width: int) -> Tensor:
    """Where a square with a random corner is, bool [N, 1, H, W]."""
    top, left = _corner(down, length, height), _corner(right, length, width)
    rows, columns = torch.arange(height, device=down.device), torch.arange(width, device=down.device)
    in_rows = (rows >= top[:, None]) & (rows < top[:, None] + length)
    in_columns = (columns >= left[:, None]) & (columns < left[:, None] + length)
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]


def _scale_to_eps(ball: L2, change: Tensor) -> Tensor:
    size = change.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
    return ball.project(ball.images + change / size * ball.eps)


@functools.cache
def _bump(length: int) -> Tensor:
    """A positive pyramid above a negative one, of norm 1, [s, s] (the paper's h)."""
    if length == 1:
        return torch.ones(1, 1)
    half = length // 2
    both = torch.cat([_pyramid(half, length), -_pyramid(length - half, length)])
    return both / both.norm()


def _pyramid(height: int, width: int) -> Tensor:
    """The sum of rectangles around the middle, the k-th of weight 1 / k^2, of norm 1, [h, w]."""
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    ring = torch.maximum(rows[:, None], columns)
    most = max(height // 2, width // 2) + 1
    weights = 1 / torch.arange(1, most + 1, dtype=torch.float32) ** 2
    heights = weights.flip(0).cumsum(0).flip(0)  # a pixel lies in every rectangle from its own ring on
    value = heights[ring.clamp(max=most - 1)] * (ring < most)
    return value / value.norm()


OF_NORM = {"linf": (initial_stripes, square_linf), "l2": (initial_tiles, square_l2)}
