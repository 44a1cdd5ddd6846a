"""Random numbers for every image of a batch, taken one after another."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrine.core.random_numbers import fold_in, uniform

_BLOCK = 24  # numbers drawn at once


class Dice:
    """A row of random numbers for each image: a row depends on `key` and the image's own index only.

    Args:
        key: what the numbers are for.
        indices: int64, [n].
    """

    def __init__(self, key: int, indices: Tensor):
        self.keys = fold_in(torch.tensor(key), indices)
        self.drawn, self.taken = uniform(self.keys, _BLOCK), 0

    def between(self, low: float, high: float, count: int | None = None) -> Tensor:
        """Uniform in [low, high): float32, [n], or [n, count]."""
        numbers = self._next(count or 1) * (high - low) + low
        return numbers if count else numbers[:, 0]

    def chance(self, share: float) -> Tensor:
        """True for about that share of the images: bool, [n]."""
        return self.between(0, 1) < share

    def one_of(self, count: int) -> Tensor:
        """An integer in [0, count) for each image: int64, [n]."""
        return self.between(0, count).long().clamp_(max=count - 1)  # rounding may reach count

    def heading(self) -> Tensor:
        """A unit vector for each image: float32, [n, 2]. (A sine's bits would depend on the batch.)"""
        half_tangent, flip = self.between(-1, 1), torch.where(self.chance(0.5), 1.0, -1.0)
        return turned(half_tangent) * flip[:, None]

    def words(self) -> Tensor:
        """32 random bits for each image: int32, [n]."""
        high, low = (self.between(0, 1, 2) * (1 << 16)).long().unbind(1)
        return ((high << 16 | low) - (1 << 31)).int()

    def _next(self, count: int) -> Tensor:
        self.taken += count
        if self.taken > self.drawn.shape[1]:
            self.drawn = uniform(self.keys, self.taken + _BLOCK)
        return self.drawn[:, self.taken - count : self.taken]


def turned(half_tangent: Tensor) -> Tensor:
    """The cosine and sine of an angle from the tangent of its half: [...] -> [..., 2]."""
    square = half_tangent * half_tangent
    return torch.stack([(1 - square) / (1 + square), 2 * half_tangent / (1 + square)], dim=-1)
