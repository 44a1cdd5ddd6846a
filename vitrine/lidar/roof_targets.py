"""Cars in scans, prepared so that a mesh on the roof costs only the rays that may meet it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.core.random_numbers import make_key
from vitrine.lidar.boxes import from_above
from vitrine.lidar.grid import COARSEST, Grid, hard_occupancy, occupancy
from vitrine.lidar.mesh_rays import intersect, meets_box
from vitrine.lidar.roof_mesh import EXTENTS, Extents
from vitrine.lidar.scanner import Scanner, measure, ray_directions, ray_errors
from vitrine.lidar.scenes import Scene, hits_of
from vitrine.lidar.silhouettes import soft_hits
from vitrine.lidar.solids import roofs

HARD = 1e6  # sharpness of an occupancy that is hardly smooth


class RoofTarget(NamedTuple):
    """A car in a scan of a scene, without anything on its roof, and what a mesh there can change.

    Attributes:
        scene, number: the street, and which of its cars it is.
        grid: cells around the car; `shift` [3] goes from the scene's coordinates to this grid's.
        others: the returns that no mesh within the box can change, in the scene's coordinates, [K, 3].
        base: occupancy of these, [Z, X, Y] of `grid`.
        origin: of the rays, [3]; `directions` of the M rays that may meet a mesh and whose returns are not
            lost, [M, 3].
        eye, sights: the same in the coordinates of the roof, in which meshes are.
        behind: how far along each ray is what it meets without a mesh; inf: nothing.
        errors: of each ray's range, metres, [M].
        extents: of the box on the roof that meshes are within.
    """

    scene: Scene
    number: int
    grid: Grid
    shift: Tensor
    others: Tensor
    base: Tensor
    origin: Tensor
    directions: Tensor
    eye: Tensor
    sights: Tensor
    behind: Tensor
    errors: Tensor
    extents: Extents

    @property
    def car(self) -> Tensor:
        """The car, [7], in the scene's coordinates."""
        return self.scene.cars[self.number]

    @property
    def truth(self) -> Tensor:
        """The car's rectangle from above, [5], in the coordinates of `grid`."""
        rectangle = from_above(self.car)
        return torch.cat([rectangle[:2] + self.shift[:2], rectangle[2:]])

    @property
    def range(self) -> float:
        """Metres from the sensor to the car, on the ground."""
        return self.car[:2].norm().item()

    def points(self, distances: Tensor) -> Tensor:
        """Where the M rays return from, measured with their errors, [M, 3]."""
        distances = (distances + self.errors).clamp(min=0)
        return self.origin + distances[:, None] * self.directions


def prepare(
    scene: Scene, number: int, scanner: Scanner, grid: Grid, side: int, extents: Extents = EXTENTS
) -> RoofTarget:
    """A car of a scene as the target of meshes; what is on its roof is taken away.

    Args:
        grid: of the whole scene.
        side: cells along and across that are kept around the car.
        extents: of the box on the roof that meshes will be within.
    """
    loads = scene.loads.clone()
    loads[number] = 0
    scene = scene._replace(loads=loads)
    car, seed = scene.cars[number], make_key(scene.seed, 3)
    directions, origin = ray_directions(scanner), scanner.origin
    hits = hits_of(scene, scanner, directions)
    eye, sights = _to_roof(origin, directions, car)
    kept, errors = ray_errors(scanner, directions, seed)
    along, across, up = extents
    box = torch.tensor([[-along / 2, -across / 2, 0.0], [along / 2, across / 2, up]])
    near = meets_box(box, eye, sights)
    scan = measure(scanner, directions, hits, seed)
    others = scan.points[~near[scan.rays]]
    near = near & kept
    part, shift = _around(grid, car, side)
    return RoofTarget(
        scene,
        number,
        part,
        shift,
        others,
        hard_occupancy(part, others + shift),
        origin,
        directions[near],
        eye,
        sights[near],
        hits.distances[near],
        errors[near],
        extents,
    )


def returned(target: RoofTarget, vertices: Tensor | None, faces: Tensor) -> Tensor:
    """All points of the scan [N, 3] with a mesh of vertices [V, 3] on the roof; None: without."""
    distances = target.behind
    if vertices is not None:
        on_mesh = intersect(vertices, faces, target.eye, target.sights)[0]
        distances = torch.minimum(distances, on_mesh)
    return torch.cat([target.others, target.points(distances)[distances.isfinite()]])


