"""Attribution maps held against the measured effects of an image's parts: scores, and their intervals.

The idea is that of FunnyBirds (Hesse, Schaub-Meyer & Roth 2023). An effect is the drop of a class's logit
when a part is left out: what the part says for the class. In all functions `present`, bool [N, P], says which
of P parts each of N images has; a score that is not defined for an image is NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

NO_EFFECT = 0.1  # of the greatest effect in an image, below which a part has none


def part_attributions(maps: Tensor, masks: Tensor) -> Tensor:
    """The sum of each map over the pixels of each part, [N, P].

    The sum, not the mean: leaving a part out takes all its pixels away, and where attributions add up to the
    logit (Sundararajan 2017) those of its pixels add up to its effect. BENCHMARKS.md has both: the mean ranks
    small parts too high, and then hardly any map names the most important part.

    Args:
        maps: [N, H, W], with their sign where they have one.
        masks: bool, [N, P, H, W].
    """
    return (maps[:, None] * masks).sum((2, 3))


def ranks(values: Tensor, present: Tensor) -> Tensor:
    """The ranks of the values [N, P] among those present, from 0, equal values sharing their mean rank."""
    pairs = present[:, None, :] & present[:, :, None]
    below = values[:, None, :] < values[:, :, None]
    equal = values[:, None, :] == values[:, :, None]
    return ((below + 0.5 * equal) * pairs).sum(2) - 0.5


def rank_correlation(attributions: Tensor, effects: Tensor, present: Tensor) -> Tensor:
    """Spearman's correlation of attributions and effects [N, P] over the parts of each image: [N].

    0 where all attributions of an image are equal: they say nothing. NaN with fewer than 2 parts, or where
    all effects are equal.
    """
    count = present.sum(1)
    deviations = [
        (ranks(values, present) - (count[:, None] - 1) / 2) * present for values in (attributions, effects)
    ]
    own, true = deviations
    norms = own.norm(dim=1) * true.norm(dim=1)
    correlation = (own * true).sum(1) / norms.where(norms > 0, 1.0)
    return correlation.where((count > 1) & (true.norm(dim=1) > 0), torch.nan)


def names_most_important(attributions: Tensor, effects: Tensor, present: Tensor) -> Tensor:
    """How much of the highest attribution is on the part with the greatest effect: 1 or 0, [N].

    Where several parts share the highest attribution it is a share of 1. NaN with fewer than 2 parts, or
    where no part has a positive effect.
    """
    lowest = torch.tensor(-torch.inf)
    own, true = (values.where(present, lowest) for values in (attributions, effects))
    named = own == own.amax(1, keepdim=True)
    hit = named.gather(1, true.argmax(1, keepdim=True))[:, 0] / named.sum(1)
    return hit.where((present.sum(1) > 1) & (true.amax(1) > 0), torch.nan)


def distractibility(attributions: Tensor, effects: Tensor, present: Tensor) -> Tensor:
    """The share of the attributions' magnitude that is on parts without effect, [N]; low is good.

    NaN where all parts have an effect, or none; a map that is zero on all parts is on all of them alike.
    """
    magnitude, effect = attributions.abs() * present, effects.abs() * present
    idle = present & (effect < NO_EFFECT * effect.amax(1, keepdim=True))
    zero = magnitude.sum(1, keepdim=True) == 0
    magnitude = torch.where(zero, present.float(), magnitude)
    share = (magnitude * idle).sum(1) / magnitude.sum(1).clamp_min(torch.finfo(magnitude.dtype).tiny)
    return share.where(idle.any(1) & (effect.amax(1) > 0), torch.nan)


def target_sensitivity(attributions: Tensor, effects: Tensor, present: Tensor) -> Tensor:
    """Whether a map changes as the effects do when another class is asked for: a rank correlation, [N].

    Both are taken as shares of their magnitude over the parts, as maps of two classes may differ in scale.

    Args:
        attributions, effects: [2, N, P], for one class and for the other.
    """

    def change(values: Tensor) -> Tensor:
        values = values * present
        total = values.abs().sum(2, keepdim=True)
        first, second = values / total.where(total > 0, 1.0)
        return ((first - second) * 1e5).round()  # shares that are equal but for rounding share their rank

    return rank_correlation(change(attributions), change(effects), present)


def deletion_sets(attributions: Tensor, present: Tensor) -> Tensor:
    """Which parts are left out as parts are deleted, those with the highest attribution first: bool
    [N, P + 1, P]; when no part is left the last set is repeated."""
    order = attributions.where(present, torch.tensor(-torch.inf)).argsort(dim=1, descending=True, stable=True)
    place = order.argsort(1)
    steps = torch.arange(present.shape[1] + 1)[None, :, None]
    return (place[:, None] < steps) & present[:, None]


def deletion_gain(curve: Tensor, present: Tensor) -> Tensor:
    """The area above the curve of a class's probability as parts are deleted, [N]: high, if the first ones
    deleted are those that the network needs, or if it is unsure from the start. NaN without parts.

    Args:
        curve: [N, P + 1], after the deletions of `deletion_sets`.
    """
    count = present.sum(1)
    steps = torch.arange(curve.shape[1] - 1)
    trapezes = (curve[:, 1:] + curve[:, :-1]) / 2 * (steps < count[:, None])
    return (1 - trapezes.sum(1) / count).where(count > 0, torch.nan)
