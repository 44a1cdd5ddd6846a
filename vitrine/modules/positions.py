"""Position embeddings of weights, fitted to a network of another image size."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.modules.weights import Weights

log = logging.getLogger(__name__)

# where our transformers and torchvision's keep them, and how many tokens come before the patches'
_POSITIONS = {"pos_embed": 0, "encoder.pos_embedding": 1}


def fit_positions(network: nn.Module, weights: Weights) -> Weights:
    """The weights, their position embeddings interpolated (Dosovitskiy 2021) if the network's are of another
    square grid of patches, which is logged; else as they are."""
    own, state = network.state_dict(), weights.state
    for key, prefix in _POSITIONS.items():
        theirs, wanted = state.get(key), own.get(key)
        if theirs is None or wanted is None or theirs.shape == wanted.shape:
            continue
        sides = [_grid_side(positions, prefix) for positions in (theirs, wanted)]
        if None in sides or theirs.shape[2] != wanted.shape[2]:
            continue  # loading them says that they do not fit
        before, after = sides
        grid = theirs[:, prefix:].float().mT.unflatten(2, (before, before))
        how = {"mode": "bicubic", "align_corners": False, "antialias": after < before}
        grid = F.interpolate(grid, (after, after), **how).flatten(2).mT.to(theirs.dtype)
        state = {**state, key: torch.cat([theirs[:, :prefix], grid], 1)}
        change = f"from {before} x {before} patches to {after} x {after}"
        log.warning("%s: position embeddings were interpolated %s", weights.source, change)
    return replace(weights, state=state)


def _grid_side(positions: Tensor, prefix: int) -> int | None:
    """Patches along a side of position embeddings [1, T, C]; None where they are of no square grid."""
    count = positions.shape[1] - prefix if positions.ndim == 3 else 0
    side = math.isqrt(max(count, 0))
    return side if side > 0 and side * side == count else None
