"""Several runs of an attack, of which each image keeps the worst."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitrine.attacks.model import Model
from vitrine.attacks.threat import per_image

Run = Callable[[int, Tensor], Tensor]
"""(its number, the rows (int64) to attack) -> those rows' images [n, C, H, W]."""


def worst_of(runs: int, run: Run, model: Model, images: Tensor, labels: Tensor, early_stop: bool) -> Tensor:
    """For each image the run with the largest margin beyond the decision boundary, [N, C, H, W]; the earlier
    one at a tie. With `early_stop` adversarial images are spared further runs."""
    rows = torch.arange(len(images), device=images.device)
    if runs == 1:
        return run(0, rows)
    worst, largest = images.clone(), images.new_full((len(images),), -torch.inf)
    for number in range(runs):
        found = run(number, rows)
        logits = model.full_precision_logits(found)
        margins = model.margin(logits, labels[rows]).to(largest.dtype)
        better = margins > largest[rows]
        worst[rows] = torch.where(per_image(better, images), found, worst[rows])
        largest[rows] = torch.where(better, margins, largest[rows])
        if early_stop:
            rows = rows[(logits.argmax(1) == labels[rows]) != model.targeted]
            if not len(rows):
                break
    return worst
