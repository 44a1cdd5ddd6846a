"""A spinning LiDAR: rays from one point against the ground and convex solids, the nearest of which returns.

Everything is in metres with z up, the ground at z = 0, and the sensor above the origin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.core.random_numbers import fold_in, make_key, normal, uniform
from vitrine.core.settings import setting

NOTHING, GROUND = -2, -1  # what a ray meets that meets no solid
_AT_ONCE = 1024  # rays: what is computed of them stays in the processor's cache


@dataclass(frozen=True)
class Scanner:
    """A LiDAR of 64 beams, about that of KITTI (Geiger et al. 2012), which looks at a sector ahead."""

    beams: int = setting(64, "beams, one above the other", least=1, most=512)
    lowest: float = setting(-24.9, "degrees of the lowest beam above the horizon", least=-89, most=0)
    highest: float = setting(2.0, "degrees of the highest beam above the horizon", least=-89, most=89)
    step: float = setting(0.4, "degrees between two shots of a beam", above=0, most=10)
    sector: float = setting(90.0, "degrees that are scanned, the middle straight ahead", above=0, most=360)
    height: float = setting(1.73, "metres of the sensor above the ground", above=0, most=10)
    reach: float = setting(45.0, "metres, from beyond which nothing returns", above=1, most=200)
    noise: float = setting(0.02, "metres, standard deviation of a measured range", least=0, most=1)
    dropout: float = setting(0.08, "probability that a return is lost", least=0, most=1)

    @property
    def origin(self) -> Tensor:
        """Where the sensor is, [3]."""
        return torch.tensor([0.0, 0.0, self.height])


class Hits(NamedTuple):
    """What R rays meet first."""

    distances: Tensor  # [R], along the unit direction; inf: nothing within reach
    solids: Tensor  # int64 [R], which solid; GROUND, NOTHING


class Scan(NamedTuple):
    """What a scanner measures."""

    points: Tensor  # [N, 3], where something returned
    rays: Tensor  # int64 [N], the ray of each, of `ray_directions`
    solids: Tensor  # int64 [N], what returned it; GROUND


def ray_directions(scanner: Scanner) -> Tensor:
    """The unit directions of all shots of a turn, beam by beam from below, [R, 3]."""
    shots = max(1, round(scanner.sector / scanner.step))
    azimuth = torch.deg2rad((torch.arange(shots) - (shots - 1) / 2) * scanner.step)
    elevation = torch.deg2rad(torch.linspace(scanner.lowest, scanner.highest, scanner.beams))[:, None]
    flat = elevation.cos()
    parts = (flat * azimuth.cos(), flat * azimuth.sin(), elevation.sin().expand(-1, shots))
    return torch.stack(parts, -1).view(-1, 3)


def cast(origin: Tensor, directions: Tensor, solids: Tensor, reach: float = math.inf) -> Hits:
    """What rays meet first: one of the convex solids, or the ground at z = 0, or nothing.

    A ray is inside a convex solid from where it has entered the last of its half-spaces to where it leaves
    the first (Cyrus and Beck 1978). Differentiable in all but which solid is met.

    Args:
        origin: [3], of all rays, outside of the solids.
        directions: unit, [R, 3].
        solids: half-spaces n x <= d as (n, d), [S, F, 4].
        reach: how far rays go.
    """
    down = directions[:, 2]
    distances = torch.where(down < 0, -origin[2] / torch.where(down < 0, down, -1), torch.inf)
    met = torch.where(distances.isfinite(), GROUND, NOTHING)
    if len(solids):
        parts = [enter_solids(origin, some, solids).min(1) for some in directions.split(_AT_ONCE)]
        nearest, which = (torch.cat(of) for of in zip(*parts))
        solid = nearest < distances
        distances, met = torch.where(solid, nearest, distances), torch.where(solid, which, met)
    beyond = distances > reach
    return Hits(distances.masked_fill(beyond, torch.inf), met.masked_fill(beyond, NOTHING))


def enter_solids(origin: Tensor, directions: Tensor, solids: Tensor) -> Tensor:
    """How far along each ray it enters each of the solids, [R, S]; inf where it does not (see `cast`)."""
    normals, limits = solids[..., :3], solids[..., 3]
    slope = (directions @ normals.reshape(-1, 3).T).view(len(directions), *limits.shape)  # [R, S, F]
    room = limits - normals @ origin  # [S, F]; negative: the origin is outside of the half-space
    tiny = torch.finfo(slope.dtype).tiny
    along = room / torch.where(slope.abs() < tiny, tiny, slope)
    enter = along.masked_fill(slope >= 0, -torch.inf).amax(-1)
    leave = along.masked_fill(slope <= 0, torch.inf).amin(-1)
    # parallel to a face, and outside of it
    missed = ((slope.abs() < tiny) & (room < 0)).any(-1)
    return enter.masked_fill(missed | (enter >= leave) | (enter <= 0), torch.inf)


def measure(scanner: Scanner, directions: Tensor, hits: Hits, seed: int) -> Scan:
    """What a scanner reports of what its rays meet: without the returns that are lost, and with noise.

    The numbers drawn for a ray depend on seed and ray alone, so that scenes which differ in an object differ
    in no other ray. Differentiable in the distances.
    """
    kept, errors = ray_errors(scanner, directions, seed)
    rays = (kept & hits.distances.isfinite()).nonzero()[:, 0]
    distances = (hits.distances[rays] + errors[rays]).clamp(min=0)
    points = scanner.origin.to(directions) + distances[:, None] * directions[rays]
    return Scan(points, rays, hits.solids[rays])


def ray_errors(scanner: Scanner, directions: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Whether a return of each ray [R, 3] is kept, bool [R], and the error of its range in metres, [R]."""
    rays = torch.arange(len(directions), device=directions.device)
    keys = fold_in(torch.tensor(make_key(seed), device=directions.device), rays)
    kept = uniform(keys, 1)[:, 0] >= scanner.dropout
    return kept, (normal(fold_in(keys, 1), 1)[:, 0] * scanner.noise).to(directions.dtype)
