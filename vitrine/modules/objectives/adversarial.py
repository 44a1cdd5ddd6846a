"""What adversarial objectives have in common: settings of the attack, its random keys."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitrine import attacks
from vitrine.attacks.threat import NORMS, eps_setting
from vitrine.core.settings import setting
from vitrine.modules.objectives.awp import WeightPerturbed


@dataclass
class Adversarial(WeightPerturbed):
    """Settings of the attack: its budget, and the network's mode. It runs in the training's precision.

    A small network may learn nothing at all from a strong attack at its start: `eps_warmup` lets the attack's
    eps and step size rise linearly from zero.
    """

    norm: str = setting("linf", "norm of the perturbation", choices=tuple(NORMS))
    eps: float = eps_setting(8 / 255, "largest perturbation, of [0, 1] pixels", least=0)
    step: float | None = setting(None, "size of the attack's steps; null: as its paper has it", above=0)
    eps_warmup: int = setting(0, "batches over which eps rises to its full size", least=0)
    attack_mode: str = setting(
        "eval",
        "batch normalisation in the attack: eval, by running statistics; train, by the batch",
        choices=("eval", "train"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.batches = 0  # trained on

    def advance_warmup(self) -> float:
        """Count a batch and return the factor, in (0, 1], of eps in the attack on it."""
        self.batches += 1
        return min(1.0, self.batches / (self.eps_warmup + 1))

    def pgd(self, steps: int, factor: float) -> attacks.PGD:
        """PGD with eps and step size times `factor`."""
        return attacks.PGD(
            norm=self.norm,
            eps=factor * self.eps,
            steps=steps,
            step=None if self.step is None else factor * self.step,
            mode=self.attack_mode,
            precision="inherit",
        )

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches = state["batches"]


def random_keys(images: Tensor) -> Tensor:
    """A key for each image's random numbers, int64 [N], from torch's global generator, which is part of a
    resumable checkpoint."""
    return torch.randint(2**63 - 1, (len(images),), device=images.device)
