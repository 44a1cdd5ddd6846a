"""Procedural meshes with UV coordinates: sphere, cube, mug, bottle, turtle, car."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from vitrine.core.registry import UnknownName
from vitrine.objects.mesh import Mesh, join, patch

Box = tuple[float, float, float, float]  # of the texture: left, bottom, right, top
AROUND = 24  # segments around an axis


@cache
def make(name: str) -> Mesh:
    """The shape of that name, within the unit sphere around the origin.

    Raises:
        UnknownName: there is none; with the nearest.
    """
    if name not in SHAPES:
        raise UnknownName("shape", name, list(SHAPES))
    return replace(SHAPES[name]().fitted(), two_sided=False)


def sphere() -> Mesh:
    """A ball: longitude along u, latitude along v."""
    return join([_ellipsoid((0, 0, 0), (1, 1, 1), (0, 0, 1, 1), 16)])


def cube() -> Mesh:
    """A cube, each side a sixth of the texture."""
    return join(_hexahedron(_block((-1, -1, -1), (1, 1, 1)), (0, 0, 1, 1)))


def mug() -> Mesh:
    """A mug with a handle, hollow."""
    outer = [(0, -1), (0.7, -1), (0.75, -0.95), (0.78, -0.3), (0.78, 0.4), (0.78, 1)]
    inner = [(0.78, 1), (0.68, 1), (0.68, 0.4), (0.66, -0.4), (0.6, -0.85), (0, -0.85)]
    angle = torch.linspace(-0.5 * math.pi, 0.5 * math.pi, 13, dtype=torch.float64)
    ring = torch.linspace(0, 2 * math.pi, 11, dtype=torch.float64)
    radius = 0.5 + 0.1 * ring.cos()[:, None]
    handle = [
        0.72 + radius * angle.cos(),
        0.05 + radius * angle.sin(),
        (0.13 * ring.sin())[:, None].expand(-1, 13),
    ]
    middle = torch.tensor([1.0, 0.05, 0], dtype=torch.float64)
    return join(
        [
            _revolved(outer, (0, 0.4, 1, 1)),
            _revolved(inner, (0, 0, 0.6, 0.4), inside=True),
            patch(torch.stack(handle, -1), (0.6, 0, 1, 0.4), middle),
        ]
    )


def bottle() -> Mesh:
    """A bottle with shoulders, a neck and a closed top."""
    profile = [(0, -1.5), (0.5, -1.5), (0.56, -1.44), (0.56, -0.7), (0.56, 0.1), (0.52, 0.35), (0.38, 0.6)]
    profile += [(0.22, 0.8), (0.19, 1.1), (0.19, 1.35), (0.23, 1.37), (0.23, 1.5), (0, 1.5)]
    return join([_revolved(profile, (0, 0, 1, 1))])


def turtle() -> Mesh:
    """A sea turtle: shell, belly, head, tail and four flippers."""
    shell, belly = (
        _dome((1.0, 0.65, 0.8), True, (0, 0.4, 1, 1)),
        _dome((1.0, 0.3, 0.8), False, (0, 0, 0.5, 0.4)),
    )
    parts = [shell, belly, _ellipsoid((1.2, 0.02, 0), (0.34, 0.2, 0.22), (0.5, 0.2, 0.75, 0.4))]
    parts.append(_ellipsoid((-1.1, -0.03, 0), (0.25, 0.07, 0.09), (0.5, 0, 0.6, 0.2)))
    for side, left in ((1, 0.6), (-1, 0.8)):
        front = _ellipsoid(
            (0.62, -0.06, side * 0.95), (0.26, 0.07, 0.55), (left, 0, left + 0.2, 0.2), turn=side * 0.5
        )
        back = _ellipsoid(
            (-0.72, -0.06, side * 0.72),
            (0.18, 0.06, 0.34),
            (0.75, 0.2, 0.875, 0.4) if side > 0 else (0.875, 0.2, 1, 0.4),
            turn=-side * 0.6,
        )
        parts += [front, back]
    return join(parts)


def car() -> Mesh:
    """A saloon car: a body, a cabin narrower above than below, and four wheels."""
    body = _block((-1.5, -0.35, -0.65), (1.5, 0.2, 0.65))
    cabin = _block((-0.95, 0.2, -0.6), (0.8, 0.7, 0.6))
    above = cabin[:, 1] > 0.5
    cabin[above, 0] = cabin[above, 0] * 0.65 - 0.05
    cabin[above, 2] = cabin[above, 2] * 0.8
    parts = _hexahedron(body, (0, 0.35, 1, 1)) + _hexahedron(cabin, (0, 0, 0.7, 0.35))
    wheels = [(-0.95, 0.62), (0.95, 0.62), (-0.95, -0.62), (0.95, -0.62)]
    profile = [(0, -0.1), (0.2, -0.1), (0.3, -0.08), (0.3, 0.08), (0.2, 0.1), (0, 0.1)]
    for number, (x, z) in enumerate(wheels):
        left, bottom = 0.7 + 0.15 * (number % 2), 0.175 * (number // 2)
        wheel = _revolved(profile, (left, bottom, left + 0.15, bottom + 0.175), segments=16)
        lying = wheel.vertices[:, [0, 2, 1]] * torch.tensor([1.0, 1, -1], dtype=torch.float64)
        lying = lying + torch.tensor([x, -0.36, z], dtype=torch.float64)
        parts.append(Mesh(lying, wheel.faces, wheel.uvs, wheel.face_uvs))
    return join(parts)


SHAPES: dict[str, Callable[[], Mesh]] = {
    shape.__name__: shape for shape in (sphere, cube, mug, bottle, turtle, car)
}


def _revolved(
    profile: Sequence[tuple[float, float]], box: Box, segments: int = AROUND, inside: bool = False
) -> Mesh:
    """A profile of radii and heights turned about the y axis; `inside`: seen from its axis."""
    radius, height = torch.tensor(profile, dtype=torch.float64).unbind(1)
    cos, sin = _circle(segments)
    points = torch.stack(
        [radius[:, None] * cos, height[:, None].expand(-1, segments + 1), -radius[:, None] * sin], -1
    )
    surface = patch(points, box, torch.zeros(3, dtype=torch.float64))
    # v follows the length of the profile, so that the texture is nowhere stretched along it
    lengths = (points[1:, 0] - points[:-1, 0]).norm(dim=1)
    lengths = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    along = lengths / lengths[-1]
    v = (box[1] + (box[3] - box[1]) * along)[:, None].expand(-1, segments + 1).reshape(-1)
    uvs = torch.stack([surface.uvs[:, 0], v], 1)
    flip = (1,) if inside else ()
    return Mesh(surface.vertices, surface.faces.flip(flip), uvs, surface.face_uvs.flip(flip))


def _ellipsoid(
    centre: Sequence[float], radii: Sequence[float], box: Box, rows: int = 6, turn: float = 0.0
) -> Mesh:
    """An ellipsoid, turned about the vertical by an angle."""
    angle = torch.linspace(-math.pi / 2, math.pi / 2, rows + 1, dtype=torch.float64)
    cos, sin = _circle(AROUND if rows > 6 else 10)
    x, z = angle.cos()[:, None] * cos * radii[0], -angle.cos()[:, None] * sin * radii[2]
    y = (angle.sin() * radii[1])[:, None].expand_as(x)
    x, z = x * math.cos(turn) + z * math.sin(turn), z * math.cos(turn) - x * math.sin(turn)
    middle = torch.tensor(centre, dtype=torch.float64)
    return patch(torch.stack([x, y, z], -1) + middle, box, middle)


def _dome(radii: Sequence[float], upper: bool, box: Box) -> Mesh:
    """The upper or lower half of an ellipsoid: from above, its texture is a disc's, cut along a radius."""
    angle = torch.linspace(0, math.pi / 2, 8, dtype=torch.float64)
    cos, sin = _circle(AROUND)
    x, z = angle.cos()[:, None] * cos * radii[0], -angle.cos()[:, None] * sin * radii[2]
    y = (angle.sin() * (radii[1] if upper else -radii[1]))[:, None].expand_as(x)
    return patch(torch.stack([x, y, z], -1), box, torch.zeros(3, dtype=torch.float64))


