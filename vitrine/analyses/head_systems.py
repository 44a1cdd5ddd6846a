"""Linear systems with the second derivatives of a head's objective, by products in float32.

They are a mean over images of `(diag(p) - p p') (x) phi phi'`, and the penalty. The product of the two means,
those of the second factors weighted by the traces of the first, is near them, and its eigenvectors are those
of two small matrices (Martens and Grosse 2015). Scaled by it, a system takes a half to a tenth of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vitrine.analyses.conjugate_gradients import conjugate_gradients

if TYPE_CHECKING:
    from vitrine.analyses.head_fit import Hessian

_STEPS = {torch.float32: 100, torch.float64: 2000}
_ROUND = {torch.float32: 1e-5, torch.float64: 1e-10}  # what may be left after a round


@dataclass(frozen=True)
class Kronecker:
    """The inverse square root of `S (x) F + penalty`, near which the second derivatives are the identity."""

    classes: Tensor  # eigenvectors of S in columns, [K, K]
    features: Tensor  # of F, [D, D]
    scales: Tensor  # [K, D]

    @classmethod
    def of(cls, hessian: Hessian) -> Kronecker:
        """The one nearest to second derivatives, in their precision."""
        classes, width = hessian.weight.shape
        sums = hessian.weight.new_zeros(classes**2 + width**2 + 1)
        spread, second, total = sums.split([classes**2, width**2, 1])
        spread, second = spread.view(classes, classes), second.view(width, width)
        for features, p in hessian.blocks():
            traces = 1 - p.square().sum(1)
            spread -= p.T @ p
            spread.diagonal().add_(p.sum(0))
            second += (traces[:, None] * features).T @ features
            total += traces.sum()
        sums = hessian.problem.features.total(sums)
        spread, second, total = sums.split([classes**2, width**2, 1])
        of_classes, s = _eigenvectors(spread.view(classes, classes) / hessian.problem.features.count)
        of_features, f = _eigenvectors(second.view(width, width) / total.clamp_min(1e-30))
        return cls(of_classes, of_features, (s[:, None] * f + hessian.problem.penalty).rsqrt())

    def scale(self, tensors: Tensor) -> Tensor:
        """The transpose of the root times each of [m, K, D]."""
        return (self.classes.T @ tensors @ self.features).mul_(self.scales)

    def unscale(self, scaled: Tensor) -> Tensor:
        """The root times each of [m, K, D]."""
        return self.classes @ (scaled * self.scales) @ self.features.T


def _eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors, values.clamp_min(0)


class Systems:
    """Systems with second derivatives, solved in their precision."""

    def __init__(self, hessian: Hessian):
        self.hessian, self.kronecker = hessian, Kronecker.of(hessian)

    def solve(self, right: Tensor, tolerance: float) -> Tensor:
        """About the inverse times each of [m, K, D], float64.

        Args:
            tolerance: the share of each right-hand side that may be left, both scaled by the Kronecker
                product; rounding adds to it.
        """
        dtype, root = self.hessian.weight.dtype, self.kronecker
        sizes = right.norm(dim=(1, 2), keepdim=True).clamp_min(1e-300)  # float32 ends at 1e-38

        def product(scaled: Tensor) -> Tensor:
            return root.scale(self.hessian(root.unscale(scaled)))

        unit = torch.div(right, sizes, out=right.new_empty(right.shape, dtype=dtype))
        found = conjugate_gradients(product, root.scale(unit), tolerance, _STEPS[dtype])
        return root.unscale(found).double().mul_(sizes)


def solve(exact: Hessian, right: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """The inverse of second derivatives times each of [m, K, D], and the residuals, both float64.

    Solved in float32, and what float64 finds to be left again; in float64 alone where float32 will not do.

    Args:
        exact: in float64.
        tolerance: a system is solved once its residual's norm is this share of the right-hand side's.

    Raises:
        ValueError: that is not reached.
    """
    goals = tolerance * right.norm(dim=(1, 2)).clamp_min(1e-300)
    for dtype in (torch.float32, torch.float64):
        systems = Systems(exact.to(dtype))
        x, residuals, before = torch.zeros_like(right), right, torch.inf
        while True:
            left = residuals.norm(dim=(1, 2)) / goals
            unsolved = ~(left <= 1)
            if not unsolved.any():
                return x, residuals
            worst = left.max().item()
            if not worst < before / 2:
                break
            before = worst
            x[unsolved] += systems.solve(residuals[unsolved], max(_ROUND[dtype], 0.3 / worst))
            residuals = exact(x).neg_().add_(right)
    raise ValueError(f"conjugate gradients do not reach {tolerance:g}: {worst * tolerance:.1e} is left")
