"""Streets by seed: cars on the ground, walls, poles and crates, and what stands on roofs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.core.random_numbers import make_key
from vitrine.core.settings import setting
from vitrine.lidar import boxes as rectangles
from vitrine.lidar.scanner import Hits, Scan, Scanner, cast, measure, ray_directions
from vitrine.lidar.solids import box_solids, car_solids, roofs

# the seeds of scenes, from the first of a split on: no scene of one is in another
FIRST_SEED = {"train": 0, "val": 1_000_000, "held_out": 2_000_000}
_TRIES = 12  # to find a free place for a thing, which is left out else
_GAP = 0.4  # metres between two things at least


@dataclass(frozen=True)
class Streets:
    """What streets have in them."""

    cars: int = setting(7, "cars of a scene, at most", least=1, most=40)
    clutter: int = setting(6, "walls, poles and crates of a scene, at most", least=0, most=40)
    roof_loads: float = setting(0.3, "share of the cars that carry a box on their roof", least=0, most=1)
    nearest: float = setting(5.0, "metres to the middle of the nearest car, at least", least=3, most=50)
    farthest: float = setting(38.0, "metres to the middle of the farthest car, at most", least=5, most=200)


class Scene(NamedTuple):
    """A street; boxes [..., 7] as in `solids`, with z of their underside."""

    cars: Tensor  # [N, 7]
    loads: Tensor  # [N, 7], the box on each car's roof; of no size where there is none
    clutter: Tensor  # [M, 7]
    seed: int

    @property
    def solids(self) -> Tensor:
        """Half-spaces [S, 6, 4]: body and cabin of each car in turn, then the loads, then the clutter."""
        cars = car_solids(self.cars).flatten(0, 1)
        return torch.cat([cars, box_solids(self.loads[self.loaded]), box_solids(self.clutter)])

    @property
    def loaded(self) -> Tensor:
        """Which cars have something on their roof, bool [N]."""
        return self.loads[:, 3] > 0

    def cars_of(self, solids: Tensor) -> Tensor:
        """The car that each of these solids belongs to, its load included; -1: none."""
        owner = torch.arange(len(self.cars)).repeat_interleave(2)
        owner = torch.cat([owner, self.loaded.nonzero()[:, 0], torch.full((len(self.clutter) + 2,), -1)])
        return owner.to(solids.device)[solids]  # GROUND and NOTHING are the last two


def draw_scene(seed: int, streets: Streets | None = None) -> Scene:
    """The street of a seed; the same whatever else is drawn, and with other loads the same otherwise."""
    streets = streets or Streets()
    random = torch.Generator().manual_seed(make_key(seed, 1))

    def between(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=random).item()

    road = between(-0.35, 0.35)  # radians
    cars: list[list[float]] = []
    clutter: list[list[float]] = []
    for _ in range(round(between(1, streets.cars))):
        for _ in range(_TRIES):
            distance, bearing = between(streets.nearest, streets.farthest), between(-0.7, 0.7)
            x, y = distance * math.cos(bearing), distance * math.sin(bearing)
            along = between(0, 1) < 0.7
            heading = road + between(-0.1, 0.1) if along else between(-math.pi, math.pi)
            heading += math.pi * (between(0, 1) < 0.5)
            height = between(1.4, 1.9)
            car = [x, y, 0.0, between(3.6, 4.9), between(1.6, 1.95), height, _wrap(heading)]
            if _is_free(car, cars):
                cars.append(car)
                break
    for _ in range(round(between(0, streets.clutter))):
        kind = between(0, 1)
        for _ in range(_TRIES):
            distance, bearing = between(4, 40), between(-0.78, 0.78)
            x, y = distance * math.cos(bearing), distance * math.sin(bearing)
            if kind < 0.4:  # a wall or a house
                size = [between(4, 15), between(0.2, 4), between(0.8, 4)]
                heading = road + between(-0.1, 0.1) + math.pi / 2 * (between(0, 1) < 0.3)
            elif kind < 0.7:  # a pole or a trunk
                width = between(0.1, 0.5)
                size, heading = [width, width, between(1.5, 4)], 0.0
            else:  # a crate, a bin, a hedge
                size = [between(0.4, 3), between(0.4, 1.5), between(0.4, 1.8)]
                heading = between(-math.pi, math.pi)
            thing = [x, y, 0.0, *size, _wrap(heading)]
            if _is_free(thing, [*cars, *clutter]) and not _covers_sensor(thing):
                clutter.append(thing)
                break
    parked = torch.tensor(cars).view(-1, 7)
    loads = draw_loads(parked, streets.roof_loads, make_key(seed, 2))
    return Scene(parked, loads, torch.tensor(clutter).view(-1, 7), seed)


def draw_loads(cars: Tensor, share: float, seed: int) -> Tensor:
    """Boxes on the roofs of a share of the cars [N, 7], such as luggage: [N, 7], of no size on the others."""
    random = torch.Generator().manual_seed(seed)
    chosen, *size = torch.rand(6, len(cars), generator=random)
    roof = roofs(cars)
    length = torch.minimum(0.3 + 1.2 * size[0], roof[:, 3])
    width = torch.minimum(0.3 + 0.9 * size[1], roof[:, 4])
    height = 0.1 + 0.4 * size[2]
    along, across = (size[3] - 0.5) * (roof[:, 3] - length), (size[4] - 0.5) * (roof[:, 4] - width)
    cos, sin = roof[:, 6].cos(), roof[:, 6].sin()
    x, y = roof[:, 0] + along * cos - across * sin, roof[:, 1] + along * sin + across * cos
    loads = torch.stack([x, y, roof[:, 2], length, width, height, roof[:, 6]], 1)
    return torch.where((chosen < share)[:, None], loads, 0)


def hits_of(scene: Scene, scanner: Scanner, directions: Tensor | None = None) -> Hits:
    """What the rays of a scanner meet in a scene."""
    directions = ray_directions(scanner) if directions is None else directions
    return cast(scanner.origin, directions, scene.solids, scanner.reach)


def scan_scene(scene: Scene, scanner: Scanner) -> Scan:
    """What a scanner measures of a scene."""
    directions = ray_directions(scanner)
    return measure(scanner, directions, hits_of(scene, scanner, directions), make_key(scene.seed, 3))


def returns(scene: Scene, scan: Scan) -> Tensor:
    """How many points each car returned, int64 [N]."""
    cars = scene.cars_of(scan.solids)
    return torch.bincount(cars[cars >= 0], minlength=len(scene.cars))


def _wrap(angle: float) -> float:
    return math.remainder(angle, math.tau)


def _is_free(thing: list[float], others: list[list[float]]) -> bool:
    """Whether a thing overlaps no other, with a gap around it."""
    if not others:
        return True
    own, taken = (rectangles.from_above(torch.tensor(of).view(-1, 7)) for of in (thing, others))
    own[:, 2:4] += 2 * _GAP
    return not bool((rectangles.pairwise_iou(own, taken) > 0).any())


def _covers_sensor(thing: list[float]) -> bool:
    own = rectangles.from_above(torch.tensor(thing))
    own[2:4] += 4.0
    return bool(rectangles.contains(own, torch.zeros(2)))
