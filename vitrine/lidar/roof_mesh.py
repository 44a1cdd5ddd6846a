"""Meshes that stand on a car's roof: from numbers to vertices within a box, and where the roof is."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrine.lidar.icosphere import icosphere
from vitrine.lidar.solids import roofs

Extents = tuple[float, float, float]  # metres along, across and up, of the box that a mesh is within
EXTENTS: Extents = (0.7, 0.7, 0.5)  # of the largest mesh of Tu et al. (2020)
LEVEL = 2  # 162 vertices
_START = 0.9  # of the box: the ellipsoid from which offsets go


def sphere_mesh(level: int = LEVEL) -> tuple[Tensor, Tensor]:
    """The vertices float32 [V, 3] and faces int64 [F, 3] that meshes are made from."""
    vertices, faces = icosphere(level)
    return vertices.float(), faces


def shape(offsets: Tensor, extents: Extents = EXTENTS) -> Tensor:
    """The vertices [..., V, 3] in metres for any offsets: an ellipsoid where they are 0, never outside of the
    box, whose underside has its middle at the origin.

    Args:
        offsets: [..., V, 3], for the vertices of `sphere_mesh`; 1 goes from the middle to 3/4 of the way.
        extents: of the box.
    """
    sphere = sphere_mesh()[0].to(offsets)
    half = offsets.new_tensor(extents) / 2
    inside = torch.tanh(torch.atanh(_START * sphere) + offsets)
    return half * (inside + inside.new_tensor([0.0, 0.0, 1.0]))


def from_roof(points: Tensor, car: Tensor) -> Tensor:
    """Points [..., 3] in metres from the middle of a car's roof, turned with the car [7] and put there."""
    x, y, z, _, _, _, heading = roofs(car).unbind(-1)
    cos, sin = heading.cos(), heading.sin()
    along, across, up = points.unbind(-1)
    return torch.stack([x + cos * along - sin * across, y + sin * along + cos * across, z + up], -1)


def harmonics(points: Tensor) -> Tensor:
    """The sixteen smoothest functions on the sphere at unit vectors [V, 3]: spherical harmonics up to degree
    3, each with a mean square of about 1, [V, 16]."""
    x, y, z = points.unbind(-1)
    one = torch.ones_like(x)
    columns = [one, x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1]
    columns += [x * (x * x - 3 * y * y), y * (3 * x * x - y * y), z * (x * x - y * y), x * y * z]
    columns += [x * (5 * z * z - 1), y * (5 * z * z - 1), z * (5 * z * z - 3)]
    basis = torch.stack(columns, -1)
    return basis / basis.square().mean(0).sqrt()


def smooth_offsets(coefficients: Tensor) -> Tensor:
    """Offsets [..., V, 3] of coefficients [..., 48] of `harmonics` for each axis."""
    basis = harmonics(sphere_mesh()[0].double()).to(coefficients)
    return torch.einsum("vh,...hc->...vc", basis, coefficients.unflatten(-1, (basis.shape[1], 3)))


def random_mesh(seed: int, roughness: float = 0.5, extents: Extents = EXTENTS) -> Tensor:
    """The vertices [V, 3] of a mesh that is random and fills the box, whose middle is as in `shape`.

    Args:
        roughness: standard deviation of the offset of each vertex; the shape as a whole varies as much.
        extents: of the box.
    """
    generator = torch.Generator().manual_seed(seed)
    sphere = sphere_mesh()[0]
    rough = roughness * torch.randn(sphere.shape, generator=generator)
    smooth = roughness / 4 * torch.randn(48, generator=generator)
    return fill_box(shape(rough + smooth_offsets(smooth), extents), extents)


def fill_box(vertices: Tensor, extents: Extents = EXTENTS) -> Tensor:
    """Vertices [V, 3] moved and stretched along each axis until they reach all sides of the box."""
    low, high = vertices.amin(0), vertices.amax(0)
    sides = vertices.new_tensor(extents)
    share = (vertices - low) / (high - low)
    return (share - share.new_tensor([0.5, 0.5, 0.0])) * sides


def obj_text(vertices: Tensor) -> str:
    """A mesh of `sphere_mesh`'s faces as the text of an .obj file."""
    lines = ["v " + " ".join(f"{x:.6g}" for x in row) for row in vertices.tolist()]
    lines += ["f " + " ".join(map(str, row)) for row in (sphere_mesh()[1] + 1).tolist()]
    return "\n".join(lines) + "\n"
