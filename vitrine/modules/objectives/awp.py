"""Adversarial weight perturbation (Wu 2020): any objective's loss, at the worst weights nearby."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.core import settings
from vitrine.core.settings import setting
from vitrine.modules.objectives.base import Objective
from vitrine.modules.objectives.class_weights import weights_of_classes

_TINY = 1e-20

Loss = Callable[[], tuple[Tensor, Tensor]]


@dataclass
class WeightPerturbed(Objective):
    """An objective whose cross-entropy has class weights and label smoothing, with the setting `awp`."""

    soft_targets = True

    awp: float = setting(
        0.0,
        "adversarial weight perturbation, a fraction of each layer's norm; 0.005 to 0.01 are usual. 0: none",
        least=0,
    )

    label_smoothing: float = setting(
        0.0,
        "fraction of the target spread evenly over all classes (Szegedy 2016, Pang 2021)",
        least=0,
        most=1,
    )

    class_weights: Any = setting(
        None,
        "weights of the classes in the cross-entropy: balanced (n / (K n_k)), or one for each class",
        hint=str | list[float] | None,
    )

    def __post_init__(self) -> None:
        settings.check(self)
        self.weights: Tensor | None = None  # of the classes, float32, [K]
        self._perturbed: list[tuple[Tensor, Tensor]] = []  # weights, and what they were

    def at_perturbed_weights(self, network: nn.Module, loss: Loss) -> tuple[Tensor, Tensor]:
        """`loss()` at the perturbed weights, which `after_backward` restores."""
        self._restore_weights()
        if self.awp and torch.is_grad_enabled():
            self._perturbed = perturb(network, loss, self.awp)
        return loss()

    def prepare(self, train: Any, classes: Sequence[str]) -> None:
        self.weights = weights_of_classes(self.class_weights, train, classes)

    def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy with label smoothing and class weights.

        The mean is torch's: by the weights of the labels, or over the images where labels are probabilities.
        Where all the labels' weights are 0, it is 0.
        """
        weights = self._weights_like(logits)
        if weights is not None and labels.ndim == 1:
            counts = weights[labels].sum() > 0
            some = torch.where(counts, weights, torch.ones_like(weights))  # the mean by none of them is NaN
            return counts * F.cross_entropy(logits, labels, some, label_smoothing=self.label_smoothing)
        return F.cross_entropy(logits, labels, weights, label_smoothing=self.label_smoothing)

    def mean_by_class(self, losses: Tensor, labels: Tensor) -> Tensor:
        """The mean of losses [N], weighted by the classes of the labels, int64 [N]; 0 if all weights are."""
        if self.weights is None:
            return losses.mean()
        weights = self._weights_like(losses)[labels]
        total = weights.sum()
        return (weights * losses).sum() / torch.where(total > 0, total, torch.ones_like(total))

    def _weights_like(self, values: Tensor) -> Tensor | None:
        if self.weights is not None:
            kind = torch.promote_types(values.dtype, self.weights.dtype)
            self.weights = self.weights.to(values.device, kind)
        return self.weights

    def cross_entropy(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy and the logits, at the perturbed weights if awp is on."""

        def loss() -> tuple[Tensor, Tensor]:
            logits = network(images)
            return self.classification_loss(logits, labels), logits

        return self.at_perturbed_weights(network, loss)

    def after_backward(self, network: nn.Module) -> None:
        self._restore_weights()

    def _restore_weights(self) -> None:
        if not self._perturbed:
            return
        with torch.no_grad():
            for weight, original in self._perturbed:
                weight.copy_(original)
        self._perturbed = []
        torch.clear_autocast_cache()


def perturb(network: nn.Module, loss: Loss, gamma: float) -> list[tuple[Tensor, Tensor]]:
    """Move the weights of each layer by gamma |w| in the direction in which the loss rises.

    One step from the weights, layer by layer: w + gamma |w| g / |g|. Biases and normalisation layers (one
    dimension) stay. Neither `.grad` nor running statistics are touched. With several devices, each moves by
    the gradient of its own part of the batch.

    Returns:
        The perturbed weights, each with a copy of its former value.
    """
    weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    with _fixed_running_statistics(network):
        value, _ = loss()
    gradients = torch.autograd.grad(value, weights, allow_unused=True)
    perturbed = []
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients):
            if gradient is None:
                continue
            perturbed.append((weight, weight.clone()))
            weight.add_(gradient * (gamma * weight.norm() / (gradient.norm() + _TINY)))
    torch.clear_autocast_cache()  # it holds the weights as they were
    return perturbed


@contextmanager
def _fixed_running_statistics(network: nn.Module) -> Iterator[None]:
    """Within the scope layers normalise as in training, but their running statistics stay the same."""
    running = [m for m in network.modules() if m.training and getattr(m, "track_running_stats", False)]
    try:
        for module in running:
            module.track_running_stats = False
        yield
    finally:
        for module in running:
            module.track_running_stats = True
