"""When a network counts as right for the wrong reason: by where its evidence lies, or by interventions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.core.random_numbers import permutation

LEVEL = 0.05  # of the one-sided tests
LEAST_IMAGES = 4  # of which a class is judged
LEAST_KAPPA = 0.2  # below, agreement is "slight" (Landis & Koch 1977)


@dataclass(frozen=True)
class Evidence:
    """Where the evidence for the predicted classes of N images lies."""

    labels: Tensor  # int64, [N]
    predicted: Tensor  # int64, [N]
    logits: Tensor  # of the predicted class, [N]
    areas: dict[str, Tensor]  # by mask, its share of the pixels, [N]
    shares: dict[str, dict[str, Tensor]]  # by map and mask, the share of the map inside, [N]

    @property
    def recognised(self) -> Tensor:
        return self.predicted == self.labels

    def limits(self, mask: str, threshold: float | None) -> Tensor:
        """The share that is to lie inside, [N]: the threshold, or as much as of a random map."""
        areas = self.areas[mask]
        return areas if threshold is None else torch.full_like(areas, threshold)


@dataclass(frozen=True)
class Effects:
    """What interventions do to the predicted class of N scenes."""

    drops: dict[str, Tensor]  # by what is left out, the fall of the class's logit, [N]
    flips: dict[str, Tensor]  # by what is replaced by another class's, whether the prediction changes, [N]

    @property
    def shortcut(self) -> str:
        """What was left out and replaced beside the object: the first."""
        return next(iter(self.drops))


def lies_below(values: Tensor, limits: Tensor, level: float = LEVEL) -> bool:
    """Whether values lie below limits on average, by Student's paired one-sided test.

    Args:
        values, limits: [N]; of fewer than 4 it is not said.
        level: how often it may be said where they do not.
    """
    from scipy.special import stdtrit

    differences = (values - limits).double()
    if len(differences) < LEAST_IMAGES:
        return False
    error = differences.std() / math.sqrt(len(differences))
    return (differences.mean() + stdtrit(len(differences) - 1, 1 - level) * error).item() < 0


def looks_outside(evidence: Evidence, mask: str, threshold: float | None = None) -> list[int]:
    """The classes of whose recognised images, by most maps, too little lies inside a mask (`lies_below`).

    The level is shared by the classes (Bonferroni): it is how often a map may name any of them by chance.
    """
    limits, found, labels = evidence.limits(mask, threshold), [], evidence.labels.unique().tolist()
    for label in labels:
        rows = evidence.recognised & (evidence.labels == label)
        maps = [shares[mask][rows] for shares in evidence.shares.values()]
        votes = [lies_below(inside, limits[rows], LEVEL / len(labels)) for inside in maps]
        if 2 * sum(votes) > len(votes):
            found.append(label)
    return found


def agreement(predicted: Tensor, labels: Tensor) -> float:
    """Cohen's kappa (1960) of two labellings [N]: 1 where they are equal, 0 where they agree as by chance."""
    classes = int(torch.cat([predicted, labels]).max()) + 1
    observed = (predicted == labels).double().mean()
    shares = [of.bincount(minlength=classes).double() / len(of) for of in (predicted, labels)]
    expected = (shares[0] * shares[1]).sum()
    return ((observed - expected) / (1 - expected)).item() if expected < 1 else 0.0


def class_samples(labels: Tensor, classes: int, per_class: int, most: int, seed: int) -> Tensor:
    """Indices of up to `per_class` random images of each class, in the order of classes; of more than `most`
    classes, of evenly spaced ones.

    Args:
        labels: int64, [N].
    """
    chosen = range(classes) if classes <= most else [i * classes // most for i in range(most)]
    order = permutation(len(labels), seed)
    shuffled = labels[order]
    return torch.cat([order[shuffled == label][:per_class] for label in chosen])
