"""The state of an evaluation by AutoAttack: which images are robust so far, and what broke the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitrine.core.random_numbers import content_keys, fold_in

ROBUST = -1


@dataclass
class Evaluation:
    """Robust accuracy, resumable."""

    adversarial: Tensor  # [N, C, H, W], the adversarial images found, the robust ones unchanged
    broken_by: Tensor  # int64 [N], the index in `names` of what broke each image, or ROBUST
    names: list[str]  # "clean" (misclassified without an attack), then the attacks
    skipped: list[str]  # the attacks that need more classes than there are
    identity: str  # of the images, labels and settings that the evaluation belongs to
    part: int = 0  # index in `names` of the attack that is running
    done: int = 0  # images that it has attacked

    @classmethod
    def start(cls, images: Tensor, names: list[str], skipped: list[str], identity: str) -> Evaluation:
        """An evaluation before its first attack."""
        broken_by = torch.full((len(images),), ROBUST, device=images.device)
        return cls(images.clone(), broken_by, names, skipped, identity)

    @property
    def robust(self) -> Tensor:
        """bool [N]."""
        return self.broken_by == ROBUST

    @property
    def accuracy(self) -> float:
        """Robust accuracy, in [0, 1]."""
        return self.robust.float().mean().item()

    def report(self) -> dict[str, float]:
        """The accuracy after each part that has been started, in order; the first is that on clean images."""
        return {
            name: (self.robust | (self.broken_by > index)).float().mean().item()
            for index, name in enumerate(self.names[: self.part + 1])
        }

    def rows(self, part: int, everything: bool) -> Tensor:
        """The images that a part attacks, int64: those that were robust when it began, or all."""
        robust = self.robust | (self.broken_by == part)
        return (torch.ones_like(robust) if everything else robust).nonzero()[:, 0]

    def record(self, rows: Tensor, images: Tensor, part: int) -> None:
        """Record that a part has found these adversarial images; those found before are kept."""
        new = self.broken_by[rows] == ROBUST
        self.adversarial[rows[new]], self.broken_by[rows[new]] = images[new], part

    def state_dict(self, pixels: bool = True) -> dict[str, Any]:
        """Tensors on the CPU and plain containers.

        Args:
            pixels: with those of the adversarial images; an evaluation that goes on without breaks the same
                images, and has those broken so far as they were.
        """
        rows = (self.broken_by > 0).nonzero()[:, 0] if pixels else self.broken_by.new_empty(0)
        return {
            "rows": rows.cpu(),
            "adversarial": self.adversarial[rows].cpu(),
            "broken_by": self.broken_by.cpu().clone(),
            "names": list(self.names),
            "skipped": list(self.skipped),
            "identity": self.identity,
            "part": self.part,
            "done": self.done,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], images: Tensor, identity: str) -> Evaluation:
        """The evaluation that was saved; ValueError if of other images, labels or settings."""
        if state["identity"] != identity:
            raise ValueError(f"state is of {state['identity']}, expected {identity}")
        evaluation = cls.start(images, state["names"], state["skipped"], identity)
        evaluation.adversarial[state["rows"].to(images.device)] = state["adversarial"].to(images)
        evaluation.broken_by = state["broken_by"].to(images.device)
        evaluation.part, evaluation.done = state["part"], state["done"]
        return evaluation


def fingerprint(images: Tensor, labels: Tensor) -> str:
    """A number that other images, other labels or another order would change."""
    places = torch.arange(len(images), device=images.device)
    mixed = fold_in(content_keys(images) ^ fold_in(labels * len(images) + places, 1), 2).sum()
    return f"{int(mixed) & (1 << 64) - 1:016x}"
