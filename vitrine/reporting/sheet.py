"""Contact sheets: many figures as one picture, a layer at a time."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.analyses.base import Figure

GAP = 4  # pixels of paper between the pictures of a sheet
PAPER = 255
MOST_PIXELS = 500_000  # of a sheet, to be glanced at: pictures shrink to keep below, and never grow


def by_layer(figures: Sequence[Figure]) -> dict[str | None, list[Figure]]:
    """Figures grouped by their layer, in the order in which layers first come; None for those of no layer."""
    groups: dict[str | None, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.layer, []).append(figure)
    return groups


def sheet(images: Sequence[Tensor]) -> Tensor:
    """Pictures uint8 [h, w, 3] of any sizes on one about as wide as high, row by row, uint8 [H, W, 3].

    Raises:
        ValueError: there are no pictures.
    """
    if not images:
        raise ValueError("images is empty, expected at least one picture")
    height, width = (max(image.shape[side] for image in images) for side in (0, 1))
    columns = min(len(images), max(1, round(math.sqrt(len(images) * (height + GAP) / (width + GAP)))))
    rows = -(-len(images) // columns)
    # the s for which (s height + GAP) (s width + GAP) is each picture's share of the pixels
    half, rest = GAP * (height + width) / 2, GAP**2 - MOST_PIXELS / (rows * columns)
    shrink = min(1.0, (math.sqrt(max(0, half**2 - height * width * rest)) - half) / (height * width))
    height, width = max(1, int(height * shrink)), max(1, int(width * shrink))
    size = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3)
    canvas = torch.full(size, PAPER, dtype=torch.uint8)
    for i, image in enumerate(images):
        if shrink < 1:
            image = _resized(image, [max(1, int(side * shrink)) for side in image.shape[:2]])
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def _resized(image: Tensor, size: list[int]) -> Tensor:
    flat = image.permute(2, 0, 1)[None].float()
    scaled = F.interpolate(flat, size, mode="bilinear", antialias=True, align_corners=False)
    return scaled[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)
