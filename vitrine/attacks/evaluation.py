"""What an evaluation by AutoAttack knows so far: which images have fallen, to what, and how they look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitrine.core.random_numbers import content_keys, fold_in

STANDING = -1


@dataclass
class Evaluation:
    """Robust accuracy, resumable.

    Attributes:
        adversarial: the fallen images as they fell, the standing ones as they came, [N, C, H, W].
        fell_to: the number in `names` of what felled each image, or -1, int64 [N].
        names: "clean" (misclassified as they came), then the attacks.
        left_out: the attacks that need more classes than there are.
    """

    adversarial: Tensor
    fell_to: Tensor
    names: list[str]
    left_out: list[str]
    made_for: str
    part: int = 0  # the attack at work
    done: int = 0  # images that it has dealt with

    @classmethod
    def of(cls, images: Tensor, names: list[str], left_out: list[str], made_for: str) -> Evaluation:
        fell_to = torch.full((len(images),), STANDING, device=images.device)
        return cls(images.clone(), fell_to, names, left_out, made_for)

    @property
    def standing(self) -> Tensor:
        """bool [N]."""
        return self.fell_to == STANDING

    @property
    def accuracy(self) -> float:
        """The share of images that stand."""
        return self.standing.float().mean().item()

    def report(self) -> dict[str, float]:
        """The accuracy after each part that has been started, in order; the first is that on clean images."""
        after = {}
        for number, name in enumerate(self.names[: self.part + 1]):
            stood = self.standing | (self.fell_to > number)
            after[name] = stood.float().mean().item()
        return after

    def rows(self, part: int, everybody: bool) -> Tensor:
        """The images that a part deals with, int64: those that stood when it began."""
        stood = self.standing | (self.fell_to == part)
        return (torch.ones_like(stood) if everybody else stood).nonzero()[:, 0]

    def record(self, rows: Tensor, images: Tensor, part: int) -> None:
        """Note that these images have fallen; what fell before stays as it fell."""
        fresh = self.fell_to[rows] == STANDING
        self.adversarial[rows[fresh]], self.fell_to[rows[fresh]] = images[fresh], part

    def state_dict(self) -> dict[str, Any]:
        """Tensors on the CPU and plain containers, with the pixels of the images that fell to an attack."""
        rows = (self.fell_to > 0).nonzero()[:, 0]
        return {
            "rows": rows.cpu(),
            "adversarial": self.adversarial[rows].cpu(),
            "fell_to": self.fell_to.cpu().clone(),
            "names": list(self.names),
            "left_out": list(self.left_out),
            "made_for": self.made_for,
            "part": self.part,
            "done": self.done,
        }

    @classmethod
    def resumed(cls, state: dict[str, Any], images: Tensor, made_for: str) -> Evaluation:
        """The evaluation that `state_dict` told of; ValueError if of other images, labels or settings."""
        if state["made_for"] != made_for:
            raise ValueError(f"state is of {state['made_for']}, expected {made_for}")
        evaluation = cls.of(images, state["names"], state["left_out"], made_for)
        evaluation.adversarial[state["rows"].to(images.device)] = state["adversarial"].to(images)
        evaluation.fell_to = state["fell_to"].to(images.device)
        evaluation.part, evaluation.done = state["part"], state["done"]
        return evaluation


def fingerprint(images: Tensor, labels: Tensor) -> str:
    """A number that other images, other labels or another order would change."""
    places = torch.arange(len(images), device=images.device)
    mixed = fold_in(content_keys(images) ^ fold_in(labels * len(images) + places, 1), 2).sum()
    return f"{int(mixed) & (1 << 64) - 1:016x}"
