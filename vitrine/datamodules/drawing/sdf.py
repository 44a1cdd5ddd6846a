"""Signed distances to plain shapes: negative inside, in the unit of the points (Quilez, distance functions).

Points are [..., 2] tensors of (right, down); angles are degrees, 0 to the right, 90 down.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

Point = tuple[float, float]


def disc(points: Tensor, radius: float, centre: Point = (0.0, 0.0)) -> Tensor:
    """Distance to a disc."""
    return (points - points.new_tensor(centre)).norm(dim=-1) - radius


def polygon(points: Tensor, corners: Sequence[Point]) -> Tensor:
    """Distance to a simple polygon, convex or not."""
    square = torch.full(points.shape[:-1], torch.inf, dtype=points.dtype)
    inside = torch.zeros(points.shape[:-1], dtype=torch.bool)
    for start, end in zip(corners, [*corners[1:], corners[0]]):
        square = torch.minimum(square, _square_to_segment(points, start, end))
        # Even-odd rule: a ray to the right crosses this edge or does not.
        crosses = (points[..., 1] < start[1]) != (points[..., 1] < end[1])
        if start[1] != end[1]:
            at = start[0] + (points[..., 1] - start[1]) * (end[0] - start[0]) / (end[1] - start[1])
            inside ^= crosses & (points[..., 0] < at)
    return torch.where(inside, -square.sqrt(), square.sqrt())


def stroke(points: Tensor, path: Sequence[Point], width: float) -> Tensor:
    """Distance to a line of the given width along a path, with round ends and joints."""
    square = torch.full(points.shape[:-1], torch.inf, dtype=points.dtype)
    for start, end in itertools.pairwise(path):
        square = torch.minimum(square, _square_to_segment(points, start, end))
    return square.sqrt() - width / 2


def union(*distances: Tensor) -> Tensor:
    """Distance to whatever is nearest (exact outside)."""
    return torch.stack(distances).amin(0)


def regular(corners: int, radius: float, turn: float = 0.0) -> list[Point]:
    """The corners of a regular polygon in a circle, the first one at the angle `turn`."""
    return arc((0.0, 0.0), radius, radius, turn, turn + 360 * (1 - 1 / corners), corners - 1)


def arc(centre: Point, rx: float, ry: float, start: float, end: float, segments: int = 16) -> list[Point]:
    """Points along an ellipse's arc, both ends included."""
    angles = [math.radians(start + (end - start) * i / segments) for i in range(segments + 1)]
    return [(centre[0] + rx * math.cos(a), centre[1] + ry * math.sin(a)) for a in angles]


def _square_to_segment(points: Tensor, start: Point, end: Point) -> Tensor:
    a, along = points.new_tensor(start), points.new_tensor(end) - points.new_tensor(start)
    offset = points - a
    share = ((offset @ along) / (along @ along).clamp(min=1e-12)).clamp(0, 1)
    return (offset - share[..., None] * along).square().sum(-1)
