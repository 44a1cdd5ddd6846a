"""Points as occupancy from above: a grid whose slices of height are channels (Yang et al. 2018, PIXOR)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.core.settings import setting

COARSEST = 8  # cells along and across that the network makes one of: it halves thrice
_SURE = 1 - 1e-6  # the largest probability: the logarithm of one minus it is finite


@dataclass(frozen=True)
class Grid:
    """Cells of the space ahead of the sensor; x goes from 0, y as far to the left as to the right."""

    cell: float = setting(0.25, "metres a side of a cell", least=0.05, most=2)
    ahead: float = setting(40.0, "metres ahead of the sensor", above=1, most=200)
    aside: float = setting(20.0, "metres to the left, and to the right", above=1, most=200)
    bottom: float = setting(-0.15, "metres above the ground of the lowest slice", least=-5, most=5)
    slices: int = setting(12, "slices of height, a cell high each", least=1, most=100)

    def __post_init__(self) -> None:
        for name, side in (("ahead", self.ahead), ("aside", 2 * self.aside)):
            if abs(side / self.cell / COARSEST - round(side / self.cell / COARSEST)) > 1e-6:
                problem = (
                    f"{name} is {getattr(self, name)} with cells of {self.cell}: the network halves thrice"
                )
                raise ValueError(f"{problem}, expected a number of cells that {COARSEST} divides")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, cells ahead, cells across (Z, X, Y)."""
        return self.slices, round(self.ahead / self.cell), round(2 * self.aside / self.cell)

    def cells_of(self, points: Tensor) -> Tensor:
        """Points [..., 3] in cells along z, x, y, [..., 3]: cell (k, i, j) begins there."""
        corner = points.new_tensor([self.bottom, 0.0, -self.aside])
        return (points[..., [2, 0, 1]] - corner) / self.cell


def occupied(grid: Grid, points: Tensor) -> Tensor:
    """Which cells have a point of [N, 3] in them: their numbers in the flattened grid, int64, each once."""
    cells = grid.cells_of(points).floor().long()
    inside = ((cells >= 0) & (cells < cells.new_tensor(grid.shape))).all(1)
    return _number(grid, cells[inside]).unique()


def hard_occupancy(grid: Grid, points: Tensor) -> Tensor:
    """1 for each cell that has a point of [N, 3] in it, else 0, [Z, X, Y]; without gradients."""
    flat = torch.zeros(grid.shape, device=points.device).view(-1)
    return flat.index_fill_(0, occupied(grid, points), 1).view(grid.shape)


def occupancy(grid: Grid, points: Tensor, weights: Tensor | None = None, sharpness: float = 1) -> Tensor:
    """A smooth occupancy, [Z, X, Y] in [0, 1], differentiable in points and weights.

    A point belongs to a cell by the product over the axes of clamp(1/2 + (1/2 - distance) sharpness, 0, 1),
    the distance being that to the cell's middle in cells: with sharpness 1 this is trilinear interpolation,
    with a large one the hard box. With weights a point is there with that probability, independently of the
    others, and a cell is occupied unless none is: 1 - product of (1 - weight x share). So the limit of a high
    sharpness is the expected `hard_occupancy`, and with weights of 1 it is `hard_occupancy` itself (to 1e-6).

    Args:
        points: [N, 3].
        weights: in [0, 1], [N]; 1 unless given.
        sharpness: at least 1; gradients of points vanish but within 1 / (2 sharpness) cells of a side.

    Raises:
        ValueError: sharpness is less than 1.
    """
    if sharpness < 1:
        raise ValueError(f"sharpness is {sharpness}, expected at least 1: a point has eight cells at most")
    places = grid.cells_of(points)
    lower = (places.detach() - 0.5).floor()  # of the eight cells with their middles around a point
    fraction = places - 0.5 - lower  # of the way to the next middle: the distance to the lower one
    upper_share = (0.5 + (fraction - 0.5) * sharpness).clamp(0, 1)
    shares = torch.stack([1 - upper_share, upper_share])  # [2, N, 3]
    weights = points.new_ones(len(points)) if weights is None else weights
    shape, total = torch.tensor(grid.shape, device=points.device), points.new_zeros(grid.shape).view(-1)
    for k in range(2):
        for i in range(2):
            for j in range(2):
                cells = lower.long() + torch.tensor([k, i, j], device=points.device)
                inside = ((cells >= 0) & (cells < shape)).all(1).nonzero()[:, 0]
                share = weights[inside] * shares[k, inside, 0] * shares[i, inside, 1] * shares[j, inside, 2]
                total = total.index_add(0, _number(grid, cells[inside]), torch.log1p(-share * _SURE))
    return -torch.expm1(total).view(grid.shape)


def _number(grid: Grid, cells: Tensor) -> Tensor:
    _, rows, columns = grid.shape
    return (cells[:, 0] * rows + cells[:, 1]) * columns + cells[:, 2]
