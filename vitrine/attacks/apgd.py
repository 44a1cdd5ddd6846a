"""Auto-PGD (Croce & Hein 2020): projected gradient ascent whose step halves where the loss stalls."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.attacks import losses
from vitrine.attacks.base import Attack
from vitrine.attacks.model import Model
from vitrine.attacks.restarts import worst_of
from vitrine.attacks.threat import NormBall, norm_ball, per_image
from vitrine.core.random_numbers import fold_in
from vitrine.core.settings import SettingError, setting


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """`loss="dlr-targeted"` is APGD-T: a run towards each of the most probable wrong classes in turn."""

    steps: int = setting(100, "gradient steps a run", least=1)
    loss: str = setting("ce", "the loss that is maximised", choices=("ce", "dlr", "dlr-targeted", "margin"))
    targets: int = setting(9, "dlr-targeted: wrong classes that are tried, the most probable first", least=1)
    restarts: int = setting(1, "runs (dlr-targeted: a class) from other points; the worst is kept", least=1)
    rho: float = setting(0.75, "share of steps that raise the loss, or the step is halved", least=0, most=1)
    momentum: float = setting(0.75, "weight of the step against the one before", above=0, most=1)
    draws: int = setting(1, "gradients a step, for networks that draw numbers (AutoAttack rand: 20)", least=1)
    early_stop: bool = setting(True, "adversarial images leave the batch; false: all take all steps")

    supports_eot: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targeted and self.loss == "dlr-targeted":
            raise SettingError(
                "loss", "is dlr-targeted, which leaves any label; a targeted attack takes ce or dlr"
            )

    def search(self, model: Model, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        ball = norm_ball(images, self.norm, self.eps)
        logits = model.logits(images, labels)
        losses.check_class_count(logits, self.loss)
        ranked = wrong_classes(logits, labels, self.targets) if self.loss == "dlr-targeted" else None

        def run(number: int, rows: Tensor) -> Tensor:
            targets = None if ranked is None else ranked[rows, number % len(ranked.T)]
            state = RunState(ball[rows], labels[rows], fold_in(keys[rows], number), targets)
            return self._ascend(model, state)

        runs = self.restarts * (1 if ranked is None else len(ranked.T))
        return worst_of(runs, run, model, images, labels, self.stops_early(model))

    def _ascend(self, model: Model, s: RunState) -> Tensor:
        """Each image as it became adversarial (without early stopping: as it last was), the others at their
        highest loss."""
        results, early_stop = s.ball.images.clone(), self.stops_early(model)
        s.points = s.ball.random_point(s.keys)
        s.rows = torch.arange(len(results), device=results.device)
        s.success = torch.zeros_like(s.rows, dtype=torch.bool)
        s.step_size = per_image(torch.full_like(results[:, 0, 0, 0], 2 * self.eps), results)
        windows = {end: end - begin for begin, end in pairwise(checkpoints(self.steps))}
        for step in range(self.steps + 1):
            logits, loss, gradient = model.gradient(s.points, s.labels, self._loss(s), s.keys, self.draws)
            self._record(s, step, loss, gradient)
            success = model.is_adversarial(s.points, logits, s.labels)
            if early_stop:
                if success.any():
                    results[s.rows[success]] = s.points[success]
                    s = s.select((~success).nonzero()[:, 0])
                    if not len(s.rows):
                        return results
            else:
                s.success |= success
                results = torch.where(per_image(success, results), s.points, results)
            if step in windows:
                self._adapt_step_size(s, windows[step])
            if step < self.steps:
                self._step(s, first=step == 0)
        rows = s.rows[~s.success]
        results[rows] = s.best[~s.success]
        return results

    def _loss(self, s: RunState) -> losses.Loss:
        if s.targets is not None:
            return losses.targeted_dlr(s.targets)
        return losses.get_loss(self.loss, self.targeted)

    def _record(self, s: RunState, step: int, loss: Tensor, gradient: Tensor) -> None:
        """Count where the loss rose, and keep the best point so far."""
        s.gradient = gradient
        if step == 0:
            s.best, s.best_gradient = s.points.clone(), gradient.clone()
            s.best_loss, s.previous = loss, s.points
            s.checkpoint_loss = loss
            s.halved, s.increases = torch.zeros_like(s.success), torch.zeros_like(s.rows)
        else:
            s.increases = s.increases + (loss > s.last_loss)
            better = loss > s.best_loss
            rows = better.nonzero()[:, 0]
            s.best[rows], s.best_gradient[rows] = s.points[rows], gradient[rows]
            s.best_loss = torch.where(better, loss, s.best_loss)
        s.last_loss = loss

    def _adapt_step_size(self, s: RunState, window: int) -> None:
        """At a checkpoint: halve the step, and return to the best point, where the search got stuck."""
        stuck = (s.increases < self.rho * window) | (~s.halved & (s.best_loss <= s.checkpoint_loss))
        stuck_images = per_image(stuck, s.points)
        s.step_size = torch.where(stuck_images, s.step_size / 2, s.step_size)
        s.points = torch.where(stuck_images, s.best, s.points)
        s.gradient = torch.where(stuck_images, s.best_gradient, s.gradient)
        s.halved, s.checkpoint_loss, s.increases = stuck, s.best_loss, torch.zeros_like(s.rows)

    def _step(self, s: RunState, first: bool) -> None:
        proposed = s.ball.step(s.points, s.gradient, s.step_size)
        if not first:
            step, last_step = proposed.sub_(s.points), s.points - s.previous
            ahead = step.mul_(self.momentum).add_(s.points)
            proposed = s.ball.project(ahead.add_(last_step.mul_(1 - self.momentum)))
        s.previous, s.points = s.points, proposed


@dataclass
class RunState:
    """A run of the images that are left in the batch; every tensor's first dimension is theirs."""

    ball: NormBall
    labels: Tensor
    keys: Tensor
    targets: Tensor | None
    rows: Tensor = None  # int64, their places in the batch of the call
    success: Tensor = None  # bool; only without early stopping
    points: Tensor = None
    previous: Tensor = None  # the points one step ago
    gradient: Tensor = None
    last_loss: Tensor = None
    best: Tensor = None
    best_gradient: Tensor = None
    best_loss: Tensor = None
    checkpoint_loss: Tensor = None  # best_loss at the last checkpoint
    halved: Tensor = None  # bool, at the last checkpoint
    increases: Tensor = None  # steps since the last checkpoint that raised the loss
    step_size: Tensor = None

    def select(self, rows: Tensor) -> RunState:
        """The state of some rows, int64."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return RunState(*(None if value is None else value[rows] for value in values))


def checkpoints(steps: int) -> list[int]:
    """Where the step size is adapted: 0, .22 n, and on in shrinking distances of at least .06 n."""
    shares, found = [0.0, 0.22], [0]
    while (at := math.ceil(shares[-1] * steps - 1e-9)) <= steps:
        if at > found[-1]:
            found.append(at)
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return found


def wrong_classes(logits: Tensor, labels: Tensor, most: int) -> Tensor:
    """The most probable classes other than the label, in order, int64 [N, at most K - 1]."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(most, logits.shape[1] - 1), dim=1).indices
