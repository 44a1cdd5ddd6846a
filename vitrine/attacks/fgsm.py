"""The fast gradient sign method: one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vitrine.attacks import losses
from vitrine.attacks.base import Attack
from vitrine.attacks.model import Model
from vitrine.attacks.threat import norm_ball
from vitrine.core.settings import setting


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """x + eps sign(g), or eps g / |g| in L2 (Goodfellow 2015); from a random start if asked (Wong 2020)."""

    step: float | None = setting(None, "size of the step; null: eps. Wong 2020: 1.25 eps", above=0)
    random_start: bool = setting(False, "begin at a random point of the ball")
    loss: str = setting("ce", "the loss that is maximised", choices=tuple(losses.LOSSES))

    supports_eot: ClassVar[bool] = True

    def search(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        keys: Tensor,
        *,
        start: Tensor | None = None,
        loss: losses.Loss | None = None,
    ) -> Tensor:
        """`start` and `loss` as in PGD."""
        ball = norm_ball(images, self.norm, self.eps)
        if start is not None:
            start = ball.project(start.detach())
        else:
            start = ball.random_point(keys) if self.random_start else images
        loss = loss or losses.get_loss(self.loss, self.targeted)
        _, _, gradient = model.gradient(start, labels, loss, keys)
        return ball.step(start, gradient, self.eps if self.step is None else self.step)
