"""How far each ray passes inside or outside a mesh's silhouette, differentiable in the vertices: what makes
rays felt that would start or stop to hit (after Liu et al. 2019, Soft Rasterizer)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.lidar.mesh_rays import intersect

PROBE = 1e-3  # how far beside an edge it is asked whether the mesh is there, of the mesh's size


class SoftHits(NamedTuple):
    """What rays from one point meet of a mesh, [R] each.

    Attributes:
        inside: how far a ray passes inside the silhouette (negative: outside), in metres at the mesh.
        distances: along the ray to the mesh; outside it to the silhouette's nearest point.
        hit: bool, whether the mesh is met.
    """

    inside: Tensor
    distances: Tensor
    hit: Tensor


def soft_hits(vertices: Tensor, faces: Tensor, edges: Tensor, origin: Tensor, directions: Tensor) -> SoftHits:
    """What unit `directions` [R, 3] from `origin` [3] meet of a closed mesh, softly.

    The mesh and the rays are projected on the plane through the mesh's middle that faces the origin, in which
    lines stay lines. The silhouette are the edges there between a face seen from outside and one from inside
    that have nothing of the mesh beyond them.

    Args:
        vertices: [V, 3]; faces: int64 [F, 3], anticlockwise from outside.
        edges: int64 [E, 4] of `mesh_edges`.
    """
    frame, reach = _frame(vertices, origin)
    turned = (vertices - origin) @ frame
    flat = turned[:, :2] / turned[:, 2:] * reach
    forward = directions @ frame
    rays = forward[:, :2] / forward[:, 2:] * reach
    first, second = _silhouette(flat.detach(), faces, edges)
    if not len(first):  # a mesh without extent, such as a search may end in: there is nothing to meet
        never = torch.full_like(forward[:, 2], -torch.inf)
        return SoftHits(never, reach.expand_as(never), never > 0)
    with torch.no_grad():
        nearest = _to_segments(rays[:, None], flat[first], flat[second])[0].argmin(1)
    first, second = first[nearest], second[nearest]
    away, share = _to_segments(rays, flat[first], flat[second])
    depth = 1 / ((1 - share) / turned[first, 2] + share / turned[second, 2])
    at_edge = depth / forward[:, 2]
    distances, met = intersect(vertices, faces, origin, directions)
    hit = met >= 0
    return SoftHits(torch.where(hit, away, -away), torch.where(hit, distances, at_edge), hit)


def _frame(points: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """The axes right, up and forward as columns [3, 3] as seen from the origin, and how far the middle is."""
    towards = (points.amin(0) + points.amax(0)) / 2 - origin
    forward = towards / towards.norm()
    right = torch.linalg.cross(forward, forward.new_tensor([0.0, 0.0, 1.0]))
    right = right / right.norm()
    return torch.stack([right, torch.linalg.cross(right, forward), forward], 1), towards.norm()


def _silhouette(flat: Tensor, faces: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second vertex of each edge [E, 4] that bounds what the mesh [V, 2] covers."""
    corners = flat[faces]
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    turns = edges[(area[edges[:, 2]] > 0) != (area[edges[:, 3]] > 0)]
    start, end = flat[turns[:, 0]], flat[turns[:, 1]]
    along = end - start
    beside = torch.stack([along[:, 1], -along[:, 0]], 1)
    beside = beside / beside.norm(dim=1, keepdim=True).clamp(min=1e-12)
    step = PROBE * (flat.amax(0) - flat.amin(0)).max()
    middle = (start + end) / 2
    corners = corners[area != 0]  # a face that is a point or a line would seem to cover all
    outer = ~(_covered(middle + step * beside, corners) & _covered(middle - step * beside, corners))
    return turns[outer, 0], turns[outer, 1]


def _covered(points: Tensor, corners: Tensor) -> Tensor:
    """Which points [N, 2] lie in any of the triangles [F, 3, 2], bool [N]."""
    sides = []
    for number in range(3):
        start, end = corners[:, number], corners[:, (number + 1) % 3]
        sides.append(_cross(end - start, points[:, None] - start) >= 0)
    a, b, c = sides
    return ((a == b) & (b == c)).any(1)


def _to_segments(points: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of points [..., 2] from segments, and the share of the segment at which it is least."""
    along = end - start
    share = ((points - start) * along).sum(-1) / (along * along).sum(-1).clamp(min=1e-12)
    share = share.clamp(0, 1)
    away = points - start - share[..., None] * along
    return (away * away).sum(-1).clamp(min=1e-12).sqrt(), share


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
