"""Detects catastrophic overfitting: accuracy under many attack steps is gone while one step still fails."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from vitrine import attacks
from vitrine.core.network_scopes import frozen_weights

log = logging.getLogger(__name__)


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
