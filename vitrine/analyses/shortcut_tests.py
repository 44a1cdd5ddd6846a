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


@dataclass(frozen=True)
class Outside:
    """Of which images too little of the evidence lies inside a mask."""

    overall: bool  # of all that are recognised
    classes: list[int]  # of these


def lies_below(values: Tensor, limits: Tensor) -> bool:
    """Whether values lie below limits on average, by Student's paired one-sided test at `LEVEL`.

    Args:
        values, limits: [N]; of fewer than 4 it is not said.
    """
    return p_below(values, limits) <= LEVEL


def p_below(values: Tensor, limits: Tensor) -> float:
    """How likely a mean so far below the limits' is where there is no difference, by Student's paired test;
    of fewer than 4 values 1."""
    from scipy.special import stdtr

    differences = (values - limits).double()
    if len(differences) < LEAST_IMAGES:
        return 1.0
    mean, error = differences.mean().item(), differences.std().item() / math.sqrt(len(differences))
    return float(stdtr(len(differences) - 1, mean / error)) if error else float(mean >= 0)


def looks_outside(evidence: Evidence, mask: str, threshold: float | None = None) -> Outside:
    """Of which recognised images, of all and of each class, by most maps too little lies inside a mask.

    The level is that of all these tests together (Holm 1979): how often any of them says so by chance.
    """
    limits, recognised = evidence.limits(mask, threshold), evidence.recognised
    rows = {label: recognised & (evidence.labels == label) for label in evidence.labels.unique().tolist()}
    rows[None] = recognised
    p = {}
    for group, of in rows.items():
        maps = sorted(p_below(shares[mask][of], limits[of]) for shares in evidence.shares.values())
        p[group] = maps[len(maps) // 2]  # more than half of the maps are at most there
    found = set()
    for tests, group in zip(range(len(p), 0, -1), sorted(p, key=p.get)):
        if p[group] > LEVEL / tests:
            break
        found.add(group)
    return Outside(None in found, sorted(found - {None}))


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
