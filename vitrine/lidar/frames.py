"""Scans as the network sees them, and what it should say of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.lidar.boxes import from_above
from vitrine.lidar.grid import Grid, occupied
from vitrine.lidar.network import targets
from vitrine.lidar.scanner import Scanner
from vitrine.lidar.scenes import Scene, returns, scan_scene

LEAST_POINTS = 10  # returns from which on a car counts


class Frame(NamedTuple):
    """A scan as the network sees it."""

    cells: Tensor  # int32, the numbers of the occupied cells of the flattened grid
    boxes: Tensor  # [N, 5], of the cars within the grid
    counted: Tensor  # bool [N], whether a car returned enough points
    points: Tensor  # int64 [N], how many it returned


class Batch(NamedTuple):
    """Frames as tensors."""

    occupancy: Tensor  # [B, Z, X, Y]
    labels: Tensor  # [B, X', Y'], see `network.targets`
    numbers: Tensor  # [B, 6, X', Y']
    frames: Sequence[Frame]


def frame_of(scene: Scene, scanner: Scanner, grid: Grid, least_points: int = LEAST_POINTS) -> Frame:
    """A scene, scanned. Cars with their middles outside of the grid are left out."""
    scan = scan_scene(scene, scanner)
    boxes, points = from_above(scene.cars), returns(scene, scan)
    inside = (boxes[:, 0] < grid.ahead) & (boxes[:, 1].abs() < grid.aside)
    cells = occupied(grid, scan.points).int()
    return Frame(cells, boxes[inside], points[inside] >= least_points, points[inside])


def mirrored(frame: Frame, grid: Grid) -> Frame:
    """The frame with left and right exchanged."""
    columns = grid.shape[2]
    column = frame.cells % columns
    cells = frame.cells - column + (columns - 1 - column)
    return frame._replace(cells=cells, boxes=frame.boxes * frame.boxes.new_tensor([1, -1, 1, 1, -1]))


def batch_of(frames: Sequence[Frame], grid: Grid, middles: Tensor) -> Batch:
    """Frames with their targets; `middles` of `network.places`."""
    occupancy = torch.zeros(len(frames), *grid.shape)
    for row, frame in zip(occupancy, frames):
        row.view(-1)[frame.cells.long()] = 1
    labels, numbers = zip(*(targets(frame.boxes, frame.counted, middles) for frame in frames))
    return Batch(occupancy, torch.stack(labels), torch.stack(numbers), frames)
