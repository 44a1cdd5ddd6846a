"""Plain training: the cross-entropy of the images as they are."""

from dataclasses import dataclass

from torch import Tensor, nn

from vitrine.modules.objectives.awp import WeightPerturbed


@dataclass
class Standard(WeightPerturbed):
    """Cross-entropy, optionally with label smoothing."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.cross_entropy(network, images, labels)
