"""Conjugate gradients: linear systems of which only products with the matrix are known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, tolerance: float = 1e-10, steps: int = 2000
) -> Tensor:
    """The solutions x of A x = b for several right-hand sides at once, each with its own step sizes.

    Args:
        product: [m, ...] -> A times each of them; A is symmetric and positive definite.
        right: [m, ...], float64.
        tolerance: a system is solved once its residual's norm is this share of the right-hand side's.
        steps: at most so many.

    Raises:
        ValueError: it is not solved after so many steps.

    Source: Hestenes and Stiefel 1952.
    """
    each = (slice(None), *[None] * (right.ndim - 1))
    within = tuple(range(1, right.ndim))
    x, residual, direction = torch.zeros_like(right), right.clone(), right.clone()
    squared = residual.square().sum(within)
    goal = tolerance**2 * squared
    active = squared > goal
    for _ in range(steps):
        if not active.any():
            return x
        rows = active.nonzero()[:, 0]
        along = direction[rows]
        curved = product(along)
        step = squared[rows] / (along * curved).sum(within)
        x[rows] += step[each] * along
        residual[rows] -= step[each] * curved
        now = residual[rows].square().sum(within)
        direction[rows] = residual[rows] + (now / squared[rows])[each] * along
        squared[rows] = now
        active = squared > goal
    if active.any():
        worst = (squared / right.square().sum(within)).max().sqrt().item()
        raise ValueError(f"conjugate gradients are not done after {steps} steps: residual {worst:.1e}")
    return x
