"""Cars, boxes and walls as convex solids: six half-spaces each, which a ray meets in closed form.

A box is (x, y, z, length, width, height, heading): the middle of its underside in metres, its extents along,
across and up, and the angle of its length from x towards y in radians.
"""

from __future__ import annotations

import torch
from torch import Tensor

CLEARANCE = 0.2  # metres of air below a car
BELT = 0.55  # of a car's height, up to where its body goes; above it is the cabin
_SALOON, _ESTATE = 1.45, 1.85  # metres high: the shortest cabin and the longest


def box_solids(boxes: Tensor) -> Tensor:
    """The half-spaces n x <= d, of which boxes [..., 7] consist, as (n, d) with unit n: [..., 6, 4]."""
    return _frustums(boxes, 1, 1)


def car_solids(cars: Tensor) -> Tensor:
    """The half-spaces of cars [..., 7], [..., 2, 6, 4]: of the body, and of the cabin, which narrows upwards
    to a flat roof at the car's height (see `roofs`). The higher the car, the longer its cabin."""
    x, y, z, length, width, height, heading = cars.unbind(-1)
    body = torch.stack([x, y, z + CLEARANCE, length, width, BELT * height - CLEARANCE, heading], -1)
    middle_x, middle_y = _cabin_middle(cars)
    cabin_length = (0.62 + 0.16 * _estate(height)) * length
    cabin = torch.stack(
        [middle_x, middle_y, z + BELT * height, cabin_length, 0.96 * width, (1 - BELT) * height, heading], -1
    )
    return torch.stack([_frustums(body, 1, 1), _frustums(cabin, 0.6 + 0.18 * _estate(height), 0.8)], -3)


def roofs(cars: Tensor) -> Tensor:
    """The flat roofs of cars [..., 7] as boxes without height: what is on a roof stands within, [..., 7]."""
    _, _, z, length, width, height, heading = cars.unbind(-1)
    estate = _estate(height)
    roof_length = (0.62 + 0.16 * estate) * (0.6 + 0.18 * estate) * length
    flat = torch.zeros_like(height)
    return torch.stack([*_cabin_middle(cars), z + height, roof_length, 0.8 * 0.96 * width, flat, heading], -1)


def _estate(height: Tensor) -> Tensor:
    """0 for a saloon, 1 for an estate."""
    return ((height - _SALOON) / (_ESTATE - _SALOON)).clamp(0, 1)


def _cabin_middle(cars: Tensor) -> tuple[Tensor, Tensor]:
    x, y, _, length, _, height, heading = cars.unbind(-1)
    backwards = (0.03 + 0.07 * _estate(height)) * length
    return x - backwards * heading.cos(), y - backwards * heading.sin()


def _frustums(boxes: Tensor, top_length: Tensor | float, top_width: Tensor | float) -> Tensor:
    """Half-spaces [..., 6, 4] of boxes [..., 7] whose upper side has these shares of length and width."""
    x, y, z, length, width, height, heading = boxes.unbind(-1)
    cos, sin, zero, one = heading.cos(), heading.sin(), torch.zeros_like(x), torch.ones_like(x)
    planes = []
    for extent, share, axis in ((length, top_length, (cos, sin)), (width, top_width, (-sin, cos))):
        rise, run = height, (1 - share) * extent / 2
        norm = torch.hypot(rise, run)
        for sign in (1, -1):
            normal = (sign * axis[0] * rise / norm, sign * axis[1] * rise / norm, run / norm)
            planes.append((*normal, rise * extent / 2 / norm))
    planes += [(zero, zero, one, height), (zero, zero, -one, zero)]
    local = torch.stack([torch.stack(plane, -1) for plane in planes], -2)
    normals, distances = local[..., :3], local[..., 3]
    middle = torch.stack([x, y, z], -1)[..., None, :]
    return torch.cat([normals, (distances + (normals * middle).sum(-1))[..., None]], -1)
