"""All scores of all maps, from effects and attributions of parts; which maps are clear of their controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from vitrine.analyses import part_scores
from vitrine.core.bootstrap import bootstrap


@dataclass(frozen=True)
class Measured:
    """What was measured of N scenes with P parts, C of which classes have of their own, for two classes: the
    predicted one and the next."""

    present: Tensor  # bool [N, P]
    effects: Tensor  # [2, N, P], the drop of each class's logit when a part is left out
    replaced: Tensor  # [N, C], the drop of the predicted one when a part is replaced by another class's
    attributions: Mapping[str, Tensor]  # [2, N, P] by map, for each class
    curves: Mapping[str, Tensor]  # [N, P + 1] by map, the predicted class's probability as parts are deleted

    @classmethod
    def join(cls, shards: Sequence[Self]) -> Self:
        """The scenes of all ranks together."""

        def joined(of: Callable[[Self], Tensor], dim: int) -> Tensor:
            return torch.cat([of(shard) for shard in shards], dim)

        return cls(
            joined(lambda s: s.present, 0),
            joined(lambda s: s.effects, 1),
            joined(lambda s: s.replaced, 0),
            {name: joined(lambda s, name=name: s.attributions[name], 1) for name in shards[0].attributions},
            {name: joined(lambda s, name=name: s.curves[name], 0) for name in shards[0].curves},
        )


@dataclass(frozen=True)
class Kind:
    """What a score is."""

    title: str
    meaning: str  # what it says, for a caption
    low_is_good: bool = False


SCORES: Mapping[str, Kind] = {
    "rank_correlation": Kind(
        "rank correlation with the effects", "Spearman's, over the parts of a scene, left out one at a time"
    ),
    "rank_correlation_replaced": Kind(
        "rank correlation, parts replaced", "the same, parts being replaced by those of another class"
    ),
    "most_important": Kind(
        "most important part named", "how often the part with the highest attribution has the greatest effect"
    ),
    "distractibility": Kind(
        "distractibility (low is good)",
        f"the share of attribution on parts with under {part_scores.NO_EFFECT:.0%} of the greatest effect",
        low_is_good=True,
    ),
    "deletion": Kind(
        "deletion by parts",
        "the area above the curve of the class's probability as parts are deleted, those with the highest "
        "attribution first; of a network that is unsure from the start it is high for all maps",
    ),
    "target_sensitivity": Kind(
        "target sensitivity",
        "rank correlation of how map and effects change when the second class is asked for",
    ),
}


@dataclass(frozen=True)
class Scores:
    """One score of all maps."""

    kind: Kind
    values: Mapping[str, Tensor]  # [N] by map, NaN where it is not defined
    intervals: Mapping[str, tuple[float, float, float]]  # mean, low and high by map
    techniques: Sequence[str]  # the maps that are no controls

    def controls(self, technique: str) -> list[str]:
        """What a technique is held against: the maps that know nothing, and itself on random weights."""
        return [*self.ignorant, on_random(technique)]

    @property
    def ignorant(self) -> list[str]:
        """The maps that know nothing of any network."""
        twins = [on_random(name) for name in self.techniques]
        return [name for name in self.intervals if name not in self.techniques and name not in twins]

    @property
    def clear(self) -> list[str]:
        """The techniques whose interval is on the good side of those of all their controls, and apart."""
        return [name for name in self.techniques if self._is_clear(name)]

    def _is_clear(self, technique: str) -> bool:
        _, low, high = self.intervals[technique]
        controls = [self.intervals[name] for name in self.controls(technique)]
        if self.kind.low_is_good:
            return all(high < of_control for _, of_control, _ in controls)
        return all(low > of_control for _, _, of_control in controls)


def on_random(technique: str) -> str:
    """The name of a technique's map on a network with random weights."""
    return f"random_weights/{technique}"


def score(measured: Measured, class_parts: Sequence[int], seed: int, samples: int) -> dict[str, Scores]:
    """Each of SCORES of all maps.

    Args:
        class_parts: which of the parts are those of `measured.replaced`.
        seed, samples: of the bootstrap.
    """
    present, effects = measured.present, measured.effects
    names = list(measured.attributions)
    techniques = [name for name in names if on_random(name) in names]
    chosen = list(class_parts)
    compute: Mapping[str, Callable[[str, Tensor], Tensor]] = {
        "rank_correlation": lambda _, a: part_scores.rank_correlation(a[0], effects[0], present),
        "rank_correlation_replaced": lambda _, a: part_scores.rank_correlation(
            a[0][:, chosen], measured.replaced, present[:, chosen]
        ),
        "most_important": lambda _, a: part_scores.names_most_important(a[0], effects[0], present),
        "distractibility": lambda _, a: part_scores.distractibility(a[0], effects[0], present),
        "deletion": lambda name, _: part_scores.deletion_gain(measured.curves[name], present),
        "target_sensitivity": lambda _, a: part_scores.target_sensitivity(a, effects, present),
    }
    found = {}
    for key, kind in SCORES.items():
        values = {name: compute[key](name, measured.attributions[name]) for name in names}
        bounds = bootstrap(torch.stack(list(values.values())), seed, samples)
        intervals = {name: (m, low, high) for name, m, low, high in zip(names, *(b.tolist() for b in bounds))}
        found[key] = Scores(kind, values, intervals, techniques)
    return found
