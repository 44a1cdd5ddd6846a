"""Adversarial training against PGD (Madry 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vitrine.core.settings import setting
from vitrine.modules.objectives.adversarial import Adversarial, fresh_keys


@dataclass
class PGD(Adversarial):
    """The cross-entropy of the images that PGD finds; training accuracy is on them."""

    steps: int = setting(10, "steps of the attack, by eps / 4 in linf unless `step` says", least=1)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        attack = self.pgd(self.steps, self.share())
        worst = attack(network, images, labels, keys=fresh_keys(images), check=False)
        return self.cross_entropy(network, worst, labels)
