"""The Square attack (Andriushchenko 2020): random search by squares, logits only."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.attacks import square_proposals
from vitrine.attacks.base import Attack
from vitrine.attacks.model import Model
from vitrine.attacks.patch import Patch
from vitrine.attacks.patchwise import Patchwise
from vitrine.attacks.restarts import worst_of
from vitrine.attacks.threat import NormBall, norm_ball
from vitrine.core.random_numbers import fold_in, uniform
from vitrine.core.settings import setting

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the share changed is halved
_COMPARED = 4  # images on which logits by what changed are held against the network's
_FEWEST = 16  # images for which it is faster to follow what changed
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
        patchwise = self._patchwise(model, ball.images)
        # where images stay, an adversarial one stays adversarial: a later point has at least its margin
        for query in range(self.queries):
            if query == 0:
                patch = Patch.whole(begin(ball, keys))
            else:
                if (query - 1) % _BLOCK == 0:
                    block = uniform(fold_in(keys, query), _BLOCK, count)
                patch = propose(ball, points, self.changed_share(query), block[:, (query - 1) % _BLOCK])
            if patchwise is None:
                logits = model.logits(patch.on(points), labels)
            else:
                logits = model.logits(points, labels, functools.partial(patchwise, patch=patch))
            margins = model.margin(logits, labels).to(best.dtype)
            better = margins > best
            if len(accepted := better.nonzero()[:, 0]):
                patch.write(points, accepted)
                if patchwise is not None:
                    patchwise.keep(accepted)
                best = torch.where(better, margins, best)
            # where the margin rose the point is now what was proposed
            if early_stop and (success := model.is_adversarial(points, logits, labels, better)).any():
                results[rows[success]] = points[success]
                remaining = (~success).nonzero()[:, 0]
                if not len(remaining):
                    return results
                rows, labels, keys, points, best = (t[remaining] for t in (rows, labels, keys, points, best))
                ball = ball[remaining]
                block = block[remaining] if query else None
                if patchwise is not None:
                    patchwise.forget()
        results[rows] = points
        return results

    def _patchwise(self, model: Model, images: Tensor) -> Patchwise | None:
        """What gives the double's logits by what a square changes; None where that is not faster."""
        # the network's own logits are not to be rounded differently, bfloat16 is as fast on whole images, and
        # what the many small kernels take on a GPU is not known
        if (
            model.double is None
            or self.norm != "linf"
            or model.bf16
            or images.is_cuda
            or len(images) < _FEWEST
        ):
            return None
        return Patchwise.of(model.double, images[:_COMPARED])

    def changed_share(self, query: int) -> float:
        """The share of the pixels that a query changes."""
        at = query / self.queries * 10_000 if self.rescale else query
        return self.p / 2 ** sum(int(at) > halving for halving in HALVINGS)
