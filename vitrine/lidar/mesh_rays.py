"""Rays from one point against a triangle mesh: where the nearest triangle is met, differentiable in the
vertices (Möller and Trumbore, 1997)."""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS = 2**21  # of rays and triangles at once: 50 MB


def intersect(vertices: Tensor, faces: Tensor, origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """How far along each ray the nearest triangle is, [R] (inf: none), and which it is, int64 [R] (-1: none).

    Triangles are met from both sides. Distances are in lengths of the direction and differentiable in the
    vertices; which triangle is met is not.

    Args:
        vertices: [V, 3].
        faces: int64 [F, 3].
        origin: [3], of all rays.
        directions: [R, 3].
    """
    distances = directions.new_full((len(directions),), torch.inf)
    met = torch.full((len(directions),), -1, device=directions.device)
    near = meets_box(vertices.detach(), origin, directions).nonzero()[:, 0]
    if not len(near):
        return distances, met
    corners = vertices[faces]
    rows = max(1, PAIRS // len(faces))
    with torch.no_grad():
        found = torch.cat([_nearest(corners, origin, some) for some in directions[near].split(rows)])
    near, found = near[found >= 0], found[found >= 0]
    a, b, c = corners[found].unbind(1)
    normals = torch.linalg.cross(b - a, c - a)
    along = ((a - origin) * normals).sum(-1) / (directions[near] * normals).sum(-1)
    return distances.index_copy(0, near, along), met.index_copy(0, near, found)


def meets_box(points: Tensor, origin: Tensor, directions: Tensor) -> Tensor:
    """Which rays meet the bounding box of `points` [V, 3]: bool [R] (slabs; a little wider than exact)."""
    tiny = torch.finfo(directions.dtype).tiny
    inverse = 1 / torch.where(directions.abs() < tiny, tiny, directions)
    low, high = points.amin(0) - origin, points.amax(0) - origin
    margin = 1e-4 * (high - low).max()
    first, second = (low - margin) * inverse, (high + margin) * inverse
    enter = torch.minimum(first, second).amax(1)
    leave = torch.maximum(first, second).amin(1)
    return (enter <= leave) & (leave > 0)


def _nearest(corners: Tensor, origin: Tensor, directions: Tensor) -> Tensor:
    """The nearest of the triangles [F, 3, 3] that each ray meets, int64 [R]; -1: none."""
    a, b, c = corners.unbind(1)
    first, second, away = b - a, c - a, origin - a
    # written as products of matrices: with d the direction, d . (second x away) = away . (d x second), ...
    normals = torch.linalg.cross(first, second)
    determinant = -(directions @ normals.T)
    inverse = 1 / determinant
    u = directions @ torch.linalg.cross(second, away).T * inverse
    v = directions @ torch.linalg.cross(away, first).T * inverse
    along = (away * normals).sum(-1) * inverse
    edge = 16 * torch.finfo(corners.dtype).eps  # no gap between triangles that share an edge
    met = (u >= -edge) & (v >= -edge) & (u + v <= 1 + edge) & (along > 0) & (determinant != 0)
    distances, found = torch.where(met, along, torch.inf).min(1)
    return torch.where(distances.isinf(), -1, found)
