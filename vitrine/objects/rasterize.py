"""A z-buffer in torch: which point of a mesh each pixel of each view shows.

All triangles of many views at once: every triangle becomes the pixels of its bounding box, those outside it
are dropped, and the nearest of each pixel is kept. In float64, and one operation of IEEE 754 after another: a
view's bits do not depend on which others there are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.objects.mesh import Mesh

FIELD_OF_VIEW = 50  # degrees, of the image's whole width: a unit sphere fits at a distance of 2.5
FOCAL = 1 / math.tan(math.radians(FIELD_OF_VIEW / 2))
NEAR = 0.1  # the smallest distance before the camera
_AT_ONCE = 2**21  # pixels, or triangles, of all views of a pass


class Lookup(NamedTuple):
    """What each pixel of N views shows; where the mesh is not, zeros."""

    mask: Tensor  # bool [N, H, W], whether it shows the mesh
    uvs: Tensor  # float64 [N, H, W, 2], where on the texture, in [0, 1]
    normals: Tensor  # float64 [N, H, W, 3], unit, as seen from the camera and towards it
    depth: Tensor  # float64 [N, H, W], along the camera's axis
    faces: Tensor  # int64 [N, H, W], which triangle; -1: none
    repeats: Tensor  # bool [N], whether the mesh shows the texture more than once


def rasterize(mesh: Mesh, rotations: Tensor, positions: Tensor, size: int) -> Lookup:
    """What square images show of a mesh, before a camera in the origin that looks along -z, y up.

    Args:
        rotations: float64 [N, 3, 3], of the mesh about its origin.
        positions: float64 [N, 3], of that origin before the camera.
        size: pixels a side.

    Raises:
        ValueError: a vertex is not at least NEAR before the camera.
    """
    normals = mesh.corner_normals
    views = max(1, _AT_ONCE // max(size**2, len(mesh.faces)))
    parts = [
        _rasterize(mesh, normals, r, p, size) for r, p in zip(rotations.split(views), positions.split(views))
    ]
    return Lookup(*(torch.cat(fields) for fields in zip(*parts)))


def _rasterize(mesh: Mesh, normals: Tensor, rotations: Tensor, positions: Tensor, size: int) -> Lookup:
    count, faces = len(rotations), len(mesh.faces)
    x, y, z = (
        rotated + shift[:, None] for rotated, shift in zip(_rotate(rotations, mesh.vertices), positions.T)
    )
    distance = -z
    if not (distance > NEAR).all():
        raise ValueError(
            f"positions: a vertex is {distance.min():.3g} before the camera, expected more than {NEAR}"
        )
    across = ((x / distance * FOCAL + 1) * (size / 2))[:, mesh.faces].view(-1, 3)  # in pixels, [N F, 3]
    down = ((1 - y / distance * FOCAL) * (size / 2))[:, mesh.faces].view(-1, 3)
    inverse = (1 / distance)[:, mesh.faces].view(-1, 3)
    lines, area = _lines(across, down, inverse)
    drawn = area != 0 if mesh.two_sided else area < 0  # anticlockwise, but y counts from above

    triangle, column, row = _fragments(across, down, size, drawn)
    line = lines[triangle]
    # what is linear on the surface is, divided by the distance, linear on the image
    weights = [line[:, i] * (column + 0.5) + line[:, 3 + i] * (row + 0.5) + line[:, 6 + i] for i in range(3)]
    kept = (torch.minimum(torch.minimum(weights[0], weights[1]), weights[2]) >= 0).nonzero()[:, 0]
    triangle, column, row, *weights = (of[kept] for of in (triangle, column, row, *weights))
    nearness = weights[0] + weights[1] + weights[2]

    pixel = (triangle // faces) * size**2 + row * size + column
    nearest = nearness.new_zeros(count * size**2).scatter_reduce_(0, pixel, nearness, "amax")
    first = torch.where(nearness == nearest[pixel], torch.arange(len(pixel)), len(pixel))
    chosen = torch.full((count * size**2,), len(pixel)).scatter_reduce_(0, pixel, first, "amin")
    shown = (chosen < len(pixel)).nonzero()[:, 0]
    chosen = chosen[shown]
    view, face = triangle[chosen] // faces, triangle[chosen] % faces
    weights = [weight[chosen] / nearness[chosen] for weight in weights]

    uvs = _interpolate(weights, mesh.uvs[mesh.face_uvs[face]])
    if mesh.repeats:  # not at the corners: a triangle may lie across a border
        uvs = uvs - uvs.floor()
    turned = torch.stack(_rotate_each(rotations[view], _interpolate(weights, normals[face])), 1)
    depth = 1 / nearness[chosen]
    ray = [((column[chosen] + 0.5) * 2 / size - 1) / FOCAL, (1 - (row[chosen] + 0.5) * 2 / size) / FOCAL]
    away = turned[:, 0] * ray[0] + turned[:, 1] * ray[1] - turned[:, 2] > 0
    length = (turned[:, 0].square() + turned[:, 1].square() + turned[:, 2].square()).sqrt().clamp(min=1e-30)
    turned = turned / torch.where(away, -length, length)[:, None]

    def image(values: Tensor, empty: float = 0) -> Tensor:
        full = values.new_full((count * size**2, *values.shape[1:]), empty)
        full[shown] = values
        return full.view(count, size, size, *values.shape[1:])

    return Lookup(
        image(torch.ones_like(shown, dtype=torch.bool)),
        image(uvs),
        image(turned),
        image(depth),
        image(face, -1),
        torch.full((count,), mesh.repeats),
    )


def _fragments(across: Tensor, down: Tensor, size: int, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels with their middles in the bounding box of each triangle drawn: triangle, column and row,
    each [fragments]."""
    left, right = (bound.long() for bound in _pixels(across, size))
    top, bottom = (bound.long() for bound in _pixels(down, size))
    width, height = (right - left).clamp(min=0), (bottom - top).clamp(min=0)
    counts = width * height * drawn
    triangle = torch.repeat_interleave(torch.arange(len(counts)), counts)
    number = torch.arange(len(triangle)) - (counts.cumsum(0) - counts)[triangle]
    width = width[triangle]
    row = number // width
    return triangle, left[triangle] + number - row * width, top[triangle] + row


