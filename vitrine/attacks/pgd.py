"""Projected gradient descent (Madry 2018), its form from the image (BIM), and its single step (FGSM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.attacks import losses
from vitrine.attacks.base import Attack
from vitrine.attacks.model import Model
from vitrine.attacks.restarts import worst_of
from vitrine.attacks.threat import NormBall, norm_ball, per_image
from vitrine.core.random_numbers import fold_in
from vitrine.core.settings import setting


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Steps of steepest ascent, each projected into the ball."""

    steps: int = setting(10, "gradient steps", least=1)
    step: float | None = setting(None, "size of a step; null: eps / 4 (linf), 2.5 eps / steps (l2)", above=0)
    random_start: bool = setting(True, "begin at a random point of the ball")
    restarts: int = setting(1, "runs from other random points; each image keeps the worst", least=1)
    momentum: float = setting(0.0, "share of the last step's direction kept (Dong 2018: 1)", least=0)
    loss: str = setting("ce", "the loss that is maximised", choices=tuple(losses.LOSSES))
    early_stop: bool = setting(True, "adversarial images leave; false: all take all steps, the last counts")

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
        """Adversarial images.

        Args:
            start: where the first run begins, [N, C, H, W] (projected), in place of a random point.
            loss: maximised in place of the setting: (logits [N, K], labels) -> [N]. Labels are passed on
                unchanged; with check=false they may be whatever the loss takes.
        """
        ball = norm_ball(images, self.norm, self.eps)
        loss = loss or losses.get_loss(self.loss, self.targeted)

        def run(number: int, rows: Tensor) -> Tensor:
            everything = len(rows) == len(images)
            batch = (ball, labels, keys) if everything else (ball[rows], labels[rows], keys[rows])
            row_ball, row_labels, row_keys = *batch[:2], fold_in(batch[2], number)
            random = self.random_start or number > 0
            begin = _starting_points(row_ball, row_keys, None if number else start, random)
            return self._ascend(model, row_ball, begin, row_labels, row_keys, loss)

        return worst_of(self.restarts, run, model, images, labels, self.stops_early(model))

    def _ascend(
        self, model: Model, ball: NormBall, points: Tensor, labels: Tensor, keys: Tensor, loss: losses.Loss
    ) -> Tensor:
        early_stop = self.stops_early(model)
        step_size = self.step or (self.eps / 4 if self.norm == "linf" else 2.5 * self.eps / self.steps)
        velocity = torch.zeros_like(points) if self.momentum else None
        results, rows = points, None
        for _ in range(self.steps):
            logits, _, gradient = model.gradient(points, labels, loss, keys)
            if early_stop and (success := model.is_adversarial(points, logits, labels)).any():
                if rows is None:
                    results, rows = points.clone(), torch.arange(len(points), device=points.device)
                results[rows[success]] = points[success]
                remaining = (~success).nonzero()[:, 0]
                if not len(remaining):
                    return results
                points, labels, keys = points[remaining], labels[remaining], keys[remaining]
                gradient, ball, rows = gradient[remaining], ball[remaining], rows[remaining]
                velocity = None if velocity is None else velocity[remaining]
            if velocity is not None:
                magnitude = gradient.flatten(1).abs().mean(1).clamp(min=1e-30)
                velocity = gradient = self.momentum * velocity + gradient / per_image(magnitude, gradient)
            points = ball.step(points, gradient, step_size)
        if rows is None:
            return points
        results[rows] = points
        return results


@dataclass(frozen=True, kw_only=True)
class BIM(PGD):
    """The basic iterative method (Kurakin 2016): PGD that begins at the image itself."""

    random_start: bool = setting(False, "begin at a random point of the ball")


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """The fast gradient sign method, one step: x + eps sign(g), or eps g / |g| in L2 (Goodfellow 2015); from
    a random start if asked (Wong 2020)."""

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
        points = _starting_points(ball, keys, start, self.random_start)
        loss = loss or losses.get_loss(self.loss, self.targeted)
        _, _, gradient = model.gradient(points, labels, loss, keys)
        return ball.step(points, gradient, self.eps if self.step is None else self.step)


def _starting_points(ball: NormBall, keys: Tensor, start: Tensor | None, random: bool) -> Tensor:
    """`start` projected into the ball; without it a random point, or the image itself."""
    if start is not None:
        return ball.project(start.detach())
    return ball.random_point(keys) if random else ball.images
