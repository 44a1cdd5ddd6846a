"""Right for the wrong reason (Clever Hans; Lapuschkin 2019): classes recognised by something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses.attribution import (
    TECHNIQUES,
    Effort,
    attributions,
    cam_layer,
    importance,
    planted_stickers,
)
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject, Table, alarm, as_float
from vitrine.analyses.pointing import energy_inside
from vitrine.analyses.shortcut_figures import draw_classes, draw_scenes, draw_telling
from vitrine.analyses.shortcut_tests import (
    LEAST_KAPPA,
    Effects,
    Evidence,
    agreement,
    class_samples,
    looks_outside,
)
from vitrine.analyses.shortcut_texts import measured_in_words, text_of_effects, text_of_maps
from vitrine.analyses.traits import Summary, Traits
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import setting

Masks = dict[str, Tensor]  # bool [N, H, W] by name, the object's first


@dataclass(frozen=True)
class Shortcut(Analysis):
    """Whether the network recognises classes by something other than the object, where masks say where that
    is: found by leaving the one and the other out where scenes can be drawn so, else by attribution.

    Of scenes the alarm goes off where leaving the shortcut out lowers the logits more than leaving the object
    out does; of images where by most maps less of the attribution lies on the object than of a random map,
    over all that are recognised or those of a class. Both by one-sided t-tests at 5 %, which these tests
    share, and not before the network agrees with the labels better than slightly (Cohen's kappa 0.2).

    Scalars: "outside/<map>", the share of the attribution that does not lie on the object, and
    "outside/chance", of a random map; "classes_outside", how many classes look outside; "effect/<what>" and
    "flips/<what>" of what can be left out and replaced; "alarm/shortcut".
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Truth",
        title="Right for the wrong reason",
        page_order=88,
        summaries=(Summary("alarm/shortcut", parts=2), Summary("outside")),
        budget_priority=75,
    )
    maps: list[str] = setting(
        ["gradient", "integrated_gradients", "grad_cam", "chefer"], f"maps, of {', '.join(TECHNIQUES)}"
    )
    per_class: int = setting(8, "images of each class, the same at every checkpoint", least=4)
    classes: int = setting(12, "classes examined, evenly spaced among all", least=1)
    threshold: float | None = setting(
        None, "share of a map that is to lie on the object; null: as much as of a random map", above=0, most=1
    )
    shown: int = setting(6, "images in each picture; 0: none", least=0)
    steps: int = setting(4, "integrated gradients: points of the path", least=1)

    def __post_init__(self) -> None:
        for name in self.maps:
            TECHNIQUES.check(name)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        subject = planted_stickers(subject) or subject
        labels, classes = subject.dataset.labels, len(subject.classes)
        indices = class_samples(labels, classes, self.per_class, self.classes, subject.seed)
        masks = _regions(subject.dataset, indices)
        if not masks:
            return
        thing, *shortcuts = masks
        rows = torch.nonzero(masks[thing].flatten(1).any(1)).flatten()
        indices, masks = indices[rows], {name: mask[rows] for name, mask in masks.items()}
        evidence, text = self._evidence(subject, indices, masks), ""
        if evidence.shares:
            outside = looks_outside(evidence, thing, self.threshold)
            yield from self._attribution(subject, indices, masks, evidence, outside.classes)
            yield Scalar("classes_outside", float(len(outside.classes)))
            limit = "by chance" if self.threshold is None else f"{self.threshold:.0%}"
            text = text_of_maps(outside, evidence, thing, limit, subject.classes)
        if shortcuts and subject.dataset.parts:
            effects = _effects(subject, indices, thing, evidence)
            for what in effects.drops:
                yield Scalar(f"effect/{what}", effects.drops[what].mean().item())
                yield Scalar(f"flips/{what}", effects.flips[what].float().mean().item())
            text = text_of_effects(effects, evidence, thing)
            if self.shown:
                yield self._scenes(subject, indices, evidence, effects, thing)
        elif not evidence.shares:
            return  # nothing was looked at, and an alarm of 0 would say that something was
        learned = agreement(evidence.predicted, evidence.labels) > LEAST_KAPPA
        yield alarm("shortcut", text if learned else "")

    def _maps(self, subject: Subject, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        effort = Effort(steps=self.steps, seed=subject.seed, batch_size=subject.batch_size)
        found = attributions(subject.network, self.maps, images, targets, cam_layer(subject), effort)
        return {name: importance(name, values) for name, values in found.items()}

    def _evidence(self, subject: Subject, indices: Tensor, masks: Masks) -> Evidence:
        def compute(rows: Sequence[int]) -> list[tuple[int, float, dict[tuple[str, str], float]]]:
            images, _ = subject.images(indices[list(rows)])
            logits = _logits(subject, images)
            targets = logits.argmax(1)
            own = logits.gather(1, targets[:, None])[:, 0].tolist()
            shares = {
                (name, mask): energy_inside(values, regions[list(rows)].to(values.device)).tolist()
                for name, values in self._maps(subject, images, targets.to(images.device)).items()
                for mask, regions in masks.items()
            }
            return [
                (int(targets[i]), own[i], {key: of[i] for key, of in shares.items()})
                for i in range(len(rows))
            ]

        predicted, logits, found = zip(*subject.map_sharded(range(len(indices)), compute))
        names = dict.fromkeys(name for name, _ in found[0])
        return Evidence(
            labels=subject.dataset.labels[indices],
            predicted=torch.tensor(predicted),
            logits=torch.tensor(logits),
            areas={mask: regions.float().mean((1, 2)) for mask, regions in masks.items()},
            shares={
                name: {mask: torch.tensor([shares[name, mask] for shares in found]) for mask in masks}
                for name in names
            },
        )

    def _attribution(
        self, subject: Subject, indices: Tensor, masks: Masks, evidence: Evidence, outside: Sequence[int]
    ) -> Iterator[Figure | Scalar]:
        thing = next(iter(masks))
        yield Scalar("outside/chance", 1 - evidence.areas[thing].mean().item())
        for name, shares in evidence.shares.items():
            yield Scalar(f"outside/{name}", 1 - shares[thing].mean().item())
        of_maps = [f"{shares[thing].mean():.0%} of {name}" for name, shares in evidence.shares.items()]
        limit = "chance" if self.threshold is None else f"{self.threshold:.0%}"
        yield Figure(
            "classes",
            draw_classes(evidence, thing, self.threshold, subject.classes),
            f"of recognised images, how much of each map lies on the {thing}, as a multiple of {limit}, with "
            f"95 % intervals; of all images {', '.join(of_maps)}, on {evidence.areas[thing].mean():.0%} of "
            "the pixels",
            table=_table(evidence, thing, outside, subject.classes),
        )
        ratio = torch.stack([shares[thing] for shares in evidence.shares.values()]).mean(0)
        ratio = ratio / evidence.limits(thing, self.threshold)
        rows = ratio.where(evidence.recognised, torch.inf).argsort(stable=True)[: self.shown]
        rows = rows[evidence.recognised[rows]]
        if not len(rows):
            return
        images, labels = subject.images(indices[rows])
        maps = self._maps(subject, images, evidence.predicted[rows].to(images.device))
        shares = {name: evidence.shares[name][thing][rows] for name in maps}
        yield Figure(
            "outside",
            draw_telling(images, maps, masks[thing][rows], shares, [subject.classes[k] for k in labels]),
            f"recognised images of whose maps least lies on the {thing} (outlined), for its size",
            indices=indices[rows].tolist(),
        )

    def _scenes(
        self, subject: Subject, indices: Tensor, evidence: Evidence, effects: Effects, thing: str
    ) -> Figure:
        shortcut = effects.shortcut
        difference = effects.drops[shortcut] - effects.drops[thing]
        order = difference.argsort(descending=True, stable=True).tolist()
        first = {int(evidence.labels[row]): row for row in reversed(order)}  # of each class
        best = sorted(order, key=lambda row: row not in first.values())
        rows = torch.tensor(best[: self.shown])
        indices = indices[rows]
        images, _ = subject.images(indices)
        columns = {"as it is": images}
        for what in (shortcut, thing):
            columns[f"without {what}"] = _changed(subject, indices, what, thing, other=False)
            columns[f"another {what}"] = _changed(subject, indices, what, thing, other=True)
        probabilities = {title: _logits(subject, of).softmax(1) for title, of in columns.items()}
        return Figure(
            "scenes",
            draw_scenes(columns, probabilities, evidence.predicted[rows], subject.classes),
            f"scenes in which the {shortcut} counts most beside the {thing}: what is predicted of them, "
            "without the one and the other, and with those of another class; red: not what it was. Of "
            f"{len(effects.drops[thing])} scenes: {measured_in_words(effects, thing)}",
            indices=indices.tolist(),
        )


def _regions(dataset: ImageDataset, indices: Tensor) -> Masks:
    """Where the object is, the union of all masks of no shortcut, then where the shortcuts are; empty where
    that is unknown."""
    masks = {name: mask.bool().cpu() for name, mask in dataset.masks(indices).items()} if len(indices) else {}
    things = {name: mask for name, mask in masks.items() if name not in dataset.shortcuts and mask.any()}
    if not things:
        return {}
    shortcuts = {name: mask for name, mask in masks.items() if name in dataset.shortcuts and mask.any()}
    return {" and ".join(things): torch.stack(list(things.values())).any(0), **shortcuts}


def _logits(subject: Subject, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([subject.network(part).cpu() for part in images.split(subject.batch_size)])


def _changed(subject: Subject, indices: Tensor, what: str, thing: str, other: bool) -> Tensor:
    """The scenes without the object or a shortcut, or with those of another class."""
    dataset = subject.dataset
    chosen = [
        name == what or (what == thing and name in dataset.class_parts and name not in dataset.shortcuts)
        for name in dataset.parts
    ]
    parts = torch.tensor(chosen).expand(len(indices), -1)
    draw = dataset.with_other_parts if other else dataset.without_parts
    return as_float(draw(indices, parts).to(subject.device))


def _effects(subject: Subject, indices: Tensor, thing: str, evidence: Evidence) -> Effects:
    """What leaving out and replacing the object and the first shortcut does to the predicted class."""
    names = (next(iter(subject.dataset.shortcuts)), thing)

    def compute(rows: Sequence[int]) -> list[list[float]]:
        own, targets = indices[list(rows)], evidence.predicted[list(rows), None]
        before = evidence.logits[list(rows)]
        columns = []
        for what in names:
            without = _logits(subject, _changed(subject, own, what, thing, other=False))
            replaced = _logits(subject, _changed(subject, own, what, thing, other=True))
            columns += [before - without.gather(1, targets)[:, 0], replaced.argmax(1) != targets[:, 0]]
        return torch.stack(columns, 1).double().tolist()

    found = torch.tensor(subject.map_sharded(range(len(indices)), compute)).T
    drops, flips = found[0::2], found[1::2].bool()
    return Effects(dict(zip(names, drops)), dict(zip(names, flips)))


def _table(evidence: Evidence, thing: str, outside: Sequence[int], classes: Sequence[str]) -> Table:
    columns: dict[str, list[str | float]] = {"class": [], "images": [], "recognised": [], f"% {thing}": []}
    columns |= {f"% of {name} on it": [] for name in evidence.shares} | {"looks": []}
    for label in evidence.labels.unique().tolist():
        rows = evidence.labels == label
        numbers = [
            int(rows.sum()),
            int((rows & evidence.recognised).sum()),
            evidence.areas[thing][rows].mean(),
        ]
        row = [classes[label], *map(float, numbers)]
        row[3] *= 100
        row += [100 * shares[thing][rows].mean().item() for shares in evidence.shares.values()]
        for column, value in zip(columns.values(), [*row, "outside" if label in outside else ""]):
            column.append(value)
    return Table(columns)
