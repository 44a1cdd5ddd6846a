"""Fast adversarial training: one step from a random start (Wong 2020), guarded."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vitrine import attacks
from vitrine.core.network_scopes import frozen_weights
from vitrine.core.settings import setting
from vitrine.modules.objectives.adversarial import Adversarial, random_keys

log = logging.getLogger(__name__)


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


class OverfittingDetector:
    """Measures the accuracy under PGD-5 on so many images, the first that were trained on.

    Attributes:
        detected: whether it has fallen by more than `drop` (of 1) below its best; it stays so.

    Args:
        every: training steps between two measurements; 0: never.
    """

    def __init__(self, attack: attacks.PGD, images: int, every: int, drop: float):
        self.attack, self.count, self.every, self.drop = attack, images, every, drop
        self.detected, self.steps, self.best = False, 0, 0.0
        self.images: Tensor | None = None
        self.labels: Tensor | None = None

    def update(self, network: nn.Module, images: Tensor, labels: Tensor) -> bool:
        """Count a training step, measure if it is time, and return `detected`."""
        if self.detected or not self.every:
            return self.detected
        if self.images is None:
            if labels.ndim == 2:  # probabilities: the class that an image is most of
                labels = labels.argmax(1)
            self.images, self.labels = images[: self.count].clone(), labels[: self.count].clone()
        if self.steps % self.every == 0:
            self.images, self.labels = self.images.to(images.device), self.labels.to(images.device)
            accuracy = self.accuracy(network)
            self.best = max(self.best, accuracy)
            self.detected = self.best - accuracy > self.drop
            if self.detected:
                log.warning(
                    "catastrophic overfitting at step %d: accuracy under PGD-%d fell from %.0f %% to %.0f %% "
                    "of %d training images; from here on the attack is PGD",
                    self.steps,
                    self.attack.steps,
                    100 * self.best,
                    100 * accuracy,
                    len(self.images),
                )
        self.steps += 1
        return self.detected

    def accuracy(self, network: nn.Module) -> float:
        """The fraction of the kept images that are classified correctly under attack."""
        keys = torch.arange(len(self.images), device=self.images.device)
        adversarial = self.attack(network, self.images, self.labels, keys=keys, check=False)
        with frozen_weights(network, adversarial.device), torch.no_grad():
            return (network(adversarial).argmax(1) == self.labels).float().mean().item()

    def state_dict(self) -> dict[str, Any]:
        """Tensors on the CPU and plain containers."""
        kept = {} if self.images is None else {"images": self.images.cpu(), "labels": self.labels.cpu()}
        return {"tripped": self.detected, "steps": self.steps, "best": self.best, **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.detected, self.steps, self.best = state["tripped"], state["steps"], state["best"]
        self.images, self.labels = state.get("images"), state.get("labels")
