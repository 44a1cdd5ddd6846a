"""Projection onto a hyperplane within the pixel box, in Linf or in L2: the step of FAB."""

from __future__ import annotations

import torch
from torch import Tensor


def project(points: Tensor, normals: Tensor, offsets: Tensor, norm: str) -> Tensor:
    """The smallest change d with <w, x + d> = b and 0 <= x + d <= 1, [N, D]; exact.

    Where the hyperplane misses the box, the d that comes nearest to it. Each coordinate moves towards the
    hyperplane at a rate of its own until it meets the box, so that <w, d> is piecewise linear in time: sort
    the times at which coordinates stop, and find the piece (Croce & Hein 2020, FAB).

    Args:
        points: x in [0, 1], [N, D].
        normals: w, [N, D].
        offsets: b, [N].
        norm: "linf": all coordinates move at rate 1; "l2": at |w|.
    """
    gap = offsets - (normals * points).sum(1)
    direction = torch.where(gap[:, None] < 0, -normals, normals).sign()
    size = normals.abs()
    rate = torch.ones_like(size) if norm == "linf" else size
    room = torch.where(direction > 0, 1 - points, points)
    stop, order = torch.where(size > 0, room / rate.clamp(min=1e-38), 0).sort(dim=1)
    slope = (size * rate).gather(1, order)
    # at stop_i the coordinates after i still move: <w, d> = sum(stopped) + time * sum(moving)
    stopped = (slope * stop).cumsum(1)
    moving = slope.flip(1).cumsum(1).flip(1) - slope
    reached = stopped + stop * moving
    gap = gap.abs()[:, None]
    piece = torch.searchsorted(reached, gap).clamp(max=points.shape[1] - 1)
    before = (piece - 1).clamp(min=0)
    first = piece == 0
    rate_left = torch.where(first, moving[:, :1] + slope[:, :1], moving.gather(1, before))
    done = torch.where(first, 0, stopped.gather(1, before))
    time = ((gap - done) / rate_left.clamp(min=1e-38)).clamp(max=stop.gather(1, piece))
    return direction * torch.minimum(rate * time.clamp(min=0), room)
