"""Several runs of an attack, of which the worst counts, image by image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitrine.attacks.model import Victim


def worst_of(
    runs: int,
    run: Callable[[int, Tensor], Tensor],
    victim: Victim,
    images: Tensor,
    labels: Tensor,
    early_stop: bool,
) -> Tensor:
    """The run that takes an image furthest over the boundary, [N, C, H, W]; an earlier one at a tie.

    Args:
        run: called with the run's number and the rows (int64) to attack, gives those rows' images.
        early_stop: images that have fallen are spared further runs.
    """
    rows = torch.arange(len(images), device=images.device)
    if runs == 1:
        return run(0, rows)
    worst, furthest = images.clone(), images.new_full((len(images),), -torch.inf)
    for number in range(runs):
        ended = run(number, rows)
        logits = victim.logits(ended)
        margins = victim.margin(logits, labels[rows]).to(furthest.dtype)
        further = margins > furthest[rows]
        worst[rows] = torch.where(further.view(-1, *[1] * (images.ndim - 1)), ended, worst[rows])
        furthest[rows] = torch.where(further, margins, furthest[rows])
        if early_stop:
            rows = rows[(logits.argmax(1) == labels[rows]) != victim.targeted]
            if not len(rows):
                break
    return worst
