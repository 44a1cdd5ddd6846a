"""Free adversarial training (Shafahi 2019): every backward pass serves the weights and the perturbation."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.attacks.threat import eps_setting
from vitrine.core.settings import setting
from vitrine.modules.objectives.awp import WeightPerturbed


@dataclass
class Free(WeightPerturbed):
    """Trains on each batch `replays` times, with gradient ascent on a perturbation meanwhile. The next batch
    starts from that perturbation, or from zero where its size differs.

    An epoch costs as much as `replays` plain ones: **divide the number of epochs by `replays`**. Learning
    rate schedules and averages of weights count batches, not replays. The budget is in Linf, as in the paper.
    """

    eps: float = eps_setting(8 / 255, "largest perturbation, of [0, 1] pixels", least=0)
    step: float | None = setting(None, "ascent of the perturbation, a replay; null: eps", above=0)
    replays: int = setting(8, "optimizer steps on each batch; divide trainer.max_epochs by it", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.delta: Tensor | None = None  # [N, C, H, W]

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.delta is None or self.delta.shape != images.shape:
            self.delta = torch.zeros_like(images)
        self.delta = self.delta.detach().to(images).requires_grad_(torch.is_grad_enabled())
        pixels = (images + self.delta).clamp(0, 1)
        return self.cross_entropy(network, pixels, labels)

    def after_backward(self, network: nn.Module) -> None:
        super().after_backward(network)
        ascent = (self.eps if self.step is None else self.step) * self.delta.grad.sign()
        self.delta = (self.delta.detach() + ascent).clamp_(-self.eps, self.eps)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.delta is None else {"delta": self.delta.detach().cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.delta = state.get("delta")
