"""Scans as pictures: from above and in perspective, with cars, detections and the mesh on a roof."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitrine.lidar.boxes import corners, from_above
from vitrine.lidar.roof_mesh import from_roof, sphere_mesh
from vitrine.lidar.roof_targets import RoofTarget

TRUTH, FOUND, MESH = "#2e7d32", "#1565c0", "#c62828"
SHADES = {"cmap": "viridis", "vmin": -0.2, "vmax": 2.4, "lw": 0}  # of points, by their height in metres
_FOCAL = 1.9  # of the camera, in half widths of the picture
SURE = 0.3
_SIZE = 4.2  # inches a side of a picture


class Sight(NamedTuple):
    """One scan of a target, and what the detector finds in it."""

    title: str
    points: Tensor  # [N, 3]
    scores: Tensor  # [D], of detections; those from SURE on are drawn
    boxes: Tensor  # [D, 5]
    vertices: Tensor | None  # [V, 3], of the mesh on the roof


def draw_sights(target: RoofTarget, sights: list[Sight], reach: float = 9.0) -> Tensor:
    """A column for each sight, in perspective and from above; uint8 [H, W, 3].

    Args:
        reach: metres around the car that are shown.
    """
    from matplotlib.figure import Figure

    figure = Figure((_SIZE * len(sights), 2 * _SIZE), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(2, len(sights), squeeze=False)
    for column, sight in enumerate(sights):
        sure = sight.scores >= SURE
        sight = sight._replace(scores=sight.scores[sure], boxes=sight.boxes[sure])
        _perspective(axes[0, column], target, sight, reach)
        _from_above(axes[1, column], target, sight, reach)
        axes[0, column].set_title(sight.title, fontsize=11)
    return pixels_of(figure)


def pixels_of(figure: Any) -> Tensor:
    """A figure of matplotlib as uint8 [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.tensor(np.asarray(canvas.buffer_rgba())[..., :3])


def _near(target: RoofTarget, points: Tensor, reach: float) -> Tensor:
    return points[((points[:, :2] - target.car[:2]).abs() < reach).all(1)]


def _from_above(axes: Any, target: RoofTarget, sight: Sight, reach: float) -> None:
    """x, ahead of the sensor, goes up; y to the left."""
    points = _near(target, sight.points, reach)
    axes.scatter(-points[:, 1], points[:, 0], s=2, c=points[:, 2], **SHADES)
    outlines = [(from_above(target.scene.cars), TRUTH, ":", 1.5), (sight.boxes, FOUND, "-", 1.8)]
    for boxes, colour, style, width in outlines:
        for outline in corners(boxes):
            ring = torch.cat([outline, outline[:1]])
            axes.plot(-ring[:, 1], ring[:, 0], style, color=colour, lw=width)
    for score, box in zip(sight.scores.tolist(), sight.boxes):
        if ((box[:2] - target.car[:2]).abs() < reach - 1).all():
            top = corners(box)[:, 0].max().item() + 0.4
            draw_label(axes, (-box[1].item(), top), f"{score:.2f}")
    if sight.vertices is not None:
        solid = from_roof(sight.vertices, target.car)
        axes.plot(-solid[:, 1], solid[:, 0], ".", color=MESH, ms=1.5)
    x, y = target.car[0].item(), target.car[1].item()
    axes.set(xlim=(-y - reach, -y + reach), ylim=(x - reach, x + reach), aspect="equal")
    axes.set_xlabel("metres to the right of the sensor", fontsize=9)
    axes.set_ylabel("metres ahead", fontsize=9)
    axes.tick_params(labelsize=8)


def _perspective(axes: Any, target: RoofTarget, sight: Sight, reach: float) -> None:
    """From the sensor's side, somewhat above the car."""
    from matplotlib.collections import PolyCollection

    car = target.car
    towards = -car[:2] / car[:2].norm()
    eye = torch.cat([car[:2] + 8.5 * towards, car.new_tensor([4.2])])
    at = torch.cat([car[:2], car.new_tensor([0.9])])
    points = _near(target, sight.points, reach)
    flat, depth = project(points, eye, at)
    ahead = depth > 1
    height = points[ahead, 2]
    axes.scatter(*flat[ahead].T, s=7, c=height, **SHADES)
    draw_prism(axes, from_above(car), car[5].item(), eye, at, TRUTH, ":")
    for score, box in zip(sight.scores.tolist(), sight.boxes):
        if (box[:2] - car[:2]).norm() < 3:
            top = draw_prism(axes, box, 1.6, eye, at, FOUND, "-")
            draw_label(axes, top, f"{score:.2f}")
    if sight.vertices is not None:
        solid = from_roof(sight.vertices, car)[sphere_mesh()[1]]
        spots, depth = project(solid, eye, at)
        normals = torch.linalg.cross(solid[:, 1] - solid[:, 0], solid[:, 2] - solid[:, 0])
        light = (
            normals
            / normals.norm(dim=1, keepdim=True).clamp(min=1e-9)
            @ _unit(car.new_tensor([-0.4, 0.4, 1]))
        )
        order = depth.mean(1).argsort(descending=True)
        shade = (0.55 + 0.45 * light.clamp(min=0))[order, None] * car.new_tensor([0.93, 0.35, 0.3])
        axes.add_collection(
            PolyCollection(spots[order].numpy(), facecolors=shade.numpy(), edgecolors="none", zorder=0)
        )
    axes.set(xlim=(-0.6, 0.6), ylim=(-0.6, 0.6), aspect="equal", xticks=[], yticks=[])


def draw_prism(
    axes: Any, box: Tensor, height: float, eye: Tensor, at: Tensor, colour: str, style: str
) -> tuple[float, float]:
    """The edges of an upright box of this rectangle; where its top's middle is in the picture."""
    outline = corners(box)
    rings = []
    for z in (0.0, height):
        ring = torch.cat([outline, torch.full((4, 1), z)], 1)
        rings.append(project(ring, eye, at)[0])
        closed = torch.cat([rings[-1], rings[-1][:1]])
        axes.plot(closed[:, 0], closed[:, 1], style, color=colour, lw=1.4)
    for low, high in zip(*rings):
        axes.plot([low[0], high[0]], [low[1], high[1]], style, color=colour, lw=1.4)
    return rings[1][:, 0].mean().item(), rings[1][:, 1].max().item() + 0.05


def draw_label(axes: Any, place: tuple[float, float], text: str) -> None:
    style = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
    axes.text(*place, text, color=FOUND, fontsize=10, ha="center", va="center", weight="bold", bbox=style)


def project(points: Tensor, eye: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Points [..., 3] in the picture of a camera at `eye` that looks at `at`, [..., 2], and their depth."""
    forward = _unit(at - eye)
    right = _unit(torch.linalg.cross(forward, forward.new_tensor([0.0, 0.0, 1.0])))
    up = torch.linalg.cross(right, forward)
    local = (points - eye) @ torch.stack([right, up, forward], 1)
    return _FOCAL * local[..., :2] / local[..., 2:].clamp(min=0.1), local[..., 2]


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()
