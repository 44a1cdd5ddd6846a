"""What an evaluation by AutoAttack knows so far: which images have fallen, to what, and how they look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitrine.core.random_numbers import content_keys, fold_in

ROBUST = -1


@dataclass
class Evaluation:
    """Robust accuracy, resumable.

    Attributes:
        adversarial: the adversarial ones found, the robust ones as they came, [N, C, H, W].
        broken_by: the number in `names` of what felled each image, or -1, int64 [N].
        names: "clean" (misclassified as they came), then the attacks.
        skipped: the attacks that need more classes than there are.
    """

    adversarial: Tensor
    broken_by: Tensor
    names: list[str]
    skipped: list[str]
    fingerprint: str
    part: int = 0  # the attack at work
    done: int = 0  # images that it has dealt with

    @classmethod
    def start(cls, images: Tensor, names: list[str], skipped: list[str], fingerprint: str) -> Evaluation:
        broken_by = torch.full((len(images),), ROBUST, device=images.device)
        return cls(images.clone(), broken_by, names, skipped, fingerprint)

    @property
    def robust(self) -> Tensor:
        """bool [N]."""
        return self.broken_by == ROBUST

    @property
    def accuracy(self) -> float:
        """The share of images that stand."""
        return self.robust.float().mean().item()

    def report(self) -> dict[str, float]:
        """The accuracy after each part that has been started, in order; the first is that on clean images."""
        after = {}
        for number, name in enumerate(self.names[: self.part + 1]):
            stood = self.robust | (self.broken_by > number)
            after[name] = stood.float().mean().item()
        return after

    def rows(self, part: int, everybody: bool) -> Tensor:
        """The images that a part deals with, int64: those that stood when it began."""
        stood = self.robust | (self.broken_by == part)
        return (torch.ones_like(stood) if everybody else stood).nonzero()[:, 0]

    def record(self, rows: Tensor, images: Tensor, part: int) -> None:
        """Note that these images have fallen; what fell before stays as it fell."""
        fresh = self.broken_by[rows] == ROBUST
        self.adversarial[rows[fresh]], self.broken_by[rows[fresh]] = images[fresh], part

    def state_dict(self) -> dict[str, Any]:
        """Tensors on the CPU and plain containers, with the pixels of the images that fell to an attack."""
        rows = (self.broken_by > 0).nonzero()[:, 0]
        return {
            "rows": rows.cpu(),
            "adversarial": self.adversarial[rows].cpu(),
            "broken_by": self.broken_by.cpu().clone(),
            "names": list(self.names),
            "skipped": list(self.skipped),
            "fingerprint": self.fingerprint,
            "part": self.part,
            "done": self.done,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], images: Tensor, fingerprint: str) -> Evaluation:
        """The evaluation that `state_dict` told of; ValueError if of other images, labels or settings."""
        if state["fingerprint"] != fingerprint:
            raise ValueError(f"state is of {state['fingerprint']}, expected {fingerprint}")
        evaluation = cls.start(images, state["names"], state["skipped"], fingerprint)
        evaluation.adversarial[state["rows"].to(images.device)] = state["adversarial"].to(images)
        evaluation.broken_by = state["broken_by"].to(images.device)
        evaluation.part, evaluation.done = state["part"], state["done"]
        return evaluation


def fingerprint(images: Tensor, labels: Tensor) -> str:
    """A number that other images, other labels or another order would change."""
    places = torch.arange(len(images), device=images.device)
    mixed = fold_in(content_keys(images) ^ fold_in(labels * len(images) + places, 1), 2).sum()
    return f"{int(mixed) & (1 << 64) - 1:016x}"
