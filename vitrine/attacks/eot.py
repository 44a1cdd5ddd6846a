"""Expectation over transformation (Athalye 2018), and the destruction rate (Kurakin 2016)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.attacks import TRANSFORMATIONS
from vitrine.attacks.base import Attack, check_images
from vitrine.attacks.model import Transform, Views, is_adversarial
from vitrine.attacks.pgd import PGD
from vitrine.core import settings
from vitrine.core.random_numbers import content_keys, fold_in
from vitrine.core.settings import SettingError, setting


@dataclass(frozen=True)
class EOT:
    """Any gradient attack, on the mean loss over random transformations: examples that survive them.

    The result is within the attack's own budget of the images; the transformation only comes between the
    image and the network.
    """

    attack: Attack = setting(
        PGD(steps=100, step=2 / 255, eps=16 / 255), "the attack that follows the mean gradient"
    )
    transformation: Any = setting("physical", "a name, or a function of images [N, C, H, W] and keys [N]")
    draws: int = setting(16, "transformations an image and step", least=1)
    at_once: int = setting(256, "transformed images through the network in one pass", least=1)

    def __post_init__(self) -> None:
        settings.check(self)
        if not self.attack.supports_eot:
            raise SettingError("attack", f"is {type(self.attack).__name__}, expected FGSM, BIM, PGD or APGD")
        get_transformation(self.transformation)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
        """Adversarial images, [N, C, H, W]; arguments (options: `keys`, ...) and errors as of `Attack`."""
        views = Views(get_transformation(self.transformation), self.draws, self.at_once)
        attack = self.attack
        if attack.early_stop:  # one view that is adversarial does not make the image survive the others
            attack = dataclasses.replace(attack, early_stop=False)
        return attack(network, images, labels, views=views, **options)


def get_transformation(transformation: str | Transform) -> Transform:
    """The transformation of this name with its default settings; or the function itself."""
    return TRANSFORMATIONS[transformation]() if isinstance(transformation, str) else transformation


def destruction_rate(
    network: nn.Module,
    images: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    transformation: str | Transform,
    *,
    targets: Tensor | None = None,
    draws_each: int = 8,
    seed: int = 0,
) -> float:
    """The share of adversarial images that a transformation undoes (Kurakin 2016); NaN if there are none.

    Of the images that are classified correctly and whose adversarial form is not, the share that is
    classified correctly again once transformed, over several random transformations. With targets: of those
    classified as their target, the share that is not afterwards.

    Args:
        images, adversarial: [N, C, H, W].
        labels, targets: int64 [N].
        draws_each: transformations an image.
    """
    check_images(adversarial, labels)
    transform, keys = get_transformation(transformation), fold_in(content_keys(images), seed)
    targeted = targets is not None
    goal = targets if targeted else labels
    counted = is_adversarial(network, adversarial, goal, targeted=targeted)
    if not targeted:
        counted &= ~is_adversarial(network, images, labels)
    rows = counted.nonzero()[:, 0]
    if not len(rows):
        return float("nan")
    undone = 0
    with torch.no_grad():
        for draw in range(draws_each):
            transformed = transform(adversarial[rows], fold_in(keys[rows], draw))
            undone += int((~is_adversarial(network, transformed, goal[rows], targeted=targeted)).sum())
    return undone / (draws_each * len(rows))
