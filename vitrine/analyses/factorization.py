"""Non-negative matrix factorisation (Lee & Seung 1999): the parts that activations add up from."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrine.analyses.dictionary import Nonnegative, update_rows

ITERATIONS = 200  # at most
TOLERANCE = 1e-5  # of the squared norm of the data: the least gain of an iteration
CHECK_EVERY = 10  # iterations


def factorize(values: Tensor, count: int, start: tuple[Tensor, Tensor] | None = None) -> Nonnegative:
    """The `count` directions of the non-negative factorisation of values [P, C] with the least squared error,
    as far as hierarchical alternating least squares lead (Cichocki & Phan 2009); nothing is drawn at random.

    Args:
        values: >= 0.
        start: codes [P, count] and directions [count, C]; those of `nndsvd` unless given.

    Raises:
        ValueError: values are negative or not finite, or are fewer than `count`.
    """
    if not values.isfinite().all():
        raise ValueError("values are not finite")
    if (least := values.min().item()) < 0:
        raise ValueError(f"values go down to {least:.3g}, expected none below 0")
    codes, directions = (part.clone() for part in (start or nndsvd(values, count)))
    codes = codes.T.contiguous()
    norm = values.square().sum().item()
    before = float("inf")
    for iteration in range(1, ITERATIONS + 1):
        update_rows(codes, directions @ directions.T, directions @ values.T)
        gram, products = codes @ codes.T, codes @ values
        update_rows(directions, gram, products)
        if iteration % CHECK_EVERY == 0:
            error = norm - 2 * (products * directions).sum() + (gram * (directions @ directions.T)).sum()
            if before - error.item() <= TOLERANCE * norm * CHECK_EVERY:
                break
            before = error.item()
    return Nonnegative(directions / directions.norm(dim=1, keepdim=True).clamp_min(1e-30))


def nndsvd(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Non-negative codes [P, count] and directions [count, C] to start from: of each pair of singular vectors
    of values [P, C] the positive or the negative part, whichever is larger (Boutsidis & Gallopoulos 2008).

    Raises:
        ValueError: values have fewer rows or columns than `count`.
    """
    if count > min(values.shape):
        raise ValueError(f"{count} factors of {values.shape[0]} x {values.shape[1]} values are asked for")
    x = values.double()
    transposed = x.shape[0] < x.shape[1]
    if transposed:
        x = x.T
    squares, right = torch.linalg.eigh(x.T @ x)
    squares, right = squares.flip(0)[:count].clamp_min(0), right.flip(1)[:, :count]
    left = x @ right  # singular values included
    left_parts = torch.stack([left.clamp_min(0), (-left).clamp_min(0)])
    right_parts = torch.stack([right.clamp_min(0), (-right).clamp_min(0)])
    left_parts[:, :, 0], right_parts[:, :, 0] = left[:, 0].abs(), right[:, 0].abs()  # they have one sign
    sizes = left_parts.norm(dim=1) * right_parts.norm(dim=1)  # [2, count]
    chosen, columns = sizes.argmax(0), torch.arange(count, device=x.device)
    # singular value x product of the parts' norms, shared evenly by both
    root = sizes[chosen, columns].sqrt()
    parts = [part[chosen, :, columns].T for part in (left_parts, right_parts)]
    codes, directions = (part / part.norm(dim=0).clamp_min(1e-30) * root for part in parts)
    if transposed:
        codes, directions = directions, codes
    return codes.to(values.dtype), directions.T.contiguous().to(values.dtype)
