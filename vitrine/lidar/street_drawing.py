"""A whole street as a picture: what the scanner returns, the cars that are there and those that are found."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitrine.lidar.boxes import corners, from_above
from vitrine.lidar.drawing import FOUND, SHADES, TRUTH, draw_label, draw_prism, pixels_of, project
from vitrine.lidar.evaluation import Detections
from vitrine.lidar.grid import Grid
from vitrine.lidar.scenes import Scene

_SIZE = (9.6, 4.6)  # inches
_HEIGHT = 1.6  # metres that a detection is drawn with: the detector does not say how high a car is
_EYE, _AT = (-9.0, 0.0, 8.0), (14.0, 0.0, 0.0)  # from behind the sensor, above it


def draw_street(scene: Scene, points: Tensor, grid: Grid, found: Detections, threshold: float) -> Tensor:
    """A street from above and in perspective: returns by their height, true cars dotted (thin those with too
    few returns to count), detections from the threshold on in blue with their scores; uint8 [H, W, 3].

    Args:
        points: that the scanner returned, [N, 3].
        found: of this scene.
    """
    from matplotlib.figure import Figure

    figure = Figure(_SIZE, dpi=100, facecolor="white")
    # by hand: a layout that is worked out takes as long as the rest
    figure.subplots_adjust(left=0.055, right=0.99, bottom=0.105, top=0.98, wspace=0.03)
    above, ahead = figure.subplots(1, 2, width_ratios=(1, 1.25))
    sure = found.scores >= threshold
    found = found._replace(scores=found.scores[sure], boxes=found.boxes[sure])
    _from_above(above, points, grid, found)
    _perspective(ahead, scene, points, grid, found)
    return pixels_of(figure)


def _from_above(axes: Any, points: Tensor, grid: Grid, found: Detections) -> None:
    """x, ahead of the sensor, goes up; y to the left."""
    axes.scatter(-points[:, 1], points[:, 0], s=1.2, c=points[:, 2], **SHADES)
    for box, counted in zip(found.cars, found.counted.tolist()):
        _outline(axes, box, TRUTH, ":", 1.8 if counted else 0.8)
    for box, score in zip(found.boxes, found.scores.tolist()):
        _outline(axes, box, FOUND, "-", 1.4)
        draw_label(axes, (-box[1].item(), corners(box)[:, 0].max().item() + 1.2), f"{score:.2f}")
    axes.set(xlim=(-grid.aside, grid.aside), ylim=(0, grid.ahead), aspect="equal")
    axes.set_xlabel("metres to the right of the sensor", fontsize=9)
    axes.set_ylabel("metres ahead", fontsize=9)
    axes.tick_params(labelsize=8)


def _outline(axes: Any, box: Tensor, colour: str, style: str, width: float) -> None:
    ring = corners(box)
    ring = torch.cat([ring, ring[:1]])
    axes.plot(-ring[:, 1], ring[:, 0], style, color=colour, lw=width)


def _perspective(axes: Any, scene: Scene, points: Tensor, grid: Grid, found: Detections) -> None:
    eye, at = torch.tensor(_EYE), torch.tensor(_AT)
    points = points[(points[:, 0] < grid.ahead) & (points[:, 1].abs() < grid.aside)]
    flat, depth = project(points, eye, at)
    axes.scatter(*flat[depth > 1].T, s=0.8, c=points[depth > 1, 2], **SHADES)
    heights = {tuple(box.tolist()): car[5].item() for box, car in zip(from_above(scene.cars), scene.cars)}
    for box in found.cars:
        draw_prism(axes, box, heights.get(tuple(box.tolist()), _HEIGHT), eye, at, TRUTH, ":")
    for box, score in zip(found.boxes, found.scores.tolist()):
        draw_label(axes, draw_prism(axes, box, _HEIGHT, eye, at, FOUND, "-"), f"{score:.2f}")
    axes.set(xlim=(-1.15, 1.15), ylim=(-0.6, 0.65), aspect="equal", xticks=[], yticks=[])
