"""Names of units: the part, and the class, that the places where a unit is highest show (Bau 2017)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses.activations import activations
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.dissection import (
    Overlaps,
    RunningTail,
    active,
    likeness,
    mask_areas,
    monosemanticity,
    visit_maps,
)
from vitrine.analyses.head import NoLinearHead, head_of
from vitrine.analyses.traits import Summary, Traits
from vitrine.analyses.unit_name_figures import draw_alike, draw_places, figure_of_layer, figure_of_network
from vitrine.analyses.unit_name_records import Names, Sample, Survey
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import setting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnitNames(Analysis):
    """Of each unit of the layers shown what it detects, where masks or parts are known: the concept whose
    pixels, over all images, agree best with the places where the unit is in the top 0.5 % of its activations;
    and how alike the images are that excite it.

    Concepts are parts, and parts in images of one class. A unit is named whatever its IoU is; it counts as a
    detector above 0.04.

    Scalars: "detectors/<part>", how many units detect a part, in images of a class or in all;
    "detectors_in/<layer>", the share of its units that detect any; "monosemanticity/<layer>", the mean, and
    "monosemanticity/any", the likeness of any two images.
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Concepts",
        title="Names of units",
        page_order=24,
        summaries=(Summary("detectors_in"), Summary("monosemanticity")),
        unit_rank=70,
        unit_numbers={"iou": "IoU with its name", "monosemanticity": "monosemanticity"},
        budget_priority=65,
    )
    images: int = setting(256, "images of the data set that names are given by, the same each time", least=2)
    shown: int = setting(4, "images in the picture of a unit", least=1)
    side: int = setting(96, "longer side of an image in the pictures, in pixels", least=8)
    batch_size: int = setting(64, "images at once", least=1)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        chosen = permutation(len(subject.dataset), subject.seed)[: self.images].sort().values
        own = subject.shard(len(chosen))
        sample = _sample(subject, chosen, own, self.batch_size)
        survey = _survey(subject, sample, _head(subject))
        names = _name(subject, sample, survey)
        for layer, units in subject.units.items():
            compute = partial(self._figures, subject, layer, names.get(layer), survey, sample, chosen)
            yield from subject.map_sharded(list(units), compute)
            mono = survey.monosemanticity.get(layer)
            if layer in names:
                yield figure_of_layer(layer, names[layer], mono)
                share = (names[layer].detected >= 0).double().mean().item()
                yield Scalar(f"detectors_in/{layer}", share, layer)
            if mono is not None and not mono.isnan().all():
                yield Scalar(f"monosemanticity/{layer}", mono.nanmean().item(), layer)
        if survey.embeddings is not None and len(chosen) > 1:
            yield Scalar("monosemanticity/any", likeness(survey.embeddings))
        if names:
            yield figure_of_network(names)
            for part, name in enumerate(sample.parts):
                count = sum(int((of.detected == part).sum()) for of in names.values())
                yield Scalar(f"detectors/{name}", float(count))

    def _figures(
        self,
        subject: Subject,
        layer: str,
        names: Names | None,
        survey: Survey,
        sample: Sample,
        chosen: Tensor,
        units: Sequence[int],
    ) -> Iterator[Figure]:
        mono = survey.monosemanticity.get(layer)
        for unit in units:
            rows = survey.peaks[layer][unit].argsort(descending=True, stable=True)[: self.shown]
            values = {} if mono is None or mono[unit].isnan() else {"monosemanticity": mono[unit].item()}
            what = f"{layer}, unit {unit}"
            if names is not None:
                values["iou"] = names.iou[unit].max().item()
                images, on = _places(subject, layer, unit, names, chosen[rows])
                masks = _known_masks(subject, sample, chosen, rows, names.part(unit))
                picture = draw_places(images, masks, on, self.side)
                caption = f"{what}: {names.described(unit)}; dark where it is not in its top 0.5 %"
            elif survey.embeddings is not None:
                images, _ = subject.images(chosen[rows])
                picture = draw_alike(images.cpu(), survey.embeddings[rows], self.side)
                alike = f", {values['monosemanticity']:.2f} over all" if values else ""
                caption = f"{what}: how alike the images are to the network that excite it most{alike}"
            else:
                return
            yield Figure(
                f"{layer}/unit-{unit:03d}",
                picture,
                caption,
                layer=layer,
                unit=unit,
                values=values,
                indices=chosen[rows].tolist(),
            )


