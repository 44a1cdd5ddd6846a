"""Fast adversarial training: one step from a random start (Wong 2020), guarded."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from vitrine import attacks
from vitrine.core.settings import setting
from vitrine.modules.objectives.adversarial import Adversarial, random_keys
from vitrine.modules.objectives.overfitting import OverfittingDetector


@dataclass
class Fast(Adversarial):
    """The cross-entropy of images one FGSM step of 1.25 eps from a random point of the ball.

    One step is enough until, within a few batches, the network overfits to that step alone ("catastrophic
    overfitting"). Every `guard_every` steps PGD-5 therefore attacks the first images that were trained on;
    once the accuracy has dropped by more than `guard_drop`, a warning is logged and the attack is PGD for the
    rest of the run, under which robustness returns (Li 2020). Meant for a cyclic learning rate.
    """

    guard_every: int = setting(50, "training steps between two measurements by PGD-5; 0: none", least=0)
    guard_drop: float = setting(
        0.2, "drop of the accuracy under PGD-5 that is catastrophic overfitting", above=0, most=1
    )
    guard_images: int = setting(128, "training images that PGD-5 attacks; at most a batch", least=1)
    fallback_steps: int = setting(10, "steps of the attack after catastrophic overfitting", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        pgd5 = attacks.PGD(norm=self.norm, eps=self.eps, steps=5, precision="inherit")
        self.guard = OverfittingDetector(pgd5, self.guard_images, self.guard_every, self.guard_drop)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        overfitted, factor = self.guard.update(network, images, labels), self.advance_warmup()
        fallback = replace(self.pgd(self.fallback_steps, factor), step=None)
        attack = fallback if overfitted else self.one_step(factor)
        adversarial = attack(network, images, labels, keys=random_keys(images), check=False)
        return self.cross_entropy(network, adversarial, labels)

    def one_step(self, factor: float) -> attacks.FGSM:
        """FGSM with eps and step size times `factor`."""
        step = 1.25 * self.eps if self.step is None else self.step
        return attacks.FGSM(
            norm=self.norm,
            eps=factor * self.eps,
            step=factor * step or None,  # 0 where eps is
            random_start=True,
            mode=self.attack_mode,
            precision="inherit",
        )

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "guard": self.guard.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.guard.load_state_dict(state["guard"])
