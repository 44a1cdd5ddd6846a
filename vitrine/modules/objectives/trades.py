"""TRADES (Zhang 2019): accuracy on clean images, and predictions that are constant around them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.core.network_scopes import frozen_weights
from vitrine.core.random_numbers import normal
from vitrine.core.settings import setting
from vitrine.modules.objectives.adversarial import random_keys
from vitrine.modules.objectives.pgd import PGD

_START = 0.001  # standard deviation of the noise the attack starts from: at the image its gradient is zero


@dataclass
class TRADES(PGD):
    """CE(x) + beta KL(p(x) | p(x')), where x' maximises that divergence; training accuracy is on x.

    The attack's target p(x) is computed once, not at every step; where attack and loss see the very same
    network (attack_mode=train, no awp) the loss takes its logits from there too. Class weights are of
    the cross-entropy: the divergence has no labels.
    """

    beta: float = setting(6.0, "weight of the divergence", least=0)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        clean = network(images) if self.attack_mode == "train" and not self.awp else None
        keys = random_keys(images)
        adversarial = self.pgd(self.steps, self.advance_warmup())(
            network,
            images,
            self._clean_probabilities(network, images) if clean is None else probabilities(clean.detach()),
            keys=keys,
            check=False,
            start=images + _START * normal(keys, *images.shape[1:]).to(images),
            loss=divergence,
        )

        def loss() -> tuple[Tensor, Tensor]:
            logits = network(images) if clean is None else clean
            cross_entropy = self.classification_loss(logits, labels)
            robustness = divergence(network(adversarial), probabilities(logits)).mean()
            return cross_entropy + self.beta * robustness, logits

        return self.at_perturbed_weights(network, loss)

    def _clean_probabilities(self, network: nn.Module, images: Tensor) -> Tensor:
        with frozen_weights(network, images.device, self.attack_mode), torch.no_grad():
            return probabilities(network(images))


def probabilities(logits: Tensor) -> Tensor:
    """softmax in float32, [N, K]."""
    return logits.float().softmax(1)


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target | softmax(logits)) of each image, [N]; target: probabilities, [N, K]."""
    # at 0 the gradient by the target is NaN; clamped, it is 0: the softmax has none there either
    target = target.clamp(min=torch.finfo(target.dtype).tiny)
    return F.kl_div(logits.float().log_softmax(1), target, reduction="none").sum(1)
