"""What units want to see, beside what they have seen: optimised pictures, and crops of the data set's best.

The functions for notebooks are here by name: `visualize`, its objectives (`channel`, `neuron`, `direction`,
    `logit`, `deepdream`, `diversity`; they add, subtract and scale), `course`, `maco`, `reached`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.activations import activations
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.examples import top_examples_of
from vitrine.analyses.objectives import (
    Objective,
    channel,
    deepdream,
    direction,
    diversity,
    logit,
    neuron,
)
from vitrine.analyses.parameterization import colour_matrix, imagenet_colours, mean_magnitude
from vitrine.analyses.receptive_field import receptive_fields
from vitrine.analyses.traits import Traits
from vitrine.analyses.transforms import Crops, Transforms
from vitrine.analyses.visualization import course, fitting, maco, reached, visualize
from vitrine.core.settings import setting

__all__ = [
    "Crops",
    "Features",
    "Objective",
    "Transforms",
    "channel",
    "colour_matrix",
    "course",
    "deepdream",
    "direction",
    "diversity",
    "imagenet_colours",
    "logit",
    "maco",
    "mean_magnitude",
    "neuron",
    "reached",
    "visualize",
]

COLOUR_IMAGES = 256  # that the colours of pictures are fitted to
SHOWN_SIDE = 96  # pixels: smaller pictures are enlarged, by a whole factor


@dataclass(frozen=True)
class Features(Analysis):
    """For each unit, the picture that excites it most beside the crops of the data set that do: baseball, or
    stripes? For each class, the picture that its logit likes best.

    Yields under "<layer>/unit-017" a row: the optimised picture, then the crops. `values`: the activation
    that the picture reaches, the data set's maximum, and their ratio. On request under
    "<layer>/unit-017/negative" what excites the unit least, under "/diverse" variants in a row. Under
    "logits/<class>" a class.
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Features",
        title="Feature visualization",
        page_order=40,
        unit_rank=1,
        unit_picture="feature",
        unit_numbers={"activation": "activation reached"},
        square_variants=("", "negative"),
        budget_priority=60,
        reducible=("units", "steps"),
    )
    steps: int = setting(64, "steps of Adam a picture", least=1)
    size: int | None = setting(
        None, "pixels on a side; the size of the data set's images unless given", least=8
    )
    lr: float = setting(0.05, "of Adam", above=0)
    parameterization: str = setting("fourier", "what is optimised", choices=("fourier", "pixels"))
    colours: str = setting("dataset", "whose colours pictures are made of", choices=("dataset", "imagenet"))
    transforms: Transforms = setting(Transforms(), "how pictures move while they are optimised")
    crops: int = setting(4, "crops of the data set's best images beside each picture", least=0)
    classes: int = setting(10, "classes that get a picture of their logit", least=0)
    variants: int = setting(0, "further pictures of a unit, pushed apart", least=0)
    diversity: float = setting(
        1.0, "how strongly they are, in parts of the activation reached without", least=0
    )
    negative: bool = setting(False, "also show what a unit is excited by least")
    course: list[int] = setting(
        [], "numbers of steps after which the picture is shown on its way, as a strip"
    )
    warm_start: bool = setting(False, "begin from the pictures of the checkpoint before")

    @property
    def needs_previous(self) -> bool:
        return self.warm_start

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        before = subject.previous.get("features", ()) if self.warm_start else ()
        studio = _Studio(self, subject, {figure.key: figure for figure in before})
        count = len(subject.classes)
        shown = min(self.classes, count)
        labels = [i * count // shown for i in range(shown)]
        groups = {layer: list(units) for layer, units in subject.units.items()}
        for layer, figures in subject.map_sharded_groups(
            {**groups, None: labels}, partial(self._figures, studio)
        ):
            yield from figures
            multiples = [figure.values["multiple"] for figure in figures if "multiple" in figure.values]
            if multiples:
                yield Scalar(f"multiple/{layer}", sum(multiples) / len(multiples), layer=layer)

    def _figures(self, studio: _Studio, layer: str | None, things: Sequence[int]) -> Iterator[Figure]:
        """Of units of a layer; without one, of classes."""
        return self._classes(studio, things) if layer is None else self._units(studio, layer, things)

    def _units(self, studio: _Studio, layer: str, units: Sequence[int]) -> Iterator[Figure]:
        subject = studio.subject
        keys = [f"{layer}/unit-{unit:03d}" for unit in units]
        asked = [channel(layer, unit) for unit in units]
        pictures, on_the_way = studio.pictures(asked, keys)
        negatives = studio.pictures([-o for o in asked])[0] if self.negative else None
        others = None
        if self.variants:
            apart = (self.diversity * reached(subject.network, asked, pictures).abs()).tolist()
            varied = [
                o + weight * diversity(layer, key)
                for o, weight, key in zip(asked, apart, keys)
                for _ in range(self.variants)
            ]
            others = studio.pictures(varied)[0].unflatten(0, (len(units), self.variants))
        peaks = studio.peaks(pictures, layer)
        lows = None if negatives is None else studio.peaks(negatives, layer)
        best = studio.best[layer]
        for i, (unit, key) in enumerate(zip(units, keys)):
            peak, top = peaks[i, unit].item(), best.values[unit, 0].item()
            values = {"activation": peak, "dataset_maximum": top}
            words = f"activation {peak:.3g}"
            if top > 0:
                values["multiple"] = peak / top
                words += f", {peak / top:.2g} times the data set's maximum"
            of = {"layer": layer, "unit": unit}
            image = studio.row([paint.picture(pictures[i])], studio.crops(layer, unit, self.crops))
            yield Figure(key, image, f"{layer}, unit {unit}: {words}", values=values, **of)
            if negatives is not None:
                image, low = studio.row([paint.picture(negatives[i])]), lows[i, unit].item()
                words = f"{layer}, unit {unit}: what excites it least, activation {low:.3g}"
                yield Figure(f"{key}/negative", image, words, values={"activation": low}, **of)
            if others is not None:
                image = studio.row([paint.picture(other) for other in others[i]])
                words = f"{layer}, unit {unit}: what else excites it, pictures pushed apart"
                yield Figure(f"{key}/diverse", image, words, **of)
            if on_the_way is not None:
                strip = studio.row([paint.picture(picture) for picture in on_the_way[:, i]])
                steps = ", ".join(map(str, studio.at))
                yield Figure(
                    f"{key}/course",
                    strip,
                    f"{layer}, unit {unit} after {steps} steps",
                    layer=layer,
                    unit=unit,
                )

    def _classes(self, studio: _Studio, labels: Sequence[int]) -> Iterator[Figure]:
        classes = studio.subject.classes
        keys = [f"logits/{classes[label]}" for label in labels]
        pictures, _ = studio.pictures([logit(label) for label in labels], keys)
        with torch.no_grad():
            logits = studio.subject.network(pictures).float()
        for i, (label, key) in enumerate(zip(labels, keys)):
            values = {"logit": logits[i, label].item(), "probability": logits[i].softmax(0)[label].item()}
            caption = (
                f"{classes[label]}: logit {values['logit']:.3g}, probability {values['probability']:.2f}"
            )
            yield Figure(key, studio.row([paint.picture(pictures[i])]), caption, label=label, values=values)


class _Studio:
    """Where the pictures of one subject are made, all with the same means."""

    def __init__(self, settings: Features, subject: Subject, before: Mapping[str, Figure]):
        self.settings, self.subject, self.before = settings, subject, before
        self.best = top_examples_of(subject)  # of all ranks: here, where all of them come by
        self.size = settings.size or subject.probes.images.shape[-1]
        self.at = sorted({*(step for step in settings.course if step < settings.steps), settings.steps})
        self.enlarged = -(-SHOWN_SIDE // self.size)  # the factor
        shape = tuple(subject.probes.images.shape[-2:])
        found = partial(receptive_fields, subject.network, subject.layers, shape)
        self.boxes = subject.cached("receptive_fields", found) if settings.crops else {}
        self.colours = None if settings.colours == "imagenet" else subject.cached("colours", self._fitted)

    def _fitted(self) -> Tensor:
        total = len(self.subject.dataset)
        wanted = min(COLOUR_IMAGES, total)
        return colour_matrix(self.subject.images([i * total // wanted for i in range(wanted)])[0])

    def pictures(self, objectives: list[Objective], keys: Sequence[str] = ()) -> tuple[Tensor, Tensor | None]:
        """The objectives' pictures [N, C, size, size], and [steps, N, C, size, size] where the course is
        wanted."""
        settings, subject = self.settings, self.subject
        options: dict[str, Any] = {
            "size": self.size,
            "seed": subject.seed,
            "lr": settings.lr,
            "parameterization": settings.parameterization,
            "colours": self.colours,
            "transforms": settings.transforms,
            "progress": subject.progress,
            "batch_size": min(subject.batch_size, fitting(self.size, subject.device)),
        }
        if keys and all(key in self.before for key in keys):
            options["warm_start"] = torch.stack([self._kept(self.before[key]) for key in keys])
        if keys and settings.course:
            on_the_way = course(subject.network, objectives, at=self.at, **options)
            return on_the_way[-1], on_the_way
        return visualize(subject.network, objectives, steps=settings.steps, **options), None

    def _kept(self, figure: Figure) -> Tensor:
        """The optimised picture in a figure of an earlier checkpoint, [C, size, size]."""
        side = self.size * self.enlarged
        picture = figure.image[: side : self.enlarged, : side : self.enlarged].permute(2, 0, 1)
        return picture[: self.subject.probes.images.shape[1]].float().div(255)

    def peaks(self, pictures: Tensor, layer: str) -> Tensor:
        """The largest activation of every unit of a layer in each picture, [N, units]."""
        with torch.no_grad():
            return activations(self.subject.network, pictures, [layer])[layer].float().amax((2, 3))

    def crops(self, layer: str, unit: int, count: int) -> list[Tensor]:
        """What the unit sees of the images that excite it most."""
        best = self.best[layer]
        indices, positions = best.indices[unit, :count], best.positions[unit, :count]
        if not len(indices):
            return []
        images, _ = self.subject.images(indices)
        boxes = self.boxes[layer][unit][positions[:, 0], positions[:, 1]]
        return [
            paint.picture(image[:, top:bottom, left:right])
            for image, (top, left, bottom, right) in zip(images, boxes.tolist())
            if bottom > top and right > left  # a border of padding sees nothing
        ]

    def row(self, pictures: list[Tensor], crops: Sequence[Tensor] = ()) -> Tensor:
        """Pictures and crops side by side at one size; the first picture starts in the corner."""
        side = self.size * self.enlarged
        return paint.row(
            [paint.resize(p, side) for p in pictures] + [paint.fit_square(c, side) for c in crops]
        )
