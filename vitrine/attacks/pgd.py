"""Projected gradient descent (Madry 2018), and the basic iterative method, which is PGD from the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.attacks import losses
from vitrine.attacks.base import Attack
from vitrine.attacks.model import Victim
from vitrine.attacks.restarts import worst_of
from vitrine.attacks.threat import Linf, around
from vitrine.core.random_numbers import fold_in
from vitrine.core.settings import setting


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Steps of steepest ascent, each projected into the ball."""

    steps: int = setting(10, "gradient steps", least=1)
    step: float | None = setting(
        None, "size of a step; null: eps / 4 in linf, 2.5 eps / steps in l2", above=0
    )
    random_start: bool = setting(True, "begin at a random point of the ball")
    restarts: int = setting(1, "runs from other random points; the worst counts, image by image", least=1)
    momentum: float = setting(0.0, "share of the last step's direction kept (Dong 2018: 1)", least=0)
    loss: str = setting("ce", "what is driven up", choices=tuple(losses.LOSSES))
    early_stop: bool = setting(True, "images leave as they fall; false: all take all steps, the last counts")

    def search(
        self,
        victim: Victim,
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
            loss: what is driven up, in place of the setting: (logits [N, K], labels) -> [N]. Labels are
                handed through; with check=false they may be whatever the loss takes.
        """
        ball = around(images, self.norm, self.eps)
        loss = loss or losses.of(self.loss, self.targeted)
        early_stop = self.early_stop and victim.check and self.mode == "eval"

        def run(number: int, rows: Tensor) -> Tensor:
            whole = len(rows) == len(images)
            mine, its, own = (ball, labels, keys) if whole else (ball[rows], labels[rows], keys[rows])
            own = fold_in(own, number)
            if start is not None and number == 0:
                begin = ball.project(start.detach())
            else:
                begin = mine.start(own) if self.random_start or number else mine.images
            return self._climb(victim, mine, begin, its, own, loss, early_stop)

        return worst_of(self.restarts, run, victim, images, labels, early_stop)

    def _climb(
        self,
        victim: Victim,
        ball: Linf,
        points: Tensor,
        labels: Tensor,
        keys: Tensor,
        loss: losses.Loss,
        early_stop: bool,
    ) -> Tensor:
        size = self.step or (self.eps / 4 if self.norm == "linf" else 2.5 * self.eps / self.steps)
        velocity = torch.zeros_like(points) if self.momentum else None
        ended, rows = points, None
        for _ in range(self.steps):
            logits, _, gradient = victim.gradient(points, labels, loss, keys)
            if early_stop and (fallen := victim.fallen(points, logits, labels)).any():
                if rows is None:
                    ended, rows = points.clone(), torch.arange(len(points), device=points.device)
                ended[rows[fallen]] = points[fallen]
                stand = (~fallen).nonzero()[:, 0]
                if not len(stand):
                    return ended
                points, labels, keys, gradient = points[stand], labels[stand], keys[stand], gradient[stand]
                ball, rows = ball[stand], rows[stand]
                velocity = None if velocity is None else velocity[stand]
            if velocity is not None:
                size_of = gradient.flatten(1).abs().mean(1).clamp(min=1e-30).view(-1, 1, 1, 1)
                velocity = gradient = self.momentum * velocity + gradient / size_of
            points = ball.step(points, gradient, size)
        if rows is None:
            return points
        ended[rows] = points
        return ended


@dataclass(frozen=True, kw_only=True)
class BIM(PGD):
    """The basic iterative method (Kurakin 2016): PGD that begins at the image itself."""

    random_start: bool = setting(False, "begin at a random point of the ball")
