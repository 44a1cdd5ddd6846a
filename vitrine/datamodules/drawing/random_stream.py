"""Random numbers for every image of a batch, one after another."""

import torch
from torch import Tensor

from vitrine.core.random_numbers import fold_in, uniform

_BLOCK = 24  # numbers computed at once


class RandomStream:
    """A sequence of random numbers for each image, a function of `key` and the image's index (int64, [n])."""

    def __init__(self, key: int, indices: Tensor):
        self.keys = fold_in(torch.tensor(key), indices)
        self._numbers, self._used = uniform(self.keys, _BLOCK), 0

    def uniform(self, low: float, high: float, count: int | None = None) -> Tensor:
        """Uniform in [low, high): float32, [n], or [n, count]."""
        numbers = self._next(count or 1) * (high - low) + low
        return numbers if count else numbers[:, 0]

    def bernoulli(self, probability: float) -> Tensor:
        """True with that probability: bool, [n]."""
        return self.uniform(0, 1) < probability

    def integers(self, count: int) -> Tensor:
        """An integer in [0, count) for each image: int64, [n]."""
        return self.uniform(0, count).long().clamp_(max=count - 1)  # rounding may reach count

    def unit_vector(self) -> Tensor:
        """A unit vector for each image: float32, [n, 2]. (A sine's bits would depend on the batch.)"""
        half_tangent, flip = self.uniform(-1, 1), torch.where(self.bernoulli(0.5), 1.0, -1.0)
        return rotation(half_tangent) * flip[:, None]

    def bits(self) -> Tensor:
        """32 random bits for each image: int32, [n]."""
        high, low = (self.uniform(0, 1, 2) * (1 << 16)).long().unbind(1)
        return ((high << 16 | low) - (1 << 31)).int()

    def _next(self, count: int) -> Tensor:
        self._used += count
        if self._used > self._numbers.shape[1]:
            self._numbers = uniform(self.keys, self._used + _BLOCK)
        return self._numbers[:, self._used - count : self._used]


def rotation(half_tangent: Tensor) -> Tensor:
    """The cosine and sine of an angle from the tangent of its half: [...] -> [..., 2]."""
    square = half_tangent * half_tangent
    return torch.stack([(1 - square) / (1 + square), 2 * half_tangent / (1 + square)], dim=-1)
