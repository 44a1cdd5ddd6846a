"""Adversarial weight perturbation (Wu 2020): any objective's loss, at the worst weights nearby."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrine.core import settings
from vitrine.core.settings import setting

_TINY = 1e-20

Loss = Callable[[], tuple[Tensor, Tensor]]


@dataclass
class WeightPerturbed:
    """What an objective inherits to offer `awp`; it hands its loss through `at_worst_weights`."""

    awp: float = setting(
        0.0,
        "adversarial weight perturbation, a share of each layer's norm; 0.005 to 0.01 are usual. 0: none",
        least=0,
    )

    def __post_init__(self) -> None:
        settings.check(self)
        self._moved: list[tuple[Tensor, Tensor]] = []

    def at_worst_weights(self, network: nn.Module, loss: Loss) -> tuple[Tensor, Tensor]:
        """What `loss()` gives, at the perturbed weights; they are put back by `after_backward`."""
        self._put_back()
        if self.awp and torch.is_grad_enabled():
            self._moved = perturb(network, loss, self.awp)
        return loss()

    def after_backward(self, network: nn.Module) -> None:
        self._put_back()

    def _put_back(self) -> None:
        if not self._moved:
            return
        with torch.no_grad():
            for weight, original in self._moved:
                weight.copy_(original)
        self._moved = []
        torch.clear_autocast_cache()


def perturb(network: nn.Module, loss: Loss, gamma: float) -> list[tuple[Tensor, Tensor]]:
    """Move the weights of each layer by gamma |w| in the direction in which the loss rises.

    One step from the weights, layer by layer: w + gamma |w| g / |g|. Biases and normalisation layers (one
    dimension) stay. Neither `.grad` nor running statistics are touched. With several devices, each moves by
    the gradient of its own part of the batch.

    Args:
        loss: the loss and the logits at the network's present weights.
        gamma: length of the step, as a share of the layer's norm.

    Returns:
        The weights that were moved, each with a copy of what it was.
    """
    weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    with _statistics_kept(network):
        value, _ = loss()
    gradients = torch.autograd.grad(value, weights, allow_unused=True)
    moved = []
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients):
            if gradient is None:
                continue
            moved.append((weight, weight.clone()))
            weight.add_(gradient * (gamma * weight.norm() / (gradient.norm() + _TINY)))
    torch.clear_autocast_cache()  # it holds the weights as they were
    return moved


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Layers normalise as in training, but their running statistics stay."""
    running = [m for m in network.modules() if m.training and getattr(m, "track_running_stats", False)]
    try:
        for module in running:
            module.track_running_stats = False
        yield
    finally:
        for module in running:
            module.track_running_stats = True
