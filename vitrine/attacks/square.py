"""The Square attack (Andriushchenko 2020): random search by squares, logits only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.attacks import square_proposals
from vitrine.attacks.base import Attack
from vitrine.attacks.model import Model
from vitrine.attacks.restarts import worst_of
from vitrine.attacks.threat import NormBall, norm_ball
from vitrine.core.random_numbers import fold_in, uniform
from vitrine.core.settings import setting

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the share changed is halved
_BLOCK = 64  # queries whose random numbers are computed at once


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """No gradients: success where gradient attacks fail is a sign of masked gradients."""

    queries: int = setting(5000, "forward passes", least=1)
    p: float = setting(0.8, "share of the pixels changed at first", above=0, most=1)
    rescale: bool = setting(False, "scale the schedule, made for 10,000 queries, to the budget")
    restarts: int = setting(1, "runs with other random numbers; each image keeps the worst", least=1)
    early_stop: bool = setting(True, "adversarial images leave the batch; false: all take all queries")

    def search(self, model: Model, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        ball = norm_ball(images, self.norm, self.eps)

        def run(number: int, rows: Tensor) -> Tensor:
            return self._random_search(model, ball[rows], labels[rows], fold_in(keys[rows], number))

        return worst_of(self.restarts, run, model, images, labels, self.stops_early(model))

    def _random_search(self, model: Model, ball: NormBall, labels: Tensor, keys: Tensor) -> Tensor:
        early_stop = self.stops_early(model)
        begin, propose = square_proposals.OF_NORM[self.norm]
        count = square_proposals.FIXED_NUMBERS + ball.images.shape[1]
        results, rows = ball.images.clone(), torch.arange(len(labels), device=labels.device)
        points, best = ball.images.clone(), torch.full_like(ball.images[:, 0, 0, 0], -torch.inf)
        # where images stay, an adversarial one stays adversarial: a later point has at least its margin
        for query in range(self.queries):
            if query == 0:
                proposed = begin(ball, keys)
            else:
                if (query - 1) % _BLOCK == 0:
                    block = uniform(fold_in(keys, query), _BLOCK, count)
                proposed = propose(ball, points, self.changed_share(query), block[:, (query - 1) % _BLOCK])
            logits = model.logits(proposed, labels)
            margins = model.margin(logits, labels).to(best.dtype)
            better = margins > best
            points[better] = proposed[better]
            best = torch.where(better, margins, best)
            if early_stop and (success := model.is_adversarial(proposed, logits, labels, better)).any():
                results[rows[success]] = proposed[success]
                remaining = (~success).nonzero()[:, 0]
                if not len(remaining):
                    return results
                rows, labels, keys, points, best = (t[remaining] for t in (rows, labels, keys, points, best))
                ball = ball[remaining]
                block = block[remaining] if query else None
        results[rows] = points
        return results

    def changed_share(self, query: int) -> float:
        """The share of the pixels that a query changes."""
        at = query / self.queries * 10_000 if self.rescale else query
        return self.p / 2 ** sum(int(at) > halving for halving in HALVINGS)
