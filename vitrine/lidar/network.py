"""A network that finds cars from above in one pass (Yang et al. 2018, PIXOR), and what its outputs mean.

Slices of height go in as channels. For every second cell along and across (a place of the output) it says how
surely a car is there, and where its rectangle lies about the place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitrine.lidar.boxes import contains
from vitrine.lidar.grid import Grid

STRIDE = 2  # cells of the grid a place of the output, along and across
LENGTH, WIDTH = 4.2, 1.8  # metres of a middling car, which sizes are measured by
_INNER, _OUTER = 0.7, 1.2  # of a car's rectangle: within is a car, beyond is none, between counts nothing
_PRIOR = 0.02  # probability of a car that an untrained network says (Lin et al. 2017)


class Residual(nn.Module):
    """Two convolutions and what goes past them (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.first = _convolution(inputs, outputs, stride)
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        same = inputs == outputs and stride == 1
        self.past = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.past(x) + self.second(self.first(x)))


class BirdsEyeNetwork(nn.Module):
    """Occupancy [B, Z, X, Y] -> logits [B, X', Y'] and six numbers of each rectangle [B, 6, X', Y'], X' being
    X / STRIDE: cosine and sine of twice the heading (a rectangle is the same after half a turn), the middle's
    offset in metres, and the logarithms of length and width in those of a middling car."""

    def __init__(self, slices: int, width: int = 16):
        super().__init__()
        self.stem = _convolution(slices, width, STRIDE)
        self.fine = Residual(width, width)
        self.coarse = nn.Sequential(
            Residual(width, 2 * width, 2), Residual(2 * width, 2 * width), Residual(2 * width, 2 * width)
        )
        self.deep = nn.Sequential(Residual(2 * width, 3 * width, 2), Residual(3 * width, 3 * width))
        self.from_deep = nn.Conv2d(3 * width, 2 * width, 1)
        self.from_coarse = nn.Conv2d(2 * width, 2 * width, 1)
        self.from_fine = nn.Conv2d(width, 2 * width, 1)
        self.joined = _convolution(2 * width, 2 * width)
        self.score = nn.Conv2d(2 * width, 1, 1)
        self.rectangle = nn.Conv2d(2 * width, 6, 1)
        nn.init.constant_(self.score.bias, -math.log(1 / _PRIOR - 1))

    def forward(self, occupancy: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(self.stem(occupancy))
        coarse = self.coarse(fine)
        coarse = coarse + _enlarge(self.from_deep(self.deep(coarse)), coarse)
        joined = self.from_fine(fine) + _enlarge(self.from_coarse(coarse), fine)
        joined = self.joined(torch.relu(joined))
        return self.score(joined)[:, 0], self.rectangle(joined)


def places(grid: Grid, device: torch.device | None = None) -> Tensor:
    """The middles of the places of the output, in metres, [X', Y', 2]."""
    _, rows, columns = grid.shape
    size = STRIDE * grid.cell
    x = (torch.arange(rows // STRIDE, device=device) + 0.5) * size
    y = (torch.arange(columns // STRIDE, device=device) + 0.5) * size - grid.aside
    return torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)


def decode(numbers: Tensor, middles: Tensor) -> Tensor:
    """The rectangles [..., X', Y', 5] that the network's numbers [..., 6, X', Y'] mean at their places."""
    cos, sin, dx, dy, length, width = numbers.unbind(-3)
    x, y = middles[..., 0] + dx, middles[..., 1] + dy
    # no car is that small or large; where the network knows nothing, no infinities
    length, width = (LENGTH * length.clamp(-2, 2).exp(), WIDTH * width.clamp(-2, 2).exp())
    return torch.stack([x, y, length, width, torch.atan2(sin, cos) / 2], -1)


def encode(boxes: Tensor, middles: Tensor) -> Tensor:
    """The numbers [..., 6] of rectangles [..., 5] at places [..., 2]: what `decode` reads."""
    x, y, length, width, heading = boxes.unbind(-1)
    offsets = (x - middles[..., 0], y - middles[..., 1])
    sizes = ((length / LENGTH).log(), (width / WIDTH).log())
    return torch.stack([(2 * heading).cos(), (2 * heading).sin(), *offsets, *sizes], -1)


def targets(boxes: Tensor, counted: Tensor, middles: Tensor) -> tuple[Tensor, Tensor]:
    """What the network should say of a scene with these rectangles.

    Args:
        boxes: [N, 5].
        counted: bool [N]; about the others, such as cars that are hidden, it may say anything.
        middles: of the places, [X', Y', 2].

    Returns:
        For each place 1 (a car), 0 (none) or -1 (counts nothing), [X', Y']; and the numbers of the rectangle,
        [6, X', Y'], zeros where there is no car.
    """
    labels, numbers = middles.new_zeros(middles.shape[:2]), middles.new_zeros(6, *middles.shape[:2])
    if not len(boxes):
        return labels, numbers
    each, spots = boxes[:, None, None], middles[None]
    labels[contains(each, spots, _OUTER).any(0)] = -1
    inner = contains(each, spots, _INNER) & counted[:, None, None]
    car, owner = inner.any(0), inner.float().argmax(0)
    labels[car] = 1
    numbers[:, car] = encode(boxes[owner[car]], middles[car]).T
    return labels, numbers


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return nn.functional.interpolate(x, size=like.shape[-2:], mode="nearest")
