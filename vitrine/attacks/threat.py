"""The threat model: the perturbations that an attack may use, in the Linf and in the L2 norm.

A ball belongs to a batch of images: `ball = norm_ball(images, "linf", 8 / 255)`; `ball[rows]` belongs to some
of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vitrine.core.random_numbers import fold_in, normal, uniform
from vitrine.core.settings import setting

SLACK = 1e-6  # relative: how far beyond eps the rounding of float32 pixels may lead


class Linf:
    """|x' - x| <= eps in every pixel, and 0 <= x' <= 1."""

    def __init__(self, images: Tensor, eps: float, bounds: tuple[Tensor, Tensor] | None = None):
        self.images, self.eps = images, eps
        # x - eps is rounded, by as much as small budgets' slack: where it came out too far, take the next
        # number towards x. Clamping to these bounds is then exact, and one kernel.
        self.lower, self.upper = bounds or (
            _round_inwards(images - eps, images, eps).clamp_(min=0),
            _round_inwards(images + eps, images, eps).clamp_(max=1),
        )

    def __getitem__(self, rows: Tensor) -> Linf:
        return Linf(self.images[rows], self.eps, (self.lower[rows], self.upper[rows]))

    def project(self, points: Tensor) -> Tensor:
        """The nearest allowed images."""
        return torch.clamp(points, self.lower, self.upper)

    def step(self, points: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """A step of steepest ascent of this size (a number, or one an image), projected."""
        return gradient.sign().mul_(size).add_(points).clamp_(self.lower, self.upper)

    def random_point(self, keys: Tensor) -> Tensor:
        """Allowed images, uniform in the ball and clipped to [0, 1]."""
        noise = uniform(keys, *self.images.shape[1:]).to(self.images.dtype)
        return self.project(self.images + (2 * noise - 1) * self.eps)

    @staticmethod
    def norm(perturbations: Tensor) -> Tensor:
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
        norms = per_image(self.norm(perturbations), points)
        # the sums are rounded, every pixel by up to a quarter of the type's eps: aim that much inside
        rounding = torch.finfo(points.dtype).eps / 4 * math.prod(self.images.shape[1:]) ** 0.5
        radius = max(self.eps * (1 - SLACK) - rounding, 0.0)
        return (self.images + perturbations * (radius / norms.clamp(min=1e-30)).clamp(max=1)).clamp_(0, 1)

    def step(self, points: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """A step of steepest ascent of this size (a number, or one an image), projected."""
        # largest entry first: squares of tiny gradients would underflow
        gradient = gradient / per_image(Linf.norm(gradient), points).clamp(min=1e-30)
        norms = per_image(self.norm(gradient), points).clamp(min=1e-30)
        return self.project(points + size * gradient / norms)

    def random_point(self, keys: Tensor) -> Tensor:
        """Allowed images, uniform in the ball and clipped to [0, 1]."""
        shape = self.images.shape[1:]
        directions = normal(keys, *shape).to(self.images.dtype)
        radii = uniform(fold_in(keys, 1), 1).to(self.images.dtype)[:, 0] ** (1 / shape.numel())
        scale = self.eps * radii / self.norm(directions).clamp(min=1e-30)
        return self.project(self.images + directions * per_image(scale, directions))

    @staticmethod
    def norm(perturbations: Tensor) -> Tensor:
        """The norm of each perturbation, [N]."""
        # not vector_norm: on a CPU it adds a row's squares one by one, and is off by 1e-4 on large images
        return perturbations.flatten(1).square().sum(1).sqrt()


def eps_setting(default: float | None, meaning: str, **limits: Any) -> Any:
    """A field `eps` beside a field `norm`: in Linf more than 1 is every image there is."""
    most = {"most": _largest_eps, "advice": "pixels are in [0, 1]: did you mean {value:g}/255?"}
    return setting(default, meaning, **{**most, **limits})


def _largest_eps(settings: Any) -> float | None:
    return 1 if getattr(settings, "norm", None) in (None, "linf") else None


NormBall = Linf | L2
NORMS = {"linf": Linf, "l2": L2}


def norm_ball(images: Tensor, norm: str, eps: float) -> NormBall:
    """The allowed perturbations of these images: at most eps, results in [0, 1]."""
    return NORMS[norm](images, eps)


def violations(images: Tensor, adversarial: Tensor, norm: str, eps: float | None) -> Tensor:
    """Which images are not allowed, bool [N]: |x' - x| > eps (1 + 1e-6), outside [0, 1], or NaN."""
    outside = ~((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(1)
    if eps is None:
        return outside
    return outside | ~(NORMS[norm].norm(adversarial.double() - images.double()) <= eps * (1 + SLACK))


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """One value an image [N], shaped to broadcast against images."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _round_inwards(points: Tensor, images: Tensor, eps: float) -> Tensor:
    return torch.where((points - images).abs() > eps, torch.nextafter(points, images), points)
