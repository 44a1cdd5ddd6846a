"""The threat model, written once: what an attacker may do to an image, in the Linf and in the L2 norm.

A ball belongs to a batch of images: `ball = around(images, "linf", 8 / 255)`; `ball[rows]` belongs to some of
them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vitrine.core.random_numbers import fold_in, normal, uniform

SLACK = 1e-6  # relative: how far beyond eps the rounding of float32 pixels may lead


class Linf:
    """|x' - x| <= eps in every pixel, and 0 <= x' <= 1."""

    def __init__(self, images: Tensor, eps: float, bounds: tuple[Tensor, Tensor] | None = None):
        self.images, self.eps = images, eps
        # x - eps is rounded, by as much as small budgets' slack: where it came out too far, take the next
        # number towards x. Clamping to these bounds is then exact, and one kernel.
        self.lower, self.upper = bounds or (
            _no_further(images - eps, images, eps).clamp_(min=0),
            _no_further(images + eps, images, eps).clamp_(max=1),
        )

    def __getitem__(self, rows: Tensor) -> Linf:
        return Linf(self.images[rows], self.eps, (self.lower[rows], self.upper[rows]))

    def project(self, points: Tensor) -> Tensor:
        """The nearest allowed images."""
        return torch.clamp(points, self.lower, self.upper)

    def step(self, points: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """A step of steepest ascent of this size (a number, or one an image), projected."""
        return torch.clamp(points + size * gradient.sign(), self.lower, self.upper)

    def start(self, keys: Tensor) -> Tensor:
        """Allowed images, uniformly drawn from the ball and clipped to [0, 1]."""
        noise = uniform(keys, *self.images.shape[1:]).to(self.images.dtype)
        return self.project(self.images + (2 * noise - 1) * self.eps)

    @staticmethod
    def size(perturbations: Tensor) -> Tensor:
        """The norm of each perturbation, [N]."""
        return perturbations.flatten(1).abs().amax(1)


class L2:
    """|x' - x|_2 <= eps over all pixels and channels, and 0 <= x' <= 1."""

    def __init__(self, images: Tensor, eps: float):
        self.images, self.eps = images, eps

    def __getitem__(self, rows: Tensor) -> L2:
        return L2(self.images[rows], self.eps)

    def project(self, points: Tensor) -> Tensor:
        """The nearest points of the ball, then of [0, 1]; the latter never leads out of the ball."""
        perturbations = points - self.images
        sizes = _spread(self.size(perturbations), points)
        # the sums are rounded, every pixel by up to a quarter of the type's eps: aim that much inside
        rounding = torch.finfo(points.dtype).eps / 4 * math.prod(self.images.shape[1:]) ** 0.5
        radius = max(self.eps * (1 - SLACK) - rounding, 0.0)
        return (self.images + perturbations * (radius / sizes.clamp(min=1e-30)).clamp(max=1)).clamp_(0, 1)

    def step(self, points: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """A step of steepest ascent of this size (a number, or one an image), projected."""
        # largest entry first: squares of tiny gradients would underflow
        gradient = gradient / _spread(Linf.size(gradient), points).clamp(min=1e-30)
        return self.project(points + size * gradient / _spread(self.size(gradient), points).clamp(min=1e-30))

    def start(self, keys: Tensor) -> Tensor:
        """Allowed images, uniformly drawn from the ball and clipped to [0, 1]."""
        shape = self.images.shape[1:]
        directions = normal(keys, *shape).to(self.images.dtype)
        radii = uniform(fold_in(keys, 1), 1).to(self.images.dtype)[:, 0] ** (1 / shape.numel())
        scale = self.eps * radii / self.size(directions).clamp(min=1e-30)
        return self.project(self.images + directions * _spread(scale, directions))

    @staticmethod
    def size(perturbations: Tensor) -> Tensor:
        """The norm of each perturbation, [N]."""
        return torch.linalg.vector_norm(perturbations.flatten(1), dim=1)


NORMS = {"linf": Linf, "l2": L2}


def around(images: Tensor, norm: str, eps: float) -> Linf | L2:
    """The images that may stand for these: in the ball of radius eps, in [0, 1]."""
    return NORMS[norm](images, eps)


def violations(images: Tensor, adversarial: Tensor, norm: str, eps: float | None) -> Tensor:
    """Which images are not allowed, bool [N]: |x' - x| > eps (1 + 1e-6), outside [0, 1], or NaN."""
    out = ~((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(1)
    if eps is None:
        return out
    return out | ~(NORMS[norm].size(adversarial.double() - images.double()) <= eps * (1 + SLACK))


def _no_further(points: Tensor, images: Tensor, eps: float) -> Tensor:
    return torch.where((points - images).abs() > eps, torch.nextafter(points, images), points)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """One number an image, shaped to multiply images."""
    return values.view(-1, *[1] * (like.ndim - 1))
