"""Accuracy under one attack against eps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from vitrine.attacks.base import Attack
from vitrine.attacks.model import is_adversarial


class CurvePoint(NamedTuple):
    """The outcome at one eps."""

    eps: float
    adversarial: Tensor  # [N, C, H, W]
    robust: Tensor  # bool [N]

    @property
    def accuracy(self) -> float:
        return self.robust.float().mean().item()


def robustness_curve(
    attack: Attack, network: nn.Module, images: Tensor, labels: Tensor, eps: Sequence[float]
) -> Iterator[CurvePoint]:
    """The attack at each eps in turn, on the images that are still robust.

    An image with an adversarial example in a smaller ball has one in every larger ball: accuracy never rises.

    Raises:
        ValueError: eps that do not rise.
    """
    if list(eps) != sorted(set(eps)):
        raise ValueError(f"eps is {list(eps)}, expected rising numbers")
    adversarial, robust = images.clone(), ~is_adversarial(network, images, labels, targeted=attack.targeted)
    for bound in eps:
        rows = robust.nonzero()[:, 0]
        if len(rows) and bound > 0:
            found = dataclasses.replace(attack, eps=bound)(network, images[rows], labels[rows])
            adversarial[rows] = found
            robust[rows] = ~is_adversarial(network, found, labels[rows], targeted=attack.targeted)
        yield CurvePoint(bound, adversarial.clone(), robust.clone())
