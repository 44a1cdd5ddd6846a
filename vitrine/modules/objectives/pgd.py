"""Adversarial training against PGD (Madry 2018)."""

from dataclasses import dataclass

from torch import Tensor, nn

from vitrine.core.settings import setting
from vitrine.modules.objectives.adversarial import Adversarial, random_keys


@dataclass
class PGD(Adversarial):
    """The cross-entropy of the images that PGD finds; training accuracy is on them."""

    steps: int = setting(10, "steps of the attack; each eps / 4 in linf unless `step` is set", least=1)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.cross_entropy(network, self.attack(network, images, labels), labels)

    def attack(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The images that PGD finds in this batch."""
        pgd = self.pgd(self.steps, self.advance_warmup())
        return pgd(network, images, labels, keys=random_keys(images), check=False)
