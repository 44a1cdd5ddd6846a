"""Signs of masked gradients, which make an evaluation unreliable (Athalye 2018; Carlini 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrine.attacks.model import is_adversarial
from vitrine.attacks.pgd import PGD
from vitrine.attacks.square import Square

TOLERANCE = 0.02  # share of the images: chance among a few hundred


@dataclass(frozen=True)
class HealthReport:
    """Shares are of all images, accuracies included."""

    images: int
    zero_gradients: float  # of the gradients of PGD-10's steps, those that are 0 in every pixel
    losses: list[float]  # mean cross-entropy at each of PGD-50's steps
    clean: float
    pgd10: float
    pgd50: float
    square: float
    only_square: float  # images that Square breaks and PGD-50 does not
    unbounded: float  # accuracy where eps allows any image

    @property
    def warnings(self) -> list[str]:
        """The reasons to doubt the evaluation, one line each."""
        return list(self._doubts())

    def _doubts(self) -> Iterator[str]:
        if self.zero_gradients > TOLERANCE:
            yield f"{self.zero_gradients:.1%} of the gradients are zero: cross-entropy has no slope to follow"
        if self.losses[-1] < self.losses[0]:
            yield f"the loss falls along PGD's steps, from {self.losses[0]:.3g} to {self.losses[-1]:.3g}"
        if self.pgd50 > self.pgd10 + TOLERANCE:
            yield f"PGD-50 is weaker than PGD-10: accuracy {self.pgd50:.1%} against {self.pgd10:.1%}"
        if self.pgd50 < self.pgd10 - 0.1:
            yield f"PGD-10 is far from done: accuracy {self.pgd10:.1%}, after 50 steps {self.pgd50:.1%}"
        if self.only_square > TOLERANCE:
            yield f"{self.only_square:.1%} of the images fall to Square, without gradients, and not to PGD-50"
        if self.unbounded > 0:
            yield f"accuracy is {self.unbounded:.1%} where any image is allowed, expected 0"

    @property
    def healthy(self) -> bool:
        return not self.warnings


def check_health(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    eps: float = 8 / 255,
    queries: int = 500,
    seed: int = 0,
) -> HealthReport:
    """Compare attacks that should grow stronger, at this budget, on a few hundred images.

    `queries` are Square's; the other arguments, and what is raised, are those of `Attack`.
    """
    budget = {"norm": norm, "eps": eps, "seed": seed}
    zero_shares, losses = [], []

    def record_zeros(_: Tensor, gradient: Tensor) -> None:
        zero_shares.append((gradient.flatten(1) == 0).all(1).float().mean())

    def record_losses(values: Tensor, _: Tensor) -> None:
        losses.append(values.mean())

    clean = ~is_adversarial(network, images, labels)
    short = PGD(**budget, steps=10, early_stop=False)(network, images, labels, on_step=record_zeros)
    long = PGD(**budget, steps=50, early_stop=False)(network, images, labels, on_step=record_losses)
    by_square = Square(**budget, queries=queries)(network, images, labels)
    found = (short, long, by_square)
    pgd10, pgd50, square = (clean & ~is_adversarial(network, adversarial, labels) for adversarial in found)
    whole_range = 1.0 if norm == "linf" else math.sqrt(images[0].numel())
    unbounded = clean.clone()
    rows = clean.nonzero()[:, 0]
    if len(rows):
        found = PGD(**budget | {"eps": whole_range}, steps=50)(network, images[rows], labels[rows])
        unbounded[rows] = ~is_adversarial(network, found, labels[rows])

    def share(selected: Tensor) -> float:
        return selected.float().mean().item()

    return HealthReport(
        images=len(images),
        zero_gradients=torch.stack(zero_shares).mean().item(),
        losses=torch.stack(losses).tolist(),
        clean=share(clean),
        pgd10=share(pgd10),
        pgd50=share(pgd50),
        square=share(square),
        only_square=share(pgd50 & ~square),
        unbounded=share(unbounded),
    )
