"""Attribution maps against the truth: what each part of a scene does to the logits."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses.attribution import (
    TECHNIQUES,
    Effort,
    attributions,
    cam_layer,
    known_attributions,
    planted_stickers,
    signed_importance,
)
from vitrine.analyses.base import Analysis, Figure, Scalar, State, Subject
from vitrine.analyses.control_maps import control_maps
from vitrine.analyses.part_effects import PartLogits, drops
from vitrine.analyses.part_scores import deletion_sets, part_attributions
from vitrine.analyses.traits import Summary, Traits
from vitrine.analyses.truth_pictures import disagreement_figures, effects_figure, score_figures
from vitrine.analyses.truth_scores import Measured, Scores, on_random, score
from vitrine.analyses.untrained import Untrained
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import setting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Truth(Analysis):
    """How well attribution maps agree with the measured effects of a scene's parts (Hesse 2023), beside
    controls that know nothing, and the same maps of a network with random weights.

    Scalars: each of `SCORES` as "<score>/<map>" and "<score>/random_weights/<map>", and how many maps are
    clear of their controls, "clear_of_controls/<score>"; the mean drop of the predicted logit when a part is
    left out, or replaced by another class's, "effect/left_out/<part>" and "effect/replaced/<part>".
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Truth",
        title="Truth",
        page_order=95,
        summaries=(
            Summary("clear_of_controls", parts=2),
            Summary("rank_correlation", parts=2, headline=True),
        ),
        own_page=True,
        budget_priority=40,
    )
    images: int = setting(32, "scenes measured, the same at every checkpoint", least=2)
    maps: list[str] = setting(list(TECHNIQUES), f"maps measured, of {', '.join(TECHNIQUES)}")
    stickers: bool = setting(True, "where stickers can be planted (signs), each scene has one")
    shown: int = setting(4, "scenes in the picture of disagreement; 0: no picture", least=0)
    samples: int = setting(1000, "bootstrap samples of the scenes, for the intervals", least=100)
    copies: int = setting(8, "SmoothGrad: noisy copies", least=1)
    steps: int = setting(8, "integrated gradients: points of the path", least=1)
    baseline: float = setting(0.5, "the pixel value of nothing", least=0, most=1)

    def __post_init__(self) -> None:
        for name in self.maps:
            TECHNIQUES.check(name)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar | State]:
        if not subject.dataset.parts:
            log.info("truth is left out: the data set's images are not drawn from parts")
            return
        subject = (planted_stickers(subject) if self.stickers else None) or subject
        indices, measured, untrained = self.measure(subject)
        parts, class_parts = subject.dataset.parts, subject.dataset.class_parts
        for effects, names, how in (
            (measured.effects[0], parts, "left_out"),
            (measured.replaced, class_parts, "replaced"),
        ):
            present = measured.present[:, [parts.index(name) for name in names]]
            for name, own, has in zip(names, effects.unbind(1), present.unbind(1)):
                if has.any():
                    yield Scalar(f"effect/{how}/{name}", own[has].mean().item())
        scores = score(measured, [parts.index(name) for name in class_parts], subject.seed, self.samples)
        yield from _scalars(scores)
        yield State(
            untrained.state({name: measured.attributions[on_random(name)] for name in _techniques(scores)})
        )
        yield effects_figure(measured, parts, class_parts, scores, subject.seed, self.samples)
        yield from score_figures(scores)
        if self.shown:
            yield from self._disagreement(subject, indices, measured, scores)

    def measure(self, subject: Subject) -> tuple[Tensor, Measured, Untrained]:
        """By all ranks together: which scenes of the data set, int64 [N], effects and attributions of their
        parts, and what is known of the network with random weights."""
        # the images of other analyses, so that their maps are shared
        indices = permutation(len(subject.dataset), subject.seed)[: self.images]
        images, labels = subject.images(indices)
        untrained = Untrained.of(subject, "truth", images, labels, self._effort(subject))
        rows = subject.shard(len(indices))
        own = self._measure(subject, indices, images, labels, untrained, rows) if rows else None
        return indices, Measured.join([of for of in subject.all_gather(own) if of is not None]), untrained

    def _effort(self, subject: Subject) -> Effort:
        return Effort(
            self.copies,
            steps=self.steps,
            baseline=self.baseline,
            seed=subject.seed,
            batch_size=subject.batch_size,
        )

    def _measure(
        self,
        subject: Subject,
        indices: Tensor,
        images: Tensor,
        labels: Tensor,
        untrained: Untrained,
        rows: range,
    ) -> Measured:
        """Effects and attributions of the parts of some of these scenes."""
        dataset, effort, own = subject.dataset, self._effort(subject), slice(rows.start, rows.stop)
        indices, images, labels = indices[own], images[own], labels[own]
        by_part = dataset.part_masks(indices)
        masks = torch.stack([by_part[name] for name in dataset.parts], 1)
        present = masks.flatten(2).any(2)
        logits = PartLogits(subject.network, dataset, indices, subject.device)
        whole = logits.without(torch.zeros_like(present))
        targets = whole.topk(min(2, whole.shape[1]), 1).indices
        targets = torch.stack([targets[:, 0], targets[:, -1]])  # the predicted class and the next
        single = logits.without(torch.eye(len(dataset.parts), dtype=torch.bool).expand(len(rows), -1, -1))
        replaced = [logits.with_other(dataset.parts.index(name)) for name in dataset.class_parts]
        of_parts = {
            name: torch.stack([part_attributions(own.cpu(), masks) for own in maps])
            for name, maps in self._maps(subject, indices, images, targets.to(subject.device), effort)
        }
        twins = untrained.attributions(subject, rows, images, labels, masks, list(of_parts), effort)
        of_parts |= {on_random(name): own for name, own in twins.items()}
        controls = [control_maps(images.cpu(), indices, subject.seed + i) for i in range(2)]
        for name in controls[0]:  # of each class the same, but for what is random
            of_parts[name] = torch.stack([part_attributions(own[name], masks) for own in controls])
        sets = torch.stack([deletion_sets(own[0], present) for own in of_parts.values()], 1)
        after = logits.without(sets).softmax(-1)  # [n, maps, P + 1, K]: all sets are drawn together
        curves = after.gather(3, targets[0][:, None, None, None].expand(*after.shape[:3], 1))[..., 0]
        return Measured(
            present,
            torch.stack([drops(whole, single, target) for target in targets]),
            drops(whole, torch.stack(replaced, 1), targets[0]),
            of_parts,
            dict(zip(of_parts, curves.unbind(1))),
        )

    def _maps(
        self, subject: Subject, indices: Tensor, images: Tensor, targets: Tensor, effort: Effort
    ) -> Iterator[tuple[str, Tensor]]:
        """Of each technique the maps for both classes [2, N, H, W], with their sign where they have one."""
        layer = cam_layer(subject)
        known = known_attributions(subject, indices, effort)
        shared = [name for name in self.maps if name in known]
        new = [name for name in self.maps if name not in known]
        # of all techniques, nobody expects all to be possible
        level = logging.DEBUG if self.maps == list(TECHNIQUES) else subject.log_level("truth")
        second = attributions(subject.network, shared, images, targets[1], layer, effort)
        both = attributions(subject.network, new, images, targets, layer, effort, level)
        for name in self.maps:
            if name in second:
                both[name] = torch.stack([known[name], second[name]])
            if name in both:
                yield name, torch.stack([signed_importance(name, maps) for maps in both[name]])

    def _disagreement(
        self,
        subject: Subject,
        indices: Tensor,
        measured: Measured,
        scores: Mapping[str, Scores],
    ) -> Iterator[Figure]:
        """The scenes on which the maps agree least with the effects, together."""
        correlation = scores["rank_correlation"]
        names = list(correlation.techniques)
        if not names:
            return
        means = torch.stack([correlation.values[name] for name in names]).nanmean(0)
        rows = means.nan_to_num(torch.inf).argsort(stable=True)[: self.shown]
        images, labels = subject.images(indices[rows])
        with torch.no_grad():
            targets = subject.network(images).argmax(1)
        layer, effort = cam_layer(subject), self._effort(subject)
        maps = attributions(subject.network, names, images, targets, layer, effort, logging.DEBUG)
        yield from disagreement_figures(
            images.cpu(),
            [
                f"a {subject.classes[label]}, taken for {subject.classes[target]}"
                if label != target
                else subject.classes[label]
                for label, target in zip(labels.tolist(), targets.tolist())
            ],
            measured.effects[0][rows].where(measured.present[rows], torch.nan),
            subject.dataset.parts,
            {name: signed_importance(name, own).cpu() for name, own in maps.items()},
            {name: correlation.values[name][rows] for name in names},
        )


def _techniques(scores: Mapping[str, Scores]) -> Sequence[str]:
    return next(iter(scores.values())).techniques


def _scalars(scores: Mapping[str, Scores]) -> Iterator[Scalar]:
    for name, of in scores.items():
        for map_name, (mean, _, _) in of.intervals.items():
            if mean == mean:
                yield Scalar(f"{name}/{map_name}", mean)
        yield Scalar(f"clear_of_controls/{name}", float(len(of.clear)))
