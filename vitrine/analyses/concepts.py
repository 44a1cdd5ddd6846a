"""Concepts: the directions that a layer's activations are made of, where they are seen, and which classes use
them (CRAFT, Fel 2023; sparse autoencoders, Gao 2024)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitrine.analyses.activations import activations
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject, Table
from vitrine.analyses.concept_evidence import (
    ConceptEvidence,
    concept_layer,
    concept_maps,
    find_evidence,
    match_concepts,
    sample_places,
)
from vitrine.analyses.concept_pictures import LEGIBLE, draw_concept, draw_importance
from vitrine.analyses.dictionary import Dictionary, Nonnegative
from vitrine.analyses.evidence import NoSpatialLayer
from vitrine.analyses.examples import histogram
from vitrine.analyses.factorization import factorize
from vitrine.analyses.sparse_autoencoder import train_autoencoder
from vitrine.analyses.traits import Summary, Traits
from vitrine.core.settings import SettingError, setting

TRACE = 512  # places by whose coefficients concepts are recognised at the next checkpoint
MOST = 16  # concepts, unless their number is given
NAMED = 4  # classes beside a concept
LEAST = 0.05  # of what it adds to the class that uses it most: the least that names another
SAME = 0.5  # the least correlation with a concept of the checkpoint before that is said to be the same


@dataclass(frozen=True)
class Concepts(Analysis):
    """Concepts of a layer: "concept-03", a row of the images that it is strongest in, with the classes that
    it adds to; "importance", of all concepts for the classes.

    A concept keeps its number from one checkpoint to the next by the assignment of `match_concepts`.
    Activations are kept of `positions` places alone, positions x channels x 4 bytes; the images are passed
    through the network twice.

    Scalars: "reconstruction_error/<layer>", the share of the variance that concepts leave unexplained;
    "agreement/<layer>", the share of images of which the network says the same when it reads what they
    rebuild; "stability/<layer>", the mean correlation with the concepts of the checkpoint before.
    """

    traits: ClassVar[Traits] = Traits(
        section="Concepts",
        title="Concepts",
        page_order=45,
        summaries=(Summary("reconstruction_error"), Summary("agreement")),
        budget_priority=35,
    )
    enabled: bool = setting(False, "make these pictures at every checkpoint")
    layer: str = setting("auto", "the layer; auto: what the head averages, or the last one with maps")
    method: str = setting(
        "auto",
        "nmf (non-negative factors), sae (sparse autoencoder); auto: nmf, of layers that go below 0 sae",
        choices=("auto", "nmf", "sae"),
    )
    concepts: int | None = setting(
        None, "how many; 16 unless given, or a factor a channel of layers with fewer", least=1
    )
    active: int = setting(4, "concepts at a place, at most, of sae", least=1)
    steps: int = setting(1000, "of training, of sae", least=1)
    images: int = setting(1024, "images of the data set that are looked at, drawn by the seed", least=1)
    positions: int = setting(16384, "places of them that concepts are found from, drawn by the seed", least=1)
    examples: int = setting(8, "images shown of a concept", least=1)
    side: int = setting(96, "side of a tile, in pixels", least=16)

    @property
    def needs_previous(self) -> bool:
        return True  # concepts keep their numbers

    def check(self, network: nn.Module, images: Tensor) -> None:
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
        try:
            layer = self._layer(network, noise)
            with torch.no_grad():
                maps = activations(network, noise, [layer])[layer]
        except ValueError as error:
            raise SettingError("layer", str(error)) from error
        self._count(layer, maps.shape[1], maps.min().item())

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        layer = self._layer(subject.network, subject.probes.images)
        generator = torch.Generator().manual_seed(subject.seed)
        looked_at = torch.randperm(len(subject.dataset), generator=generator)[: self.images].sort().values
        each = math.ceil(self.positions / max(1, len(looked_at)))
        batches = _batches(subject, looked_at, "concepts: activations")
        values = sample_places(subject.network, batches, layer, each, subject.seed)
        dictionary = self._find(values, layer, subject.seed)
        fixed = torch.linspace(0, len(values) - 1, min(TRACE, len(values))).long()
        traces = dictionary.encode(values[fixed.to(values.device)]).T.cpu()
        del values
        batches = _batches(subject, looked_at, "concepts: evidence")
        evidence = find_evidence(subject.network, batches, layer, dictionary)
        found = _Found(subject, layer, looked_at, dictionary, evidence, traces)
        yield from self._figures(found)
        yield Scalar(f"reconstruction_error/{layer}", evidence.unexplained, layer)
        yield Scalar(f"agreement/{layer}", evidence.agrees.float().mean().item(), layer)
        if found.similarity:
            mean = sum(found.similarity.values()) / len(found.similarity)
            yield Scalar(f"stability/{layer}", mean, layer)

    def _layer(self, network: nn.Module, images: Tensor) -> str:
        if self.layer != "auto":
            return self.layer
        try:
            return concept_layer(network, images)
        except NoSpatialLayer as error:
            raise ValueError(f"{error}; name a layer whose vectors serve, concepts.layer=NAME") from error

    def _find(self, values: Tensor, layer: str, seed: int) -> Dictionary:
        """The dictionary of values [P, C], by the method asked for.

        Raises:
            ValueError: values are too few, or not such that the method can be used.
        """
        if not values.isfinite().all():
            raise ValueError(f"layer {layer!r} gives values that are not finite")
        count, sparse = self._count(layer, values.shape[1], values.min().item())
        if len(values) < count:
            raise ValueError(
                f"{count} concepts are more than the {len(values)} places that there are: ask for fewer, or "
                "for more concepts.images"
            )
        if sparse:
            return train_autoencoder(values, count, self.active, self.steps, seed)
        return factorize(values, count)

    def _count(self, layer: str, channels: int, least: float) -> tuple[int, bool]:
        """How many concepts a layer of so many channels gets, and whether of a sparse autoencoder.

        Args:
            least: of its values.

        Raises:
            SettingError: they are not such that the method can be used.
        """
        if self.method == "nmf" and least < 0:
            raise SettingError(
                "method",
                f"is nmf, but layer {layer!r} goes down to {least:.3g}, expected none below 0: sae takes "
                "such layers, or name one that ends in a ReLU, concepts.layer=NAME",
            )
        sparse = self.method == "sae" or least < 0
        count = self.concepts or (MOST if sparse else min(MOST, channels))
        if sparse and self.active > count:
            raise SettingError("active", f"is {self.active}, expected at most `concepts`, {count}")
        if not sparse and count > channels:
            problem = f"is {count}, expected at most the {channels} channels of layer {layer!r}"
            raise SettingError("concepts", f"{problem}; sae finds more")
        return count, sparse

    def _figures(self, found: _Found) -> Iterator[Figure]:
        subject, evidence, classes = found.subject, found.evidence, found.subject.classes
        importance = evidence.importance(len(classes))
        scale = importance.nan_to_num(0).abs().max().item()
        yield self._overview(found, importance)
        for number, k in sorted((number, k) for k, number in found.numbers.items()):
            best = evidence.peaks[:, k].argsort(descending=True, stable=True)[: self.examples]
            best = best[evidence.peaks[best, k] > 0]
            images, labels = subject.images(found.looked_at[best])
            maps = concept_maps(subject.network, images, found.layer, found.dictionary)[:, k]
            names = _users(importance[k], classes)
            share, similarity = evidence.shares[k].item(), found.similarity.get(k)
            same = "" if similarity is None else f"; {_sameness(similarity)}"
            counted = [classes[c] for c in labels.tolist()]
            yield Figure(
                key=f"concept-{number:02d}",
                image=draw_concept(
                    f"concept {number}",
                    [f"{share:.1%} of the layer", *([] if similarity is None else [_sameness(similarity)])],
                    names,
                    scale,
                    images.cpu(),
                    maps.cpu(),
                    self.side,
                ),
                caption=f"concept {number} of {found.layer}, {share:.1%} of all that is found in "
                f"{len(found.looked_at)} images; adds {names[0][1]:+.2g} to the logit of {names[0][0]}{same}."
                " The images with the most of it: cut out around the peak, and where it is.",
                values={
                    "share": share,
                    "peak": evidence.peaks[best[0], k].item(),
                    "part_of_logit": names[0][1],
                    **({} if similarity is None else {"correlation_with_before": similarity}),
                },
                indices=found.looked_at[best].tolist(),
                scores=evidence.peaks[best, k].tolist(),
                class_shares={name: counted.count(name) / len(counted) for name in dict.fromkeys(counted)},
                histogram=histogram(evidence.peaks[:, k]),
                trace=[float(f"{value:.4g}") for value in found.traces[k].tolist()],
            )

    def _overview(self, found: _Found, importance: Tensor) -> Figure:
        """Which concepts add to which classes, as one picture and a table."""
        evidence, classes = found.evidence, found.subject.classes
        rows = [k for _, k in sorted((number, k) for k, number in found.numbers.items())]
        names = [f"concept {found.numbers[k]}" for k in rows]
        importance = importance[rows]
        known = importance.nan_to_num(0)
        top = known.argmax(1).tolist()
        shown, of = list(range(len(classes))), ""
        if len(classes) > LEGIBLE:
            shown = sorted(known.abs().amax(0).argsort(descending=True, stable=True)[:LEGIBLE].tolist())
            of = f" The {LEGIBLE} of {len(classes)} classes for which a concept matters most."
        agrees = evidence.agrees.float().mean().item()
        return Figure(
            key="importance",
            image=draw_importance(importance[:, shown], names, [str(classes[c]) for c in shown]),
            caption=f"What each concept of {found.layer} adds to the logit of a class, on the images of that "
            f"class ({found.method}). They leave {evidence.unexplained:.0%} of the layer's variance "
            f"unexplained; reading what they rebuild, the network says the same of {agrees:.0%} of the "
            f"images.{of}",
            values={"reconstruction_error": evidence.unexplained, "agreement": agrees},
            table=Table(
                {
                    "concept": names,
                    "share": [evidence.shares[k].item() for k in rows],
                    "adds most to": [str(classes[c]) for c in top],
                    "so much": [known[i, c].item() for i, c in enumerate(top)],
                    "correlation with before": [found.similarity.get(k) for k in rows],
                }
            ),
        )


class _Found:
    """The concepts of a layer at a checkpoint, with their numbers."""

    def __init__(
        self,
        subject: Subject,
        layer: str,
        looked_at: Tensor,
        dictionary: Dictionary,
        evidence: ConceptEvidence,
        traces: Tensor,
    ):
        self.subject, self.layer, self.looked_at = subject, layer, looked_at
        self.dictionary, self.evidence, self.traces = dictionary, evidence, traces
        self.method = (
            "non-negative factors"
            if isinstance(dictionary, Nonnegative)
            else "a sparse autoencoder's directions"
        )
        self.numbers, self.similarity = self._number()

    def _number(self) -> tuple[dict[int, int], dict[int, float]]:
        """The number of each concept that is found anywhere, and its correlation with the concept that had
        this number before; by the largest share first where there is none."""
        shares = self.evidence.shares
        active = [k for k in shares.argsort(descending=True, stable=True).tolist() if shares[k] > 0]
        before = [figure for figure in self.subject.previous.get("concepts", ()) if figure.trace]
        matches = match_concepts(self.traces[active], [figure.trace for figure in before])
        numbers = {
            k: int(before[match[0]].key.removeprefix("concept-"))
            for k, match in zip(active, matches)
            if match is not None
        }
        similarity = {k: match[1] for k, match in zip(active, matches) if match is not None}
        free = (number for number in itertools.count() if number not in set(numbers.values()))
        taken = [next(free) for k in active if k not in numbers]
        return numbers | dict(zip([k for k in active if k not in numbers], taken)), similarity


def _users(importance: Tensor, classes: Sequence[str]) -> list[tuple[str, float]]:
    """The classes that use a concept, for or against: name and what it adds to the logit, largest first.

    Args:
        importance: [classes].
    """
    added = importance.nan_to_num(0)
    largest = added.abs().argsort(descending=True, stable=True)[:NAMED]
    return [
        (str(classes[c]), added[c].item()) for c in largest if added[c].abs() >= LEAST * added.abs().max()
    ]


def _sameness(correlation: float) -> str:
    words = "as before" if correlation >= SAME else "another than before"
    return f"{words} (r = {correlation:.2f})"


def _batches(subject: Subject, indices: Tensor, description: str) -> Iterator[tuple[Tensor, Tensor]]:
    """These images of the data set and their labels, in batches."""
    starts = range(0, len(indices), subject.batch_size)
    for start in subject.progress(starts, description, len(starts)):
        yield subject.images(indices[start : start + subject.batch_size])