def _pixels(along: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The first pixel of each triangle's extent [T, 3], and the first beyond it."""
    return (along.amin(1) - 0.5).ceil().clamp(0, size), (along.amax(1) + 0.5).floor().clamp(0, size)


def _lines(across: Tensor, down: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """For each triangle [T, 3] the linear functions a x + b y + c of the image that are, at each corner, its
    inverse distance, and 0 on the edge opposite: a, b and c of three corners, [T, 9]; and twice the signed
    areas, [T]."""
    slopes, rises, constants = [], [], []
    for start, end in ((1, 2), (2, 0), (0, 1)):
        ax, ay, bx, by = across[:, start], down[:, start], across[:, end], down[:, end]
        slopes.append(ay - by)
        rises.append(bx - ax)
        constants.append(ax * by - bx * ay)
    area = constants[0] + constants[1] + constants[2]
    scale = inverse / area[:, None]
    return torch.cat([torch.stack(of, 1) * scale for of in (slopes, rises, constants)], 1), area


def _rotate(rotations: Tensor, points: Tensor) -> list[Tensor]:
    """Points [V, 3] under each rotation [N, 3, 3]: x, y, z, each [N, V]."""
    # not a product of matrices: how its sums are rounded depends on the batch
    x, y, z = points.T
    return [r[:, 0, None] * x + r[:, 1, None] * y + r[:, 2, None] * z for r in rotations.unbind(1)]


def _rotate_each(rotations: Tensor, points: Tensor) -> list[Tensor]:
    """Points [P, 3], each under its own rotation [P, 3, 3]: x, y, z, each [P]."""
    x, y, z = points.T
    return [r[:, 0] * x + r[:, 1] * y + r[:, 2] * z for r in rotations.unbind(1)]


def _interpolate(weights: list[Tensor], corners: Tensor) -> Tensor:
    """The weighted sum [P, K] of values at three corners [P, 3, K]."""
    first, second, third = (weight[:, None] * corners[:, i] for i, weight in enumerate(weights))
    return first + second + third
