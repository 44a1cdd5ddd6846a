"""A triangle mesh with UV coordinates, which say where on the texture each corner lies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

CREASE = math.cos(math.radians(50))  # faces that meet at a larger angle are lit as two, with an edge between
_AT_ONCE = 2**16  # entries of a table of faces and of those around a corner of theirs


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in three dimensions and on the texture.

    Attributes:
        vertices: float64 [V, 3]; x to the right, y up, z towards the viewer.
        faces: int64 [F, 3], the vertices of each triangle, anticlockwise from outside.
        uvs: float64 [T, 2]; (0, 0) is the lower left corner of the texture, (1, 1) the upper right one, and
            beyond them it repeats.
        face_uvs: int64 [F, 3], which of `uvs` each corner of a triangle has.
        two_sided: whether triangles are seen from inside too; they need not be where the surface is closed.
    """

    vertices: Tensor
    faces: Tensor
    uvs: Tensor
    face_uvs: Tensor
    two_sided: bool = True

    def __post_init__(self) -> None:
        for name, of in (("faces", self.faces), ("face_uvs", self.face_uvs)):
            if of.dtype != torch.int64 or of.ndim != 2 or of.shape[1] != 3 or not len(of):
                raise ValueError(f"{name}: is {of.dtype} {list(of.shape)}, expected int64 [at least 1, 3]")
        for name, of, into in (("faces", self.faces, self.vertices), ("face_uvs", self.face_uvs, self.uvs)):
            low, high = int(of.min()), int(of.max())
            if low < 0 or high >= len(into):
                raise ValueError(f"{name}: lie between {low} and {high}, expected 0 to {len(into) - 1}")
        if len(self.faces) != len(self.face_uvs):
            raise ValueError(f"face_uvs: are of {len(self.face_uvs)} faces, expected {len(self.faces)}")
        if not (self.vertices.isfinite().all() and self.uvs.isfinite().all()):
            raise ValueError("vertices and uvs: are not all finite")

    def fitted(self) -> Mesh:
        """The mesh moved and scaled so that the middle of its bounding box is the origin and its farthest
        vertex has the distance 1.

        Raises:
            ValueError: all vertices are one point.
        """
        used = self.vertices[self.faces.unique()]
        moved = self.vertices - (used.amin(0) + used.amax(0)) / 2
        radius = moved[self.faces.unique()].norm(dim=1).max()
        if not radius > 0:
            raise ValueError("vertices: are all one point")
        return replace(self, vertices=moved / radius)

    @cached_property
    def repeats(self) -> bool:
        """Whether the surface shows the texture more than once: a corner lies beyond it."""
        used = self.uvs[self.face_uvs]
        return bool((used < 0).any() or (used > 1).any())

    @cached_property
    def corner_normals(self) -> Tensor:
        """The unit normal at each corner of each face, float64 [F, 3, 3]: the mean of the faces around the
        vertex, weighted by area, without those beyond a crease."""
        first, second, third = self.vertices[self.faces].unbind(1)
        areas = torch.linalg.cross(second - first, third - first)  # normals, twice as long as the area
        units = F.normalize(areas, dim=1, eps=1e-30)
        corners = self.faces.flatten()
        order = corners.argsort(stable=True)  # the faces at one vertex, then those at the next
        counts = corners.bincount(minlength=len(self.vertices))
        starts = counts.cumsum(0) - counts
        slots = torch.arange(int(counts.max()))  # as many as the faces at any vertex
        sums = areas.new_empty(len(self.faces), 3, 3)
        for rows in torch.arange(len(self.faces)).split(max(1, _AT_ONCE // len(slots))):
            vertices = self.faces[rows]
            known = slots < counts[vertices][..., None]  # [rows, 3, slots]
            places = (starts[vertices][..., None] + slots).clamp(max=len(corners) - 1)
            around = order[places] // 3
            near = (units[around] * units[rows][:, None, None]).sum(-1) > CREASE
            sums[rows] = (areas[around] * (near & known).double()[..., None]).sum(2)
        return F.normalize(sums, dim=2, eps=1e-30)


def patch(points: Tensor, box: tuple[float, float, float, float], centre: Tensor) -> Mesh:
    """A surface over a grid of points, as part of a mesh.

    Args:
        points: float64 [A, B, 3]; A runs along v, B along u.
        box: the rectangle of the texture that the surface gets: left, bottom, right, top.
        centre: [3], what lies inside: faces are oriented away from it.
    """
    rows, columns = points.shape[:2]
    left, bottom, right, top = box
    v = torch.linspace(bottom, top, rows, dtype=torch.float64)
    u = torch.linspace(left, right, columns, dtype=torch.float64)
    v, u = torch.meshgrid(v, u, indexing="ij")
    number = torch.arange(rows * columns).view(rows, columns)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
    faces = torch.cat([torch.stack([a, b, c], -1).view(-1, 3), torch.stack([a, c, d], -1).view(-1, 3)])
    vertices = points.reshape(-1, 3)
    corners = vertices[faces]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    faces, areas = faces[areas.norm(dim=1) > 1e-12], areas[areas.norm(dim=1) > 1e-12]  # poles are points
    if (areas * (vertices[faces].mean(1) - centre)).sum() < 0:
        faces = faces.flip(1)
    return Mesh(vertices, faces, torch.stack([u, v], -1).view(-1, 2), faces)


def join(parts: list[Mesh]) -> Mesh:
    """Meshes as one; vertices in one place become one vertex, so that light has no seam there."""
    vertices, faces, uvs, face_uvs = [], [], [], []
    for part in parts:
        faces.append(part.faces + sum(map(len, vertices)))
        face_uvs.append(part.face_uvs + sum(map(len, uvs)))
        vertices.append(part.vertices)
        uvs.append(part.uvs)
    rounded = torch.cat(vertices).mul(1e9).round().div(1e9) + 0.0  # + 0: no -0
    welded, places = torch.unique(rounded, dim=0, return_inverse=True)
    return Mesh(welded, places[torch.cat(faces)], torch.cat(uvs), torch.cat(face_uvs))
