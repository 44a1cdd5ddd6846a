"""Rays against a triangle mesh: where the nearest triangle is met, differentiable in the vertices (Möller and
Trumbore, 1997)."""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS = 2**21  # of rays and triangles at once: 50 MB


def intersect(vertices: Tensor, faces: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """How far along each ray the nearest triangle is, [R] (inf: none), and which it is, int64 [R] (-1: none).

    Triangles are met from both sides. Distances are in lengths of the direction and differentiable in the
    vertices; which triangle is met is not.

    Args:
        vertices: [V, 3].
        faces: int64 [F, 3].
        origins: [3], of all rays, or [R, 3].
        directions: [R, 3].
    """
    origins = origins.expand_as(directions)
    distances = directions.new_full((len(directions),), torch.inf)
    met = torch.full((len(directions),), -1, device=directions.device)
    near = meets_box(vertices.detach(), origins, directions).nonzero()[:, 0]
    if not len(near):
        return distances, met
    corners = vertices[faces]
    rows = max(1, PAIRS // len(faces))
    with torch.no_grad():
        parts = zip(origins[near].split(rows), directions[near].split(rows))
        found = torch.cat([_nearest(corners, *part) for part in parts])
    near, found = near[found >= 0], found[found >= 0]
    a, b, c = corners[found].unbind(1)
    normals = torch.linalg.cross(b - a, c - a)
    along = ((a - origins[near]) * normals).sum(-1) / (directions[near] * normals).sum(-1)
    return distances.index_copy(0, near, along), met.index_copy(0, near, found)


def meets_box(points: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """Which rays meet the bounding box of `points` [V, 3]: bool [R] (slabs; a little wider than exact).

    Args:
        origins: [3] or [R, 3]; directions: [R, 3].
    """
    tiny = torch.finfo(directions.dtype).tiny
    inverse = 1 / torch.where(directions.abs() < tiny, tiny, directions)
    low, high = points.amin(0), points.amax(0)
    margin = 1e-4 * (high - low).max()
    first, second = (low - margin - origins) * inverse, (high + margin - origins) * inverse
    enter = torch.minimum(first, second).amax(1)
    leave = torch.maximum(first, second).amin(1)
    return (enter <= leave) & (leave > 0)


def _nearest(corners: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """The nearest of the triangles [F, 3, 3] that each ray meets, int64 [R]; -1: none."""
    a, b, c = corners.unbind(1)
    first, second = b - a, c - a
    # from where the ray is nearest to the mesh's coordinates' origin: what is far away has few digits left
    ahead = -(origins * directions).sum(1) / directions.square().sum(1)
    origins = origins + ahead[:, None] * directions
    normals = torch.linalg.cross(first, second)
    # the triple products of Möller and Trumbore, written as products of matrices with each ray's moment
    moments = torch.linalg.cross(origins, directions)
    inverse = -1 / (directions @ normals.T)
    u = (moments @ second.T - directions @ torch.linalg.cross(second, a).T) * inverse
    v = (directions @ torch.linalg.cross(first, a).T - moments @ first.T) * inverse
    along = (origins @ normals.T - (a * normals).sum(-1)) * inverse
    edge = 16 * torch.finfo(corners.dtype).eps  # no gap between triangles that share an edge
    met = (u >= -edge) & (v >= -edge) & (u + v <= 1 + edge) & (along > -ahead[:, None]) & inverse.isfinite()
    distances, found = torch.where(met, along, torch.inf).min(1)
    return torch.where(distances.isinf(), -1, found)
