"""What adversarial objectives share: the attack's settings, its random numbers, the loss on its images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import attacks
from attacks.threat import NORMS
from modules.objectives.awp import WeightPerturbed
from modules.objectives.standard import cross_entropy
from settings import setting


@dataclass
class Adversarial(WeightPerturbed):
    """The budget, and how the network is met in the attack. The attack runs in the training's precision."""

    norm: str = setting("linf", "norm of the perturbation", choices=tuple(NORMS))
    eps: float = setting(8 / 255, "largest perturbation, of [0, 1] pixels", least=0)
    step: float | None = setting(None, "size of the attack's steps; null: as its paper has it", above=0)
    attack_mode: str = setting(
        "eval",
        "batch normalisation in the attack: eval, by running statistics; train, by the batch",
        choices=("eval", "train"),
    )
    label_smoothing: float = setting(
        0.0, "share of the target spread evenly over all classes (Pang 2021)", least=0, most=1
    )

    def pgd(self, steps: int, **options: object) -> attacks.PGD:
        """PGD within this budget."""
        return attacks.PGD(
            norm=self.norm,
            eps=self.eps,
            steps=steps,
            step=self.step,
            mode=self.attack_mode,
            precision="inherit",
            **options,
        )

    def cross_entropy(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy and the logits, at the worst weights if awp is on."""
        return self.at_worst_weights(
            network, lambda: cross_entropy(network, images, labels, self.label_smoothing)
        )


def fresh_keys(images: Tensor) -> Tensor:
    """A new key for each image's random numbers, int64 [N], drawn from torch's global generator, which is
    part of a resumable checkpoint."""
    return torch.randint(2**63 - 1, (len(images),), device=images.device)
