"""Expectation over transformation (Athalye 2018), and what transformations undo (Kurakin 2016)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.attacks import TRANSFORMATIONS
from vitrine.attacks.base import Attack, check_images
from vitrine.attacks.model import Views, is_adversarial
from vitrine.attacks.pgd import PGD
from vitrine.core import settings
from vitrine.core.random_numbers import content_keys, fold_in
from vitrine.core.settings import SettingError, setting

Transformation = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class EOT:
    """Any gradient attack, on the mean loss over draws of a transformation: examples that survive it.

    The result is within the attack's own budget of the images as they are; the transformation only comes
    between the image and the network.
    """

    attack: Attack = dataclasses.field(
        default_factory=lambda: PGD(steps=100, step=2 / 255, eps=16 / 255),
        metadata={
            "meaning": "what climbs the mean gradient",
            "choices": None,
            "least": None,
            "above": None,
            "most": None,
        },
    )
    transformation: Any = setting("physical", "a name, or a function of images [N, C, H, W] and keys [N]")
    draws: int = setting(16, "transformations an image and step", least=1)
    at_once: int = setting(256, "transformed images through the network in one pass", least=1)

    def __post_init__(self) -> None:
        settings.check(self)
        if not hasattr(self.attack, "loss"):
            raise SettingError("attack", f"is {type(self.attack).__name__}, expected FGSM, BIM, PGD or APGD")
        named(self.transformation)

    def __call__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        keys: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Adversarial images, [N, C, H, W]; arguments and errors as of `Attack`."""
        views = Views(named(self.transformation), self.draws, self.at_once)
        attack = self.attack
        if getattr(attack, "early_stop", False):  # fooling once is not surviving
            attack = dataclasses.replace(attack, early_stop=False)
        return attack(network, images, labels, keys=keys, views=views, **options)


def named(transformation: str | Transformation) -> Transformation:
    """The transformation of this name with its default settings; or the function itself."""
    return TRANSFORMATIONS[transformation]() if isinstance(transformation, str) else transformation


def destruction_rate(
    network: nn.Module,
    images: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    transformation: str | Transformation,
    *,
    targets: Tensor | None = None,
    draws_each: int = 8,
    seed: int = 0,
) -> float:
    """The share of adversarial images that a transformation undoes (Kurakin 2016); NaN if there are none.

    Of the images that are classified rightly and whose adversarial form is not, over several draws: how many
    are classified rightly again once transformed. With targets: of those taken for their target, how many are
    taken for something else.

    Args:
        images, adversarial: [N, C, H, W].
        labels, targets: int64 [N].
        draws_each: transformations an image.
    """
    check_images(adversarial, labels)
    named_one, keys = named(transformation), fold_in(content_keys(images), seed)
    if targets is None:
        counted = is_adversarial(network, adversarial, labels) & ~is_adversarial(network, images, labels)
    else:
        counted = is_adversarial(network, adversarial, targets, targeted=True)
    rows = counted.nonzero()[:, 0]
    if not len(rows):
        return float("nan")
    undone = 0
    with torch.no_grad():
        for draw in range(draws_each):
            seen = named_one(adversarial[rows], fold_in(keys[rows], draw))
            if targets is None:
                still = is_adversarial(network, seen, labels[rows])
            else:
                still = is_adversarial(network, seen, targets[rows], targeted=True)
            undone += int((~still).sum())
    return undone / (draws_each * len(rows))
