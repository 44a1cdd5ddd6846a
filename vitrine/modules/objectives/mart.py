"""MART (Wang 2020): images that are misclassified without an attack have more weight."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrine.attacks.losses import largest_other
from vitrine.core.settings import setting
from vitrine.modules.objectives.pgd import PGD
from vitrine.modules.objectives.trades import divergence, probabilities

_LEAST = 1e-4  # keeps the logarithm finite where another class is certain


@dataclass
class MART(PGD):
    """BCE(x') + beta (1 - p_y(x)) KL(p(x) | p(x')), with x' of PGD; training accuracy is on x'.

    BCE is the boosted cross-entropy, -log p_y - log(1 - max of the others' p), which takes class weights. Its
    margin, and the divergence's factor, need the one class of an image: no mixup, no cutmix.
    """

    soft_targets = False

    beta: float = setting(5.0, "weight of the divergence", least=0)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        adversarial = self.attack(network, images, labels)

        def loss() -> tuple[Tensor, Tensor]:
            clean, logits = probabilities(network(images)), network(adversarial)
            cross_entropy = self.classification_loss(logits, labels)
            others = largest_other(probabilities(logits), labels)
            margin = self.mean_by_class(-torch.log(1 + _LEAST - others), labels)
            misclassified = 1 - clean.gather(1, labels[:, None])[:, 0]
            weighted = (misclassified * divergence(logits, clean)).mean()
            return cross_entropy + margin + self.beta * weighted, logits

        return self.at_perturbed_weights(network, loss)
