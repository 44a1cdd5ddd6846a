"""How often a mesh on the roof hides cars from a detector, with intervals, and beside other loads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from vitrine.lidar.boxes import from_above, pairwise_iou
from vitrine.lidar.detector import Detector
from vitrine.lidar.drawing import Sight
from vitrine.lidar.evaluation import IOU
from vitrine.lidar.grid import hard_occupancy
from vitrine.lidar.icosphere import icosphere
from vitrine.lidar.roof_mesh import EXTENTS, LEVEL, Extents, fill_box, sphere_mesh
from vitrine.lidar.roof_targets import RoofTarget, prepare, returned
from vitrine.lidar.scenes import FIRST_SEED, Streets, draw_scene, returns, scan_scene

LEAST = 0.05  # score below which nothing is asked for
SIDE = 64  # cells of the crop around a car that attacks look at


def find_targets(
    detector: Detector,
    split: str,
    count: int,
    streets: Streets | None = None,
    least_points: int = 20,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    extents: Extents = EXTENTS,
) -> list[RoofTarget]:
    """Cars of the scenes of a split, one a scene, that return enough points and are in the grid.

    Args:
        split: "train", "val" or "held_out".
        count: how many.
        streets: what scenes have in them; nothing is on the target's roof.
        extents: of the box on the roof that meshes will be within.
    """
    targets, seed = [], FIRST_SEED[split]
    for _ in progress(range(count)):
        found = None
        while found is None:
            scene, seed = draw_scene(seed, streets), seed + 1
            middles = scene.cars[:, :2]
            inside = (middles[:, 0] < detector.grid.ahead) & (middles[:, 1].abs() < detector.grid.aside)
            seen = returns(scene, scan_scene(scene, detector.scanner)) >= least_points
            if (inside & seen).any():
                numbers = (inside & seen).nonzero()[:, 0]
                found = int(numbers[seed % len(numbers)])
        targets.append(prepare(scene, found, detector.scanner, detector.grid, SIDE, extents))
    return targets


def look(detector: Detector, target: RoofTarget, title: str, vertices: Tensor | None) -> Sight:
    """The scan of a target with a mesh of vertices [V, 3] on its roof (None: nothing), and what is found."""
    points = returned(target, vertices, sphere_mesh()[1])
    scores, boxes = detector.detect(hard_occupancy(detector.grid, points), LEAST)
    return Sight(title, points, scores, boxes, vertices)


def car_score(detector: Detector, target: RoofTarget, vertices: Tensor | None, limit: float = IOU) -> float:
    """The score of the detection that overlaps the car by at least an IoU of `limit`; 0: there is none.

    Args:
        vertices: of the mesh on its roof, [V, 3]; None: nothing is there.
    """
    return score_among(detector, target, returned(target, vertices, sphere_mesh()[1]), limit)


def score_among(detector: Detector, target: RoofTarget, points: Tensor, limit: float = IOU) -> float:
    """`car_score` where the scan's points [N, 3] are given."""
    scores, boxes = detector.detect(hard_occupancy(detector.grid, points), LEAST)
    if not len(boxes):
        return 0.0
    of_car = scores[pairwise_iou(boxes, from_above(target.car)[None])[:, 0] >= limit]
    return of_car.max().item() if len(of_car) else 0.0


def car_scores(
    detector: Detector, targets: Sequence[RoofTarget], vertices: Tensor | None, limit: float = IOU
) -> Tensor:
    """`car_score` of each target, [N]."""
    return torch.tensor([car_score(detector, target, vertices, limit) for target in targets])


def hidden(clean: Tensor, loaded: Tensor, threshold: float) -> Tensor:
    """Of the cars that are found without a load, which are not found with it: 1 or 0, [those found]; the mean
    where there are several loads.

    Args:
        clean: scores without, [N].
        loaded: scores with, [N] or [loads, N].
        threshold: score from which on a detection counts.
    """
    found = clean >= threshold
    return (loaded[..., found] < threshold).double().view(-1, int(found.sum())).mean(0)


def ellipsoid(extents: Extents = EXTENTS) -> Tensor:
    """The vertices [V, 3] of the ellipsoid that fills the box on the roof."""
    return fill_box(sphere_mesh()[0], extents)


def roof_box(extents: Extents = EXTENTS) -> Tensor:
    """The vertices [V, 3] of a mesh that is the box itself, but for its edges, which are a little rounded."""
    sphere, _ = icosphere(LEVEL)
    return fill_box(sphere / sphere.abs().amax(1, keepdim=True).pow(0.98), extents).float()
