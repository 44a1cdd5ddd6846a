"""What leaving a training image out would do to the last layer, to second order (Koh and Liang 2017).

Of a head that is stationary for `mean of loss_i + penalty / 2 * |W|^2` image i is left out by taking
`loss_i / n` from the objective: the minimum moves by `H^-1 g_i / n`, and the loss of a probe with gradient g
changes by `g' H^-1 g_i / n`. It rises without an image that speaks for the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.analyses.head_features import BLOCK
from vitrine.analyses.head_fit import HeadProblem, Hessian
from vitrine.analyses.head_systems import solve

DENSE = 2048  # weights up to which the matrix of second derivatives is kept and factorised: 32 MiB
_TOGETHER = 2**24  # numbers of the gradients that are worked on at once: 128 MiB

Solve = Callable[[Tensor], Tensor]
"""[m, K, D] -> H^-1 times each of them."""


@dataclass(frozen=True)
class Curvature:
    """The second derivatives at a refitted head, factorised or, beyond `DENSE` weights, as products alone.

    Args:
        factor: lower triangular [K * D, K * D], whose product with its transpose they are.
    """

    hessian: Hessian
    factor: Tensor | None

    @classmethod
    def at(cls, problem: HeadProblem, weight: Tensor, dense: int = DENSE) -> Curvature:
        """Those of a problem at weights [K, D]."""
        hessian = Hessian(problem, weight)
        small = weight.numel() <= dense
        return cls(hessian, torch.linalg.cholesky(hessian.dense()) if small else None)

    def solve(self, right: Tensor) -> Tensor:
        """The inverse times each of [m, K, D]."""
        if self.factor is None:
            return solve(self.hessian, right, tolerance=1e-8)[0]
        return torch.cholesky_solve(right.flatten(1).T, self.factor).T.reshape_as(right)


def leave_one_out(curvature: Curvature, probes: Tensor, errors: Tensor) -> Tensor:
    """By how much the loss of each probe rises when each training image of this rank is left out, [m, N].

    Args:
        probes: the probes' features [m, D], with the 1 for the bias if the head has one, float64.
        errors: `target - p` of each at the refitted head, [m, K].
    """
    problem, weight = curvature.hessian.problem, curvature.hessian.weight
    moved = curvature.solve(_outer(errors, probes)).flatten(0, 1)
    scores = probes.new_empty(len(probes), len(problem.features))
    together = max(1, BLOCK // len(moved))
    for rows, features in problem.features.blocks():
        residuals, found = problem.residuals(rows, features, weight), []
        for part, own in zip(features.split(together), residuals.split(together)):
            along = (part @ moved.T).view(len(part), len(probes), -1)
            found.append(torch.einsum("nmk,nk->mn", along, own))
        scores[:, rows] = torch.cat(found, 1)
    return scores / problem.features.count


def self_influence(curvature: Curvature, candidates: int) -> Tensor:
    """By how much the loss of each training image of this rank rises when it is left out itself, [N].

    Args:
        candidates: of how many images, where the second derivatives are not factorised: those with the
            largest gradients. NaN of the others.
    """
    problem, weight = curvature.hessian.problem, curvature.hessian.weight
    if curvature.factor is None:
        return _self_influence_of_candidates(curvature, candidates)
    scores = weight.new_empty(len(problem.features))
    together = max(1, _TOGETHER // weight.numel())
    for rows, features in problem.features.blocks():
        residuals = problem.residuals(rows, features, weight)
        for start in range(0, len(features), together):
            part = slice(start, start + together)
            gradients = _outer(residuals[part], features[part]).flatten(1)
            half = torch.linalg.solve_triangular(curvature.factor, gradients.T, upper=False)
            scores[rows][part] = half.square().sum(0)
    return scores / problem.features.count


def _self_influence_of_candidates(curvature: Curvature, candidates: int) -> Tensor:
    """Self-influence of the images of all ranks with the largest gradients; NaN of the others."""
    problem, weight = curvature.hessian.problem, curvature.hessian.weight
    store = problem.features
    norms = weight.new_empty(len(store))
    for rows, features in store.blocks():
        norms[rows] = problem.residuals(rows, features, weight).norm(dim=1) * features.norm(dim=1)
    chosen = store.gather(norms).argsort(descending=True, stable=True)[:candidates].sort().values
    scores = weight.new_full((len(store),), torch.nan)
    for part in chosen.split(max(1, _TOGETHER // weight.numel())):
        own = part[(part >= store.start) & (part < store.start + len(store))] - store.start
        features = store[own]
        gradients = _outer(problem.residuals(own, features, weight), features)
        every = store.gather(gradients).to(gradients)
        solved, left = solve(curvature.hessian, every, tolerance=1e-5)
        influence = ((every + left) * solved).sum((1, 2))  # off by left' H^-1 left
        scores[own] = influence[torch.isin(part, own + store.start)]
    return scores / store.count


def _outer(residuals: Tensor, features: Tensor) -> Tensor:
    """The gradients [n, K, D] of residuals [n, K] and features [n, D], up to their sign."""
    return residuals[:, :, None] * features[:, None, :]
