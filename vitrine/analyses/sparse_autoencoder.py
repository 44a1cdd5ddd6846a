"""Sparse autoencoders of activations: each place is rebuilt from a few of many directions (Gao 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrine.analyses.dictionary import TopK, keep_largest

BATCH = 512  # places a step
LR = 1e-2  # of Adam, falling linearly to 0
IDLE = 20  # steps without a place that it is active at, after which a direction is dead
DEAD_WEIGHT = 1 / 32  # of what dead directions make of the error


def train_autoencoder(values: Tensor, count: int, active: int, steps: int = 1000, seed: int = 0) -> TopK:
    """A sparse autoencoder of values [P, C]: z = TopK(W (x - b)), x' = b + z @ directions (Gao 2024).

    The loss is the squared error, and 1/32 of what dead directions leave of it, which revives them.
    Directions have unit length and begin at values that are far from each other, W as their transpose.

    Args:
        active: how many of the `count` directions a place is rebuilt from, at most.
        seed: of the order of the values and of those that directions begin at.

    Raises:
        ValueError: values are not finite, are fewer than `count`, or `active` is more than `count`.
    """
    if not values.isfinite().all():
        raise ValueError("values are not finite")
    if len(values) < count:
        raise ValueError(f"{count} directions of {len(values)} values are asked for")
    if not 1 <= active <= count:
        raise ValueError(f"active is {active}, expected 1 to {count}, the number of directions")
    generator = torch.Generator().manual_seed(seed)
    values = values.float()
    offset = values.mean(0)
    scale = (values - offset).square().sum(1).mean().sqrt().clamp_min(1e-30)
    x = (values - offset) / scale
    first = _spread_directions(x, count, generator)
    with torch.enable_grad():
        decoder, encoder = first.clone().requires_grad_(), first.clone().requires_grad_()
        shift = torch.zeros_like(offset).requires_grad_()
        optimizer = torch.optim.Adam([decoder, encoder, shift], LR)
        idle = torch.zeros(count, device=x.device)
        for step in range(steps):
            rows = torch.randint(len(x), (BATCH,), generator=generator)
            batch = x[rows.to(x.device)]
            before = (batch - shift) @ encoder.T
            codes = keep_largest(before, active)
            error = batch - shift - codes @ decoder
            loss = error.square().sum(1).mean()
            idle = torch.where((codes > 0).any(0), 0, idle + 1)
            dead = idle >= IDLE
            revived = keep_largest(before.masked_fill(~dead, -1.0), active)
            missing = error.detach() - revived @ decoder
            loss = loss + DEAD_WEIGHT * missing.square().sum(1).mean() * dead.any()
            optimizer.zero_grad()
            loss.backward()
            with torch.no_grad():  # not along the direction: its length is fixed
                decoder.grad -= (decoder.grad * decoder).sum(1, keepdim=True) * decoder
            optimizer.param_groups[0]["lr"] = LR * (1 - step / steps)
            optimizer.step()
            with torch.no_grad():
                decoder /= decoder.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return TopK(decoder.detach(), encoder.detach(), offset + scale * shift.detach(), active)


def _spread_directions(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Unit directions [count, C] of values [P, C], each drawn with the squared length of what the direction
    nearest to it so far leaves of a value (as k-means++; Arthur & Vassilvitskii 2007)."""
    left = x.square().sum(1)
    chosen: list[Tensor] = []
    for _ in range(count):
        weights = left.double().clamp_min(0).cpu()
        weights = weights if weights.sum() > 0 else torch.ones_like(weights)
        row = torch.multinomial(weights, 1, generator=generator)
        direction = x[int(row)] / x[int(row)].norm().clamp_min(1e-30)
        chosen.append(direction)
        left = torch.minimum(left, (x - (x @ direction).clamp_min(0)[:, None] * direction).square().sum(1))
    return torch.stack(chosen)