def _places(subject: Subject, layer: str, unit: int, names: Names, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Images, and where in them a unit is active, bool [n, H, W]."""
    images, _ = subject.images(indices)
    with torch.no_grad():
        maps = activations(subject.network, images, [layer])[layer][:, unit].float()
    on = active(maps, names.thresholds[unit].to(maps).expand(len(maps)), images.shape[-2:])
    return images.cpu(), on.cpu()


def _known_masks(subject: Subject, sample: Sample, chosen: Tensor, rows: Tensor, part: int) -> Tensor:
    """The masks of a part in some of the images chosen, bool [n, H, W]: drawn anew of another rank's."""
    own = rows - sample.start
    if bool(((own >= 0) & (own < len(sample.indices))).all()):
        return sample.masks[own, part]
    return _masks(subject, chosen[rows])[sample.parts[part]]


def _masks(subject: Subject, indices: Tensor) -> Mapping[str, Tensor]:
    dataset = subject.dataset
    masks = (dataset.part_masks(indices) or dataset.masks(indices)) if len(indices) else {}
    return {name: mask.bool().cpu() for name, mask in masks.items()}


def _sample(subject: Subject, chosen: Tensor, own: range, batch_size: int) -> Sample:
    """The images of this rank; parts that no rank has an image of are left out."""
    indices = chosen[own.start : own.stop]
    masks = _masks(subject, indices)
    there = subject.all_gather({name: bool(mask.any()) for name, mask in masks.items()})
    names = dict.fromkeys(name for of_rank in there for name in of_rank)
    parts = [name for name in names if any(of_rank.get(name) for of_rank in there)]
    empty = torch.zeros(len(indices), *subject.probes.images.shape[-2:], dtype=torch.bool)
    stacked = torch.stack([masks.get(name, empty) for name in parts], 1) if parts else None
    labels = subject.dataset.labels[indices]
    return Sample(indices, labels, stacked, parts, own.start, len(chosen), batch_size)


def _head(subject: Subject) -> str | None:
    try:
        return head_of(subject).name
    except NoLinearHead as error:
        log.info("monosemanticity is left out: %s", error)
        return None


def _survey(subject: Subject, sample: Sample, head: str | None) -> Survey:
    """One pass over the images: what each unit's top 0.5 % lies above, its largest activation in each image,
    and what the head reads."""
    tails = {layer: RunningTail(sample.total) for layer in subject.layers}
    peaks: dict[str, list[Tensor]] = {layer: [] for layer in subject.layers}
    read = []

    def visit(layer: str, maps: Tensor) -> None:
        peaks[layer].append(maps.amax((2, 3)).cpu())
        if sample.parts:
            tails[layer].update(maps)

    for rows in sample.batches(subject.progress, "names of units"):
        images, _ = subject.images(sample.indices[rows])
        vectors = visit_maps(subject.network, images, subject.layers, visit, head)
        read += [] if vectors is None else [vectors.cpu()]
    everything = subject.all_gather(({layer: torch.cat(of) for layer, of in peaks.items() if of}, read))
    found = {layer: torch.cat([of[layer] for of, _ in everything if of]).T for layer in subject.layers}
    embeddings = torch.cat([vectors for _, of in everything for vectors in of]) if head else None
    thresholds, mono = {}, {}
    if sample.parts:
        thresholds = {layer: tail.thresholds(subject.all_gather) for layer, tail in tails.items()}
    if embeddings is not None:
        mono = {layer: monosemanticity(of, embeddings) for layer, of in found.items()}
    return Survey(found, thresholds, embeddings, mono)


def _name(subject: Subject, sample: Sample, survey: Survey) -> dict[str, Names]:
    """A second pass, in which the places where units are active are held against the masks."""
    if not sample.parts:
        return {}
    shape, count = (len(sample.parts), len(subject.classes)), len(subject.classes)
    overlaps = {layer: Overlaps.none(len(of), *shape) for layer, of in survey.thresholds.items()}
    for rows in sample.batches(subject.progress, "names of units"):
        images, _ = subject.images(sample.indices[rows])
        masks, labels = sample.masks[rows].to(subject.device), sample.labels[rows]

        def visit(layer: str, maps: Tensor) -> None:
            overlaps[layer].add(maps, survey.thresholds[layer].to(maps), masks, labels)  # noqa: B023 (at once)

        visit_maps(subject.network, images, subject.layers, visit)
    areas = sum(subject.all_gather(mask_areas(sample.masks, sample.labels, count)))
    names = {}
    for layer, own in overlaps.items():
        parts = subject.all_gather((own.units, own.shared))
        total = Overlaps(sum(units for units, _ in parts), sum(shared for _, shared in parts))
        names[layer] = Names(total.iou(areas), survey.thresholds[layer], sample.parts, subject.classes)
    return names
