"""One attack at growing budgets: the curve of accuracy against eps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from vitrine.attacks.base import Attack
from vitrine.attacks.victim import fooled


class Budget(NamedTuple):
    """The state of things at one eps."""

    eps: float
    adversarial: Tensor  # [N, C, H, W]
    standing: Tensor  # bool [N]

    @property
    def accuracy(self) -> float:
        return self.standing.float().mean().item()


def nested(
    attack: Attack, network: nn.Module, images: Tensor, labels: Tensor, eps: Sequence[float]
) -> Iterator[Budget]:
    """The attack at each eps in turn, on the images that still stand.

    An image that fell within a smaller ball has fallen within a larger one, so that accuracy never rises.

    Raises:
        ValueError: budgets that do not rise.
    """
    if list(eps) != sorted(set(eps)):
        raise ValueError(f"eps is {list(eps)}, expected rising numbers")
    adversarial, standing = images.clone(), ~fooled(network, images, labels, targeted=attack.targeted)
    for budget in eps:
        rows = standing.nonzero()[:, 0]
        if len(rows) and budget > 0:
            ended = dataclasses.replace(attack, eps=budget)(network, images[rows], labels[rows])
            fell = fooled(network, ended, labels[rows], targeted=attack.targeted)
            adversarial[rows] = ended
            standing[rows] = ~fell
        yield Budget(budget, adversarial.clone(), standing.clone())
