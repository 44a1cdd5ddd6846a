"""L-BFGS in the pixel box, many problems at once, each on its own path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_TRIALS = 12  # halvings of a step
_DECREASE = 1e-4  # share of the promised decrease that must come true (Armijo 1966)


def minimize(objective: Objective, start: Tensor, steps: int, memory: int) -> Tensor:
    """Where each objective is smallest in [0, 1], [N, C, H, W], by projected L-BFGS (Liu & Nocedal 1989).

    Coordinates at a bound whose gradient points outwards stay; the others follow the quasi-Newton direction
    along the projected path, halving the step until the objective falls enough.

    Args:
        objective: points [n, C, H, W] and which problems they are of (int64 [n]) -> values [n] and gradients.
        start: in [0, 1].
        steps: at most so many steps; a problem whose steps fail, or that is solved, stays.
        memory: pairs of steps and gradient changes kept.
    """
    points, rows = start.clone(), torch.arange(len(start), device=start.device)
    values, gradient = objective(points, rows)
    shape, pairs = start.shape[1:], []
    moving = torch.ones_like(rows, dtype=torch.bool)
    for _ in range(steps):
        flat, slope = points.flatten(1), gradient.flatten(1)
        free = ~(((flat <= 0) & (slope > 0)) | ((flat >= 1) & (slope < 0)))
        downhill = -slope * free
        direction = _two_loops(slope * free, pairs) * free
        uphill = (direction * slope).sum(1) >= 0
        direction = torch.where(uphill[:, None], downhill, direction)
        if not pairs:  # no curvature known yet: one pixel range in all at most
            direction = direction / direction.abs().sum(1, keepdim=True).clamp(min=1.0)
        moved, new_values, new_gradient = points, values, gradient
        waiting = (moving & (downhill.abs().amax(1) > 1e-7)).nonzero()[:, 0]
        size = 1.0
        for _ in range(_TRIALS):
            if not len(waiting):
                break
            tried = (flat[waiting] + size * direction[waiting]).clamp(0, 1)
            promised = ((tried - flat[waiting]) * slope[waiting]).sum(1)
            value, its = objective(tried.view(-1, *shape), rows[waiting])
            good = value <= values[waiting] + _DECREASE * promised
            at = waiting[good]
            moved = moved.index_copy(0, at, tried[good].view(-1, *shape))
            new_values = new_values.index_copy(0, at, value[good].to(values.dtype))
            new_gradient = new_gradient.index_copy(0, at, its[good])
            waiting, size = waiting[~good], size / 2
        step, change = (moved - points).flatten(1), (new_gradient - gradient).flatten(1)
        moving &= step.any(1)  # whoever stands stays: its later directions would depend on the others' pairs
        if not moving.any():
            break
        pairs = [*pairs, _pair(step, change)][-memory:]
        points, values, gradient = moved, new_values, new_gradient
    return points


def _pair(step: Tensor, change: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A pair with 1 / <y, s> and the scale <y, s> / |y|^2: both 0 where the curvature is not positive."""
    curvature = (step * change).sum(1, keepdim=True)
    size = change.square().sum(1, keepdim=True)
    good = curvature > 1e-10 * size
    inverse = torch.where(good, 1 / curvature, 0)
    scale = torch.where(good, curvature / size.clamp(min=1e-30), 0)
    return step, change, inverse, scale


def _two_loops(slope: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Tensor:
    """-H slope, [N, D], with H the inverse Hessian that the pairs tell of."""
    q, weights = slope.clone(), []
    scale = torch.zeros_like(slope[:, :1])
    for step, change, inverse, newest in reversed(pairs):
        weights.append(weight := inverse * (step * q).sum(1, keepdim=True))
        q = q - weight * change
        scale = torch.where(scale > 0, scale, newest)
    q = q * torch.where(scale > 0, scale, 1)
    for (step, change, inverse, _), weight in zip(pairs, reversed(weights)):
        q = q + step * (weight - inverse * (change * q).sum(1, keepdim=True))
    return -q
