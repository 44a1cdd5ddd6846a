"""The Square attack (Andriushchenko 2020): random search by squares, logits only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.attacks import square_moves
from vitrine.attacks.base import Attack
from vitrine.attacks.model import Victim
from vitrine.attacks.restarts import worst_of
from vitrine.attacks.threat import L2, Linf, around
from vitrine.core.random_numbers import fold_in, uniform
from vitrine.core.settings import setting

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the share changed is halved
_AHEAD = 64  # queries whose random numbers are drawn at once


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """No gradients: what it fells and gradients do not is a sign of masked gradients."""

    queries: int = setting(5000, "forward passes", least=1)
    p: float = setting(0.8, "share of the pixels changed at first", above=0, most=1)
    rescale: bool = setting(False, "scale the schedule, made for 10,000 queries, to the budget")
    restarts: int = setting(1, "runs with other random numbers; the worst counts, image by image", least=1)
    early_stop: bool = setting(True, "images leave as they fall; false: all take all queries")

    def search(self, victim: Victim, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        ball = around(images, self.norm, self.eps)
        early_stop = self.early_stop and victim.check and self.mode == "eval"

        def run(number: int, rows: Tensor) -> Tensor:
            return self._search(victim, ball[rows], labels[rows], fold_in(keys[rows], number), early_stop)

        return worst_of(self.restarts, run, victim, images, labels, early_stop)

    def _search(
        self, victim: Victim, ball: Linf | L2, labels: Tensor, keys: Tensor, early_stop: bool
    ) -> Tensor:
        begin, move = (
            (square_moves.stripes, square_moves.flip)
            if self.norm == "linf"
            else (square_moves.tiles, square_moves.shift)
        )
        count = square_moves.numbers(ball.images.shape[1])
        ended, rows = ball.images.clone(), torch.arange(len(labels), device=labels.device)
        points, best = ball.images, torch.full_like(ball.images[:, 0, 0, 0], -torch.inf)
        # where images stay, none that has fallen rises again: a later point must be at least as far beyond
        for query in range(self.queries):
            if query == 0:
                tried = begin(ball, keys)
            else:
                if (query - 1) % _AHEAD == 0:
                    ahead = uniform(fold_in(keys, query), _AHEAD, count)
                tried = move(ball, points, self.share(query), ahead[:, (query - 1) % _AHEAD])
            logits = victim.guess(tried, labels)
            margins = victim.margin(logits, labels).to(best.dtype)
            better = margins > best
            points = torch.where(better.view(-1, 1, 1, 1), tried, points)
            best = torch.where(better, margins, best)
            if early_stop and (fallen := better & victim.fallen(tried, logits, labels)).any():
                ended[rows[fallen]] = tried[fallen]
                stand = (~fallen).nonzero()[:, 0]
                if not len(stand):
                    return ended
                rows, labels, keys, points, best = (t[stand] for t in (rows, labels, keys, points, best))
                ball = ball[stand]
                ahead = ahead[stand] if query else None
        ended[rows] = points
        return ended

    def share(self, query: int) -> float:
        """The share of the pixels that a query changes."""
        at = query / self.queries * 10_000 if self.rescale else query
        return self.p / 2 ** sum(int(at) > halving for halving in HALVINGS)