def _circle(segments: int) -> tuple[Tensor, Tensor]:
    angle = torch.linspace(0, 2 * math.pi, segments + 1, dtype=torch.float64)
    cos, sin = angle.cos(), angle.sin()
    cos[-1], sin[-1] = 1, 0  # closed to the last bit
    return cos, sin


def _block(low: Sequence[float], high: Sequence[float]) -> Tensor:
    """The corners of a box, [8, 3]: x varies slowest, z fastest."""
    return torch.cartesian_prod(*(torch.tensor(pair, dtype=torch.float64) for pair in zip(low, high)))


def _hexahedron(corners: Tensor, box: Box) -> list[Mesh]:
    """The six sides of a body with the corners of `_block`, each a sixth of a rectangle of the texture."""
    left, bottom, right, top = box
    wide, high = (right - left) / 3, (top - bottom) / 2
    sides = [(0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 4, 5), (2, 3, 6, 7), (0, 4, 2, 6), (1, 5, 3, 7)]
    middle = corners.mean(0)
    return [
        patch(
            corners[list(side)].view(2, 2, 3),
            (
                left + wide * (number % 3),
                bottom + high * (number // 3),
                left + wide * (number % 3 + 1),
                bottom + high * (number // 3 + 1),
            ),
            middle,
        )
        for number, side in enumerate(sides)
    ]
