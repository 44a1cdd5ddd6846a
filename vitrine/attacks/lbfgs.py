"""Szegedy's attack (2014): the smallest perturbation by box-constrained L-BFGS and a line search on c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.attacks import losses
from vitrine.attacks.apgd import wrong_classes
from vitrine.attacks.base import Attack
from vitrine.attacks.model import Gradient, Model
from vitrine.attacks.quasi_newton import minimize
from vitrine.attacks.threat import L2, eps_setting, per_image
from vitrine.core.settings import setting

_FACTOR = 10.0  # by which c moves until it is bracketed


@dataclass(frozen=True, kw_only=True)
class LBFGS(Attack):
    """Minimise c |r|_2 + CE(x + r, target) over 0 <= x + r <= 1, for the largest c that still succeeds.

    All images at once, each with its own c. Without `targeted`, the target is the most probable wrong class.
    The smallest perturbation found is returned; where there is none (within eps, if given), the image
    unchanged.
    """

    norm: str = setting("l2", "norm of the perturbation", choices=("l2",))
    eps: float | None = eps_setting(None, "largest perturbation that counts; null: any", least=0)
    c: float = setting(1.0, "weight of the perturbation's norm at first", above=0)
    searches: int = setting(10, "values of c tried", least=1)
    steps: int = setting(50, "L-BFGS steps for each", least=1)
    memory: int = setting(10, "pairs of steps and gradients kept", least=1)

    minimizes_norm: ClassVar[bool] = True

    def search(self, model: Model, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        logits = model.logits(images, labels)
        targets = labels if self.targeted else wrong_classes(logits, labels, 1)[:, 0]
        nearest, distances = images.clone(), images.new_full((len(images),), torch.inf)
        distances[model.is_adversarial(images, logits, labels)] = 0
        c = torch.full_like(distances, self.c)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)  # last to succeed, last to fail
        batch = images.clone()  # each image as it was tried last

        def gradient_at(points: Tensor, rows: Tensor) -> Gradient:
            if self.mode == "eval":
                return model.gradient(points, targets[rows], losses.cross_entropy, keys[rows])
            batch[rows] = points  # batch normalisation is by all images, however few are still tried
            seen = model.gradient(batch, targets, losses.cross_entropy, keys)
            return tuple(of[rows] for of in seen)

        for _ in range(self.searches):

            def objective(points: Tensor, rows: Tensor, c: Tensor = c) -> tuple[Tensor, Tensor]:
                logits, loss, gradient = gradient_at(points, rows)
                change = points - images[rows]
                distance = L2.norm(change)
                success = model.is_adversarial(points, logits, labels[rows])
                nearer = success & (distance < distances[rows])
                nearest[rows[nearer]], distances[rows[nearer]] = points[nearer], distance[nearer]
                unit = change / per_image(distance.clamp(min=1e-12), change)  # 0 at the image itself
                return loss + c[rows] * distance, gradient + per_image(c[rows], change) * unit

            minimum = minimize(objective, images, self.steps, self.memory)
            # of the minimum, not of what was tried on the way: c would grow until only overshooting succeeds
            success = model.is_adversarial(minimum, model.logits(minimum), labels)
            low, high = torch.where(success, c, low), torch.where(success, high, c)
            between = (low * high).sqrt()
            c = torch.where(high.isinf(), low * _FACTOR, torch.where(low == 0, high / _FACTOR, between))
        bound = torch.inf if self.eps is None else self.eps
        return torch.where(per_image(distances <= bound, images), nearest, images)
