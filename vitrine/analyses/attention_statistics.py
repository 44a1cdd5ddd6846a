"""Numbers and maps of attention probabilities: how far, how evenly, and to what a network attends."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from vitrine.analyses.attention_structure import TokenGrid


def rollout(probabilities: Iterable[Tensor]) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020): how much of each input token flows into each output token.

    The product over blocks of (A + I) / 2, A the mean over heads; rows sum to 1.

    Args:
        probabilities: of each block in order, [B, heads, tokens, tokens]; consumed one by one.

    Returns:
        [B, tokens, tokens]: outputs, inputs.
    """
    joint = None
    for of_block in probabilities:
        joint = rollout_step(joint, of_block)
    if joint is None:
        raise ValueError("probabilities: are of no block, expected at least one")
    return joint


def rollout_step(joint: Tensor | None, probabilities: Tensor) -> Tensor:
    """The rollout up to the next block; `joint` is None before the first."""
    mean = probabilities.mean(1)
    with_residual = (mean + torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)) / 2
    with_residual = with_residual / with_residual.sum(-1, keepdim=True)
    return with_residual if joint is None else with_residual @ joint


def entropy(probabilities: Tensor, grid: TokenGrid | None = None) -> Tensor:
    """The mean entropy of each head's attention over its queries, as a share of the largest, log(keys).

    Args:
        probabilities: [B, (windows,) heads, queries, keys].
        grid: its tokens alone are queries; None: all are.

    Returns:
        [B, heads] in [0, 1]: 0 where each query attends to one key, 1 where to all alike.
    """
    values = torch.special.entr(_with_windows(probabilities)).sum(-1) / math.log(probabilities.shape[-1])
    if grid is None:
        return values.mean((1, 3))
    inside = (grid.cells >= 0).to(values)[:, None]
    return (values * inside).sum((1, 3)) / inside.sum()


def mean_distance(probabilities: Tensor, grid: TokenGrid, image_size: tuple[int, int]) -> Tensor:
    """The mean distance in pixels over which each head attends (Dosovitskiy 2021, figure 7).

    The distances between a patch and all patches that it attends to, weighted with the probabilities, which
    prefix tokens have no part in; the mean over patches.

    Args:
        probabilities: [B, (windows,) heads, tokens, tokens].

    Returns:
        [B, heads].
    """
    distances = grid.distances(image_size).to(probabilities.device, probabilities.dtype)
    inside = (grid.cells >= 0).to(distances)
    weights = _with_windows(probabilities)
    among_patches = torch.einsum("bwhqk,wk->bwhq", weights, inside).clamp_min(1e-12)
    mean = torch.einsum("bwhqk,wqk->bwhq", weights, distances.nan_to_num(0)) / among_patches
    return (mean * inside[:, None]).sum((1, 3)) / inside.sum()


def attended_maps(probabilities: Tensor, grid: TokenGrid, readers: list[int]) -> Tensor:
    """What each head attends to, as maps [B, heads, h, w].

    Args:
        probabilities: [B, (windows,) heads, tokens, tokens].
        readers: the queries whose mean is taken (a class token); empty: all of the grid, and so what patches
            get on average, 1 / tokens in a window where all get the same.
    """
    if readers and probabilities.ndim == 4:
        return grid.to_map(probabilities[:, :, readers].mean(2)[:, :, None])
    inside = (grid.cells >= 0).to(probabilities)
    received = torch.einsum("bwhqk,wq->bhwk", _with_windows(probabilities), inside)
    return grid.to_map(received / inside.sum(1)[:, None].clamp_min(1))


def _with_windows(probabilities: Tensor) -> Tensor:
    return probabilities[:, None] if probabilities.ndim == 4 else probabilities