def hard_views(targets: Sequence[RoofTarget], vertices: Tensor, faces: Tensor) -> Tensor:
    """What the detector is shown around each car with the same mesh on its roof: occupancy [N, Z, X, Y]."""
    eyes = torch.cat([t.eye.expand_as(t.sights) for t in targets])
    distances = intersect(vertices, faces, eyes, torch.cat([t.sights for t in targets]))[0]
    distances = torch.minimum(distances, torch.cat([t.behind for t in targets]))
    views = torch.stack([t.base for t in targets])
    for view, target, some in zip(views, targets, distances.split([len(t.behind) for t in targets])):
        changed = target.points(some)[some.isfinite()] + target.shift
        cells = target.grid.cells_of(changed).floor().long()
        cells = cells[((cells >= 0) & (cells < cells.new_tensor(view.shape))).all(1)]
        view[cells[:, 0], cells[:, 1], cells[:, 2]] = 1
    return views


def soft_views(
    targets: Sequence[RoofTarget],
    vertices: Tensor,
    faces: Tensor,
    edges: Tensor,
    softness: float,
    sharpness: float,
) -> Tensor:
    """`hard_views`, differentiable in the vertices [V, 3].

    A ray meets the mesh with the probability sigmoid(how far inside the silhouette it passes / softness), and
    else what is behind, so that it leaves up to two points, each with its weight.

    Args:
        softness: metres.
        sharpness: of `grid.occupancy`, for points on the mesh.
    """
    grid = targets[0].grid
    # all crops one behind the other in one grid, which costs one call
    row = replace(grid, ahead=grid.ahead * len(targets))
    mesh_points, rear_points, weights, rear_weights = [], [], [], []
    for number, target in enumerate(targets):
        soft = soft_hits(vertices, faces, edges, target.eye, target.sights)
        weight = torch.sigmoid(soft.inside / softness) * (soft.distances.detach() < target.behind)
        place = target.shift + target.shift.new_tensor([number * grid.ahead, 0, 0])
        rear = target.points(target.behind.masked_fill(target.behind.isinf(), 0)) + target.shift
        within = target.behind.isfinite() & (rear[:, 0] >= 0) & (rear[:, 0] < grid.ahead)
        mesh_points.append(target.points(soft.distances) + place)
        weights.append(weight)
        rear_points.append((rear - target.shift + place)[within])
        rear_weights.append((1 - weight)[within])
    on_mesh = occupancy(row, torch.cat(mesh_points), torch.cat(weights), sharpness)
    beyond = occupancy(row, torch.cat(rear_points), torch.cat(rear_weights), HARD)
    changed = (1 - on_mesh) * (1 - beyond)
    changed = changed.view(grid.slices, len(targets), *grid.shape[1:]).transpose(0, 1)
    return 1 - (1 - torch.stack([t.base for t in targets])) * changed


def _to_roof(origin: Tensor, directions: Tensor, car: Tensor) -> tuple[Tensor, Tensor]:
    """A point [3] and directions [R, 3] of the scene in the coordinates of a car's roof."""
    roof = roofs(car)
    cos, sin, zero, one = roof[6].cos(), roof[6].sin(), roof.new_zeros(()), roof.new_ones(())
    axes = torch.stack(
        [torch.stack([cos, sin, zero]), torch.stack([-sin, cos, zero]), torch.stack([zero, zero, one])]
    )
    return axes @ (origin - roof[:3]), directions @ axes.T


def _around(grid: Grid, car: Tensor, side: int) -> tuple[Grid, Tensor]:
    """The part of a grid around a car, `side` cells along and across, and the way into its coordinates."""
    middle = grid.cells_of(car[:3])[1:]
    most = torch.tensor(grid.shape[1:]) - side
    # what the network halves together in the whole grid, it is to halve together here
    first = ((middle - side / 2) / COARSEST).round().long() * COARSEST
    first = torch.minimum(first.clamp(min=0), most)
    part = replace(grid, ahead=side * grid.cell, aside=side * grid.cell / 2)
    row, column = first.tolist()
    return part, torch.tensor([-row * grid.cell, grid.aside - part.aside - column * grid.cell, 0.0])
