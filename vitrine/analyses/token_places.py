"""Where in the image the tokens of a transformer stand: each sees the whole image, and yet has a place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vitrine.analyses.attention import attention_modules
from vitrine.core.network_scopes import in_eager_eval_mode

CONTEXT = 3  # tokens along a side of what is shown around one


@in_eager_eval_mode
def token_places(network: nn.Module, boxes: Mapping[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """The part of the image that each position of a layer stands at, where attention lets it see all of it.

    Args:
        boxes: layer -> receptive fields [C, h, w, 4] of `receptive_fields`.
        images: [B, C, H, W]; what is in them does not matter.

    Returns:
        layer -> int64 [h, w, 4]: top, left, bottom, right; not of layers with a position that sees a part
        of the image only, nor of those before the first attention.
    """
    height, width = images.shape[-2:]
    whole = torch.tensor([0, 0, height, width])
    seeing_all = [
        layer for layer, fields in boxes.items() if fields[0, ..., 0].numel() > 1 and (fields == whole).all()
    ]
    if not seeing_all:
        return {}
    attentions, order = attention_modules(network, images)
    first = min((order[name] for name in attentions if name in order), default=None)
    if first is None:
        return {}
    return {
        layer: _grid(boxes[layer].shape[1:3], height, width)
        for layer in seeing_all
        if order.get(layer, -1) > first
    }


def context(places: Tensor, size: Sequence[int]) -> Tensor:
    """Windows of `CONTEXT` times the sides of places [..., 4], about them, inside an image of that size."""
    limits = torch.tensor(list(size))
    sides = torch.minimum((places[..., 2:] - places[..., :2]) * CONTEXT, limits)
    corners = (places[..., :2] + places[..., 2:] - sides).div(2, rounding_mode="floor")
    corners = torch.minimum(corners.clamp(min=0), limits - sides)
    return torch.cat([corners, corners + sides], -1)


def _grid(shape: Sequence[int], height: int, width: int) -> Tensor:
    """The parts [h, w, 4] of an image that is cut evenly."""
    rows, columns = (
        torch.arange(n + 1) * side // n for n, side in zip(shape, (height, width))
    )  # where parts begin and end
    top, left = torch.meshgrid(rows[:-1], columns[:-1], indexing="ij")
    bottom, right = torch.meshgrid(rows[1:], columns[1:], indexing="ij")
    return torch.stack([top, left, bottom, right], -1)
