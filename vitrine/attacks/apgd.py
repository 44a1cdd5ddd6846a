"""Auto-PGD (Croce & Hein 2020): projected gradient ascent whose step halves where the loss stalls."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vitrine.attacks import losses
from vitrine.attacks.base import Attack
from vitrine.attacks.model import Victim
from vitrine.attacks.restarts import worst_of
from vitrine.attacks.threat import L2, Linf, around
from vitrine.core.random_numbers import fold_in
from vitrine.core.settings import SettingError, setting


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """`loss="dlr-targeted"` is APGD-T: a run towards each of the likeliest wrong classes in turn."""

    steps: int = setting(100, "gradient steps a run", least=1)
    loss: str = setting("ce", "what is driven up", choices=("ce", "dlr", "dlr-targeted", "margin"))
    targets: int = setting(9, "dlr-targeted: how many wrong classes are tried, likeliest first", least=1)
    restarts: int = setting(
        1, "runs (dlr-targeted: a class) from other random points; the worst counts", least=1
    )
    rho: float = setting(
        0.75, "share of steps that must raise the loss, or the step is halved", least=0, most=1
    )
    momentum: float = setting(0.75, "weight of the step against the one before", above=0, most=1)
    draws: int = setting(
        1, "gradients a step, for networks that draw random numbers (AutoAttack rand: 20)", least=1
    )
    early_stop: bool = setting(True, "images leave as they fall; false: all take all steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targeted and self.loss == "dlr-targeted":
            raise SettingError(
                "loss", "is dlr-targeted, which leaves any label; a targeted attack takes ce or dlr"
            )

    def search(self, victim: Victim, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        ball = around(images, self.norm, self.eps)
        logits = victim.guess(images, labels)
        losses.enough_classes(logits, self.loss)
        towards = self.loss == "dlr-targeted"
        ranked = wrong_classes(logits, labels, self.targets) if towards else None
        early_stop = self.early_stop and victim.check and self.mode == "eval"

        def run(number: int, rows: Tensor) -> Tensor:
            own = fold_in(keys[rows], number)
            state = State(
                ball[rows],
                labels[rows],
                own,
                None if ranked is None else ranked[rows, number % len(ranked.T)],
            )
            return self._climb(victim, state, early_stop)

        runs = self.restarts * (len(ranked.T) if towards else 1)
        return worst_of(runs, run, victim, images, labels, early_stop)

    def _climb(self, victim: Victim, s: State, early_stop: bool) -> Tensor:
        """Each image as it fell (where none leave: as it last fell), the others at their worst."""
        ended = s.ball.images.clone()
        s.points = s.ball.start(s.keys)
        s.rows = torch.arange(len(ended), device=ended.device)
        s.fell = torch.zeros_like(s.rows, dtype=torch.bool)
        s.size = torch.full_like(ended[:, 0, 0, 0], 2 * self.eps).view(-1, 1, 1, 1)
        checkpoints = {end: end - begin for begin, end in pairwise(windows(self.steps))}
        for step in range(self.steps + 1):
            logits, loss, gradient = victim.gradient(s.points, s.labels, self._loss(s), s.keys, self.draws)
            self._compare(s, step, loss, gradient)
            fallen = victim.fallen(s.points, logits, s.labels)
            if early_stop:
                if fallen.any():
                    ended[s.rows[fallen]] = s.points[fallen]
                    s = s.at((~fallen).nonzero()[:, 0])
                    if not len(s.rows):
                        return ended
            else:
                s.fell |= fallen
                ended = torch.where(fallen.view(-1, 1, 1, 1), s.points, ended)
            if step in checkpoints:
                self._judge(s, checkpoints[step])
            if step < self.steps:
                self._step(s, first=step == 0)
        rows = s.rows[~s.fell]
        ended[rows] = s.best[~s.fell]
        return ended

    def _loss(self, s: State) -> losses.Loss:
        return losses.dlr_towards(s.targets) if s.targets is not None else losses.of(self.loss, self.targeted)

    def _compare(self, s: State, step: int, loss: Tensor, gradient: Tensor) -> None:
        """Note where the loss rose, and the best point so far."""
        s.gradient = gradient
        if step == 0:
            s.best, s.best_gradient, s.best_loss, s.before = s.points, gradient, loss, s.points
            s.judged_loss, s.halved, s.rises = loss, torch.zeros_like(s.fell), torch.zeros_like(s.rows)
        else:
            s.rises = s.rises + (loss > s.last_loss)
            better = loss > s.best_loss
            spread = better.view(-1, 1, 1, 1)
            s.best = torch.where(spread, s.points, s.best)
            s.best_gradient = torch.where(spread, gradient, s.best_gradient)
            s.best_loss = torch.where(better, loss, s.best_loss)
        s.last_loss = loss

    def _judge(self, s: State, window: int) -> None:
        """At a checkpoint: halve the step, and return to the best point, where the search got stuck."""
        stuck = (s.rises < self.rho * window) | (~s.halved & (s.best_loss <= s.judged_loss))
        spread = stuck.view(-1, 1, 1, 1)
        s.size = torch.where(spread, s.size / 2, s.size)
        s.points = torch.where(spread, s.best, s.points)
        s.gradient = torch.where(spread, s.best_gradient, s.gradient)
        s.halved, s.judged_loss, s.rises = stuck, s.best_loss, torch.zeros_like(s.rises)

    def _step(self, s: State, first: bool) -> None:
        ahead = s.ball.step(s.points, s.gradient, s.size)
        if not first:
            kept = 1 - self.momentum
            ahead = s.ball.project(
                s.points + self.momentum * (ahead - s.points) + kept * (s.points - s.before)
            )
        s.before, s.points = s.points, ahead


@dataclass
class State:
    """A run of the images that still stand; every tensor's first dimension is theirs."""

    ball: Linf | L2
    labels: Tensor
    keys: Tensor
    targets: Tensor | None
    rows: Tensor = None  # where they are in the batch that came
    fell: Tensor = None  # only where images stay after they have fallen
    points: Tensor = None
    before: Tensor = None  # the points one step ago
    gradient: Tensor = None
    last_loss: Tensor = None
    best: Tensor = None
    best_gradient: Tensor = None
    best_loss: Tensor = None
    judged_loss: Tensor = None  # best_loss at the last checkpoint
    halved: Tensor = None  # at the last checkpoint
    rises: Tensor = None  # steps since the last checkpoint that raised the loss
    size: Tensor = None  # of a step

    def at(self, rows: Tensor) -> State:
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return State(*(None if value is None else value[rows] for value in values))


def windows(steps: int) -> list[int]:
    """The steps at which the search is judged: 0, .22 n, and on in shrinking distances of at least .06 n."""
    shares, found = [0.0, 0.22], [0]
    while (at := math.ceil(shares[-1] * steps - 1e-9)) <= steps:
        if at > found[-1]:
            found.append(at)
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return found


def wrong_classes(logits: Tensor, labels: Tensor, most: int) -> Tensor:
    """The likeliest classes other than the label, in order, int64 [N, at most K - 1]."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(most, logits.shape[1] - 1), dim=1).indices
