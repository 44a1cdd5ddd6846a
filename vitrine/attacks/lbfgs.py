"""Szegedy's attack (2014): the smallest perturbation by box-constrained L-BFGS and a line search on c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.attacks import losses
from vitrine.attacks.apgd import wrong_classes
from vitrine.attacks.base import Attack
from vitrine.attacks.model import Victim
from vitrine.attacks.quasi_newton import minimize
from vitrine.attacks.threat import L2
from vitrine.core.settings import setting

_FACTOR = 10.0  # by which c moves until it is bracketed


@dataclass(frozen=True, kw_only=True)
class LBFGS(Attack):
    """Minimise c |r|_2 + CE(x + r, target) over 0 <= x + r <= 1, for the largest c that still succeeds.

    All images at once, each with its own c. Without `targeted`, the target is the likeliest wrong class. The
    smallest perturbation met counts; where there is none (within eps, if given), the image is returned as it
    came.
    """

    norm: str = setting("l2", "norm of the perturbation", choices=("l2",))
    eps: float | None = setting(None, "largest perturbation that counts; null: any", least=0)
    c: float = setting(1.0, "weight of the perturbation's norm at first", above=0)
    searches: int = setting(10, "values of c tried", least=1)
    steps: int = setting(50, "L-BFGS steps for each", least=1)
    memory: int = setting(10, "pairs of steps and gradients kept", least=1)

    unbounded: ClassVar[bool] = True

    def search(self, victim: Victim, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        logits = victim.guess(images, labels)
        targets = labels if self.targeted else wrong_classes(logits, labels, 1)[:, 0]
        nearest, sizes = images.clone(), images.new_full((len(images),), torch.inf)
        sizes[victim.fallen(images, logits, labels)] = 0
        c = torch.full_like(sizes, self.c)
        low, high = (
            torch.zeros_like(c),
            torch.full_like(c, torch.inf),
        )  # the last to succeed, the last to fail

        for _ in range(self.searches):

            def objective(points: Tensor, rows: Tensor, c: Tensor = c) -> tuple[Tensor, Tensor]:
                its = images[rows]
                logits, loss, gradient = victim.gradient(
                    points, targets[rows], losses.cross_entropy, keys[rows]
                )
                change = points - its
                size = L2.size(change)
                fell = victim.fallen(points, logits, labels[rows])
                nearer = fell & (size < sizes[rows])
                nearest[rows[nearer]], sizes[rows[nearer]] = points[nearer], size[nearer]
                weight = c[rows].view(-1, 1, 1, 1)
                pull = change / size.clamp(min=1e-12).view(-1, 1, 1, 1)  # 0 at the image itself
                return loss + c[rows] * size, gradient + weight * pull

            ended = minimize(objective, images, self.steps, self.memory)
            # of the minimum, not of what was tried on the way: c would grow until only overshooting succeeds
            success = victim.fallen(ended, victim.guess(ended), labels)
            low, high = torch.where(success, c, low), torch.where(success, high, c)
            between = (low * high).sqrt()
            c = torch.where(high.isinf(), low * _FACTOR, torch.where(low == 0, high / _FACTOR, between))
        if self.eps is None:
            return nearest
        return torch.where((sizes <= self.eps).view(-1, 1, 1, 1), nearest, images)
