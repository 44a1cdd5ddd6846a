"""Rotated rectangles, seen from above: their corners, intersection over union, and non-maximum suppression.

A rectangle is (x, y, length, width, heading), in metres and radians.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EDGE = 1e-9  # of a rectangle's size: how far outside a point counts as on the edge
_SIGNS = ((1, 1), (-1, 1), (-1, -1), (1, -1))  # of the corners, anticlockwise


def from_above(boxes: Tensor) -> Tensor:
    """The rectangles [..., 5] of boxes [..., 7] (see `solids`)."""
    return boxes[..., [0, 1, 3, 4, 6]]


def corners(boxes: Tensor) -> Tensor:
    """The corners of rectangles [..., 5], anticlockwise, [..., 4, 2]."""
    signs = boxes.new_tensor(_SIGNS)
    along, across = signs[:, 0] * boxes[..., 2:3] / 2, signs[:, 1] * boxes[..., 3:4] / 2
    cos, sin = boxes[..., 4:5].cos(), boxes[..., 4:5].sin()
    x, y = boxes[..., 0:1] + cos * along - sin * across, boxes[..., 1:2] + sin * along + cos * across
    return torch.stack([x, y], -1)


def contains(boxes: Tensor, points: Tensor, scale: float | Tensor = 1) -> Tensor:
    """Whether the rectangles [..., 5], scaled about their middles, contain points [..., 2] (edges count)."""
    offset = points - boxes[..., :2]
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    along, across = offset[..., 0] * cos + offset[..., 1] * sin, offset[..., 1] * cos - offset[..., 0] * sin
    return (along.abs() <= boxes[..., 2] / 2 * scale) & (across.abs() <= boxes[..., 3] / 2 * scale)


def intersection(first: Tensor, second: Tensor) -> Tensor:
    """The areas that pairs of rectangles [..., 5] have in common, [...].

    The common polygon has its corners among the corners of each rectangle in the other and the points where
    their sides cross; in the order of their angles about the middle they give its area.
    """
    first, second = torch.broadcast_tensors(first, second)
    shape = first.shape[:-1]
    first, second = first.reshape(-1, 5).double(), second.reshape(-1, 5).double()
    of_first, of_second = corners(first), corners(second)
    inside = [
        contains(b[:, None], points, 1 + _EDGE) for b, points in ((second, of_first), (first, of_second))
    ]
    crossings, crossed = _crossings(of_first, of_second)
    points = torch.cat([of_first, of_second, crossings], 1)  # [P, 24, 2]
    valid = torch.cat([*inside, crossed], 1)
    count = valid.sum(1)
    middle = (points * valid[..., None]).sum(1) / count.clamp(min=1)[:, None]
    points = torch.where(valid[..., None], points - middle[:, None], 0)
    angle = torch.atan2(points[..., 1], points[..., 0]).masked_fill(~valid, torch.inf)
    order = angle.argsort(1)
    points = points.gather(1, order[..., None].expand(-1, -1, 2))
    # those that are none come last: they repeat the first, which adds no area
    known = torch.arange(24, device=count.device) < count[:, None]
    points = torch.where(known[..., None], points, points[:, :1])
    following = points.roll(-1, 1)
    area = (points[..., 0] * following[..., 1] - points[..., 1] * following[..., 0]).sum(1) / 2
    return area.clamp(min=0).masked_fill(count < 3, 0).view(shape)


def _crossings(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Where the sides of two quadrangles [P, 4, 2] cross, [P, 16, 2], and whether they do, bool [P, 16]."""
    a, along = first[:, :, None], (first.roll(-1, 1) - first)[:, :, None]
    b, other = second[:, None], (second.roll(-1, 1) - second)[:, None]
    determinant = along[..., 0] * other[..., 1] - along[..., 1] * other[..., 0]
    lengths = along.norm(dim=-1) * other.norm(dim=-1)
    parallel = determinant.abs() <= 1e-12 * lengths
    determinant = torch.where(parallel, 1, determinant)
    apart = b - a
    t = (apart[..., 0] * other[..., 1] - apart[..., 1] * other[..., 0]) / determinant
    u = (apart[..., 0] * along[..., 1] - apart[..., 1] * along[..., 0]) / determinant
    crossed = ~parallel & (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)
    return (a + t[..., None] * along).flatten(1, 2), crossed.flatten(1)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of pairs of rectangles [..., 5], [...], in their type."""
    common = intersection(first, second)
    areas = (first[..., 2] * first[..., 3]).double() + (second[..., 2] * second[..., 3]).double()
    return (common / (areas - common).clamp(min=1e-12)).to(first.dtype)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of each of [M, 5] with each of [N, 5], [M, N]; pairs far apart cost nothing."""
    result = first.new_zeros(len(first), len(second))
    reach = (first[:, None, 2:4].norm(dim=-1) + second[None, :, 2:4].norm(dim=-1)) / 2
    near = (torch.cdist(first[:, :2], second[:, :2]) < reach).nonzero()
    result[near[:, 0], near[:, 1]] = iou(first[near[:, 0]], second[near[:, 1]])
    return result


def suppress(boxes: Tensor, scores: Tensor, limit: float = 0.1) -> Tensor:
    """Non-maximum suppression: the indices of the rectangles [N, 5] whose intersection over union with each
    better one that is kept is at most `limit`, the best first, int64 [kept]."""
    rest, kept = scores.argsort(descending=True, stable=True), []
    while len(rest):
        kept.append(rest[0])
        overlaps = pairwise_iou(boxes[rest[:1]], boxes[rest])[0]
        overlaps[0] = 2  # itself, however small
        rest = rest[overlaps <= limit]
    return torch.stack(kept) if kept else rest
