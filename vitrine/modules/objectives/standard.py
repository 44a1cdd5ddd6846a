"""Plain training: the cross-entropy of the images as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.core.settings import setting
from vitrine.modules.objectives.awp import WeightPerturbed


@dataclass
class Standard(WeightPerturbed):
    """Cross-entropy, optionally with label smoothing (Szegedy 2016)."""

    label_smoothing: float = setting(
        0.0, "fraction of the target spread evenly over all classes", least=0, most=1
    )

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.at_perturbed_weights(
            network, lambda: cross_entropy(network, images, labels, self.label_smoothing)
        )


def cross_entropy(
    network: nn.Module, images: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy and the logits."""
    logits = network(images)
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing), logits
