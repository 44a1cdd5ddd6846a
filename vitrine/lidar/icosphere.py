"""A sphere of nearly equal triangles, and how its vertices lie beside each other."""

from __future__ import annotations

import torch
from torch import Tensor


def icosphere(level: int) -> tuple[Tensor, Tensor]:
    """Vertices float64 [V, 3] of length 1 and faces int64 [F, 3], anticlockwise from outside: an icosahedron
    whose triangles are divided into four `level` times; 12, 42, 162, 642 vertices."""
    golden = (1 + 5**0.5) / 2
    points = [p for a in (-1, 1) for b in (-golden, golden) for p in ((0, a, b), (a, b, 0), (b, 0, a))]
    vertices = torch.tensor(points, dtype=torch.float64)
    vertices = vertices / vertices.norm(dim=1, keepdim=True)
    gaps = torch.cdist(vertices, vertices)
    beside = (gaps > 0) & (gaps < 1.1)
    corners = torch.combinations(torch.arange(12), 3)
    i, j, k = corners.T
    faces = corners[beside[i, j] & beside[j, k] & beside[i, k]]
    inwards = torch.linalg.det(vertices[faces]) < 0
    faces = torch.where(inwards[:, None], faces.flip(1), faces)
    for _ in range(level):
        vertices, faces = _divide(vertices, faces)
    return vertices, faces


def _divide(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Every triangle into four, the new vertices on the sphere."""
    edges = mesh_edges(faces)[:, :2]
    middles = vertices[edges].mean(1)
    middles = middles / middles.norm(dim=1, keepdim=True)
    number = torch.zeros(len(vertices), len(vertices), dtype=torch.int64)
    number[edges[:, 0], edges[:, 1]] = number[edges[:, 1], edges[:, 0]] = len(vertices) + torch.arange(
        len(edges)
    )
    a, b, c = faces.T
    ab, bc, ca = number[a, b], number[b, c], number[c, a]
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return torch.cat([vertices, middles]), torch.cat([torch.stack(part, 1) for part in parts])


def mesh_edges(faces: Tensor) -> Tensor:
    """The edges of a closed mesh, int64 [E, 4]: two vertices and the two faces that meet there.

    Raises:
        ValueError: an edge is not between two faces.
    """
    ends = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values
    sides = torch.arange(len(faces)).repeat(3)
    edges, place, counts = ends.unique(dim=0, return_inverse=True, return_counts=True)
    if not (counts == 2).all():
        raise ValueError("faces: are not of a closed mesh, in which every edge is between two faces")
    return torch.cat([edges, sides[place.argsort(stable=True)].view(-1, 2)], 1)


def laplacian(vertices: Tensor, edges: Tensor) -> Tensor:
    """How far each vertex lies from the mean of those beside it, [V, 3].

    Args:
        vertices: [V, 3].
        edges: int64 [E, 2 or more] of `mesh_edges`.
    """
    pairs = torch.cat([edges[:, :2], edges[:, :2].flip(1)])
    count = pairs[:, 0].bincount(minlength=len(vertices)).to(vertices.dtype)
    total = torch.zeros_like(vertices).index_add(0, pairs[:, 0], vertices[pairs[:, 1]])
    return vertices - total / count[:, None]
