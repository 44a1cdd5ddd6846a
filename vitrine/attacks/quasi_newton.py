"""L-BFGS in the pixel box, many problems at once, each on its own path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_BACKTRACKS = 12  # step sizes tried, each half the one before
_DECREASE = 1e-4  # share of the predicted decrease that must come true (Armijo 1966)


def minimize(objective: Objective, start: Tensor, steps: int, memory: int) -> Tensor:
    """Where each objective is smallest in [0, 1], [N, C, H, W], by projected L-BFGS (Liu & Nocedal 1989).

    Coordinates at a bound whose gradient points outwards stay; the others follow the quasi-Newton direction
    along the projected path, with a backtracking line search.

    Args:
        objective: points [n, C, H, W] and which problems they are of (int64 [n]) -> values [n] and gradients.
        steps: at most so many steps; a problem whose line search fails, or that is solved, stays.
        memory: pairs of steps and gradient changes kept.
    """
    points, rows = start.clone(), torch.arange(len(start), device=start.device)
    values, gradient = objective(points, rows)
    shape, pairs = start.shape[1:], []
    active = torch.ones_like(rows, dtype=torch.bool)
    for _ in range(steps):
        flat, slope = points.flatten(1), gradient.flatten(1)
        free = ~(((flat <= 0) & (slope > 0)) | ((flat >= 1) & (slope < 0)))
        descent = -slope * free
        direction = _two_loop_recursion(slope * free, pairs) * free
        uphill = (direction * slope).sum(1) >= 0
        direction = torch.where(uphill[:, None], descent, direction)
        if not pairs:  # no curvature known yet: one pixel range in all at most
            direction = direction / direction.abs().sum(1, keepdim=True).clamp(min=1.0)
        new_points, new_values, new_gradient = points, values, gradient
        searching = (active & (descent.abs().amax(1) > 1e-7)).nonzero()[:, 0]
        step_size = 1.0
        for _ in range(_BACKTRACKS):
            if not len(searching):
                break
            trial = (flat[searching] + step_size * direction[searching]).clamp(0, 1)
            predicted = ((trial - flat[searching]) * slope[searching]).sum(1)
            trial_values, trial_gradient = objective(trial.view(-1, *shape), rows[searching])
            accepted = trial_values <= values[searching] + _DECREASE * predicted
            at = searching[accepted]
            new_points = new_points.index_copy(0, at, trial[accepted].view(-1, *shape))
            new_values = new_values.index_copy(0, at, trial_values[accepted].to(values.dtype))
            new_gradient = new_gradient.index_copy(0, at, trial_gradient[accepted])
            searching, step_size = searching[~accepted], step_size / 2
        step, change = (new_points - points).flatten(1), (new_gradient - gradient).flatten(1)
        # a problem that stays is over: its directions would depend on the others' pairs
        active &= step.any(1)
        if not active.any():
            break
        pairs = [*pairs, _pair(step, change)][-memory:]
        points, values, gradient = new_points, new_values, new_gradient
    return points


def _pair(step: Tensor, change: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A pair with 1 / <y, s> and the scale <y, s> / |y|^2: both 0 where the curvature is not positive."""
    curvature = (step * change).sum(1, keepdim=True)
    size = change.square().sum(1, keepdim=True)
    positive = curvature > 1e-10 * size
    inverse = torch.where(positive, 1 / curvature, 0)
    scale = torch.where(positive, curvature / size.clamp(min=1e-30), 0)
    return step, change, inverse, scale


def _two_loop_recursion(slope: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Tensor:
    """-H slope, [N, D], with H the approximation of the inverse Hessian from the pairs."""
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
