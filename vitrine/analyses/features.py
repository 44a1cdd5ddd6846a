"""Feature visualization of units and classes, beside the crops of the data set that excite a unit most.

For notebooks: `visualize`, its objectives (`channel`, `neuron`, `direction`, `logit`, `deepdream`,
`diversity`; they add, subtract and scale), `visualize_at_steps`, `maco`, `objective_values`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.gradients import NoGradient
from vitrine.analyses.objectives import Objective, channel, deepdream, direction, diversity, logit, neuron
from vitrine.analyses.parameterization import colour_matrix, imagenet_colours, mean_magnitude
from vitrine.analyses.traits import Traits
from vitrine.analyses.transforms import Crops, Transforms
from vitrine.analyses.visualization import (
    has_no_gradient,
    maco,
    objective_values,
    visualize,
    visualize_at_steps,
)
from vitrine.analyses.visualizer import Visualizer
from vitrine.core.settings import SettingError, setting

__all__ = [
    "Crops",
    "Features",
    "Objective",
    "Transforms",
    "channel",
    "colour_matrix",
    "deepdream",
    "direction",
    "diversity",
    "imagenet_colours",
    "logit",
    "maco",
    "mean_magnitude",
    "neuron",
    "objective_values",
    "visualize",
    "visualize_at_steps",
]

log = logging.getLogger(__name__)

DEAD = "; dead: the gradient is zero, and no picture was found"


@dataclass(frozen=True)
class Features(Analysis):
    """For each unit the picture that excites it most, beside the crops of the data set that do; for each
    class the picture that maximises its logit.

    Yields "<layer>/unit-017", a row of the optimised picture and the crops, with `values` of the activation
    of the picture, the data set's maximum, and their ratio; on request "<layer>/unit-017/negative", the
    picture that excites the unit least, and "/diverse", variants in a row; "logits/<class>" for a class.
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
    steps: int = setting(32, "steps of Adam a picture; twice as many with attention", least=1)
    size: int | None = setting(None, "pixels on a side; as the data set's images unless given", least=8)
    lr: float | None = setting(
        None, "of Adam; 6.4 / steps, within 0.05 and 0.4, unless given; 0.1 with attention", above=0
    )
    parameterization: str | None = setting(
        None,
        "what is optimised; fourier, of networks with attention smooth, unless given",
        choices=("fourier", "smooth", "pixels"),
    )
    colour_shift: float | None = setting(
        None, "random shift of colours in the first steps; 0, of networks with attention 0.5", least=0
    )
    colours: str = setting("dataset", "whose colour directions are used", choices=("dataset", "imagenet"))
    transforms: Transforms = setting(Transforms(), "random transformations while a picture is optimised")
    crops: int = setting(4, "crops of the data set's best images beside each picture", least=0)
    classes: int = setting(10, "number of classes whose logit is visualized", least=0)
    variants: int = setting(0, "further pictures of a unit, made different by a diversity term", least=0)
    diversity: float = setting(1.0, "weight of the diversity term, of the activation without it", least=0)
    negative: bool = setting(False, "also show the picture that excites a unit least")
    course: list[int] = setting([], "numbers of steps after which a strip of intermediate pictures is shown")
    precision: str | None = setting(
        None,
        "of the network while a picture is optimised; bfloat16 on a GPU, float32 on a CPU, unless given",
        choices=("float32", "bfloat16"),
    )
    warm_start: bool = setting(
        False, "start from the pictures of the previous checkpoint; of images of 1 or 3 channels"
    )

    @property
    def needs_previous(self) -> bool:
        return self.warm_start

    def check(self, network: nn.Module, images: Tensor) -> None:
        if self.warm_start and (channels := images.shape[1]) not in (1, 3):
            raise SettingError(
                "warm_start",
                "starts from the pictures of the previous checkpoint, which show 1 or 3 channels, and the "
                f"images have {channels} channels: set it to false",
            )

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        previous = subject.previous.get("features", ()) if self.warm_start else ()
        visualizer = Visualizer(self, subject, {figure.key: figure for figure in previous})
        count = len(subject.classes)
        label_count = min(self.classes, count)
        labels = [i * count // label_count for i in range(label_count)]
        groups = {layer: list(units) for layer, units in subject.units.items()}
        for layer, figures in subject.map_sharded_groups(
            {**groups, None: labels}, partial(self._figures, visualizer)
        ):
            yield from figures
            multiples = [figure.values["multiple"] for figure in figures if "multiple" in figure.values]
            if multiples:
                yield Scalar(f"multiple/{layer}", sum(multiples) / len(multiples), layer=layer)

    def _figures(self, visualizer: Visualizer, layer: str | None, indices: Sequence[int]) -> list[Figure]:
        """The figures of units of a layer; of classes where the layer is None. None without a gradient."""
        try:
            if layer is None:
                return list(self._classes(visualizer, indices))
            return list(self._units(visualizer, layer, indices))
        except NoGradient as error:
            level = visualizer.subject.log_level("features")
            log.log(level, "features leave out %s: %s", layer or "the logits", error)
            return []

    def _units(self, visualizer: Visualizer, layer: str, units: Sequence[int]) -> Iterator[Figure]:
        subject = visualizer.subject
        keys = [f"{layer}/unit-{unit:03d}" for unit in units]
        objectives = [channel(layer, unit) for unit in units]
        pictures, intermediate = visualizer.pictures(objectives, keys)
        dead = has_no_gradient(subject.network, objectives, pictures).tolist()
        negatives = None
        if self.negative:
            opposite = [-o for o in objectives]
            negatives, _ = visualizer.pictures(opposite)
            constant = (negatives == visualizer.pictures(opposite, steps=0)[0]).flatten(1).all(1).tolist()
        variant_pictures = None
        if self.variants:
            reached = objective_values(subject.network, objectives, pictures).abs()
            weights = (self.diversity * reached).tolist()
            variants = [
                o + weight * diversity(layer, key)
                for o, weight, key in zip(objectives, weights, keys)
                for _ in range(self.variants)
            ]
            variant_pictures = visualizer.pictures(variants)[0].unflatten(0, (len(units), self.variants))
        peaks = visualizer.peaks(pictures, layer)
        lows = None if negatives is None else visualizer.peaks(negatives, layer)
        best = visualizer.best[layer]
        for i, (unit, key) in enumerate(zip(units, keys)):
            peak, top = peaks[i, unit].item(), best.values[unit, 0].item()
            values = {"activation": peak, "dataset_maximum": top}
            caption = f"activation {peak:.3g}"
            if top > 0:
                values["multiple"] = peak / top
                caption += f", {peak / top:.2g} times the data set's maximum"
            if dead[i]:
                values["dead"] = 1.0
                caption += DEAD
            figure_of = {"layer": layer, "unit": unit}
            picture = visualizer.picture(pictures[i], dead[i])
            image = visualizer.row([picture], visualizer.crops(layer, unit, self.crops))
            yield Figure(key, image, f"{layer}, unit {unit}: {caption}", values=values, **figure_of)
            if negatives is not None:
                image = visualizer.row([visualizer.picture(negatives[i], constant[i])])
                low = {"activation": lows[i, unit].item()} | ({"dead": 1.0} if constant[i] else {})
                caption = f"{layer}, unit {unit}: what excites it least, activation {low['activation']:.3g}"
                caption += DEAD if constant[i] else ""
                yield Figure(f"{key}/negative", image, caption, values=low, **figure_of)
            if variant_pictures is not None:
                image = visualizer.row([visualizer.picture(p, dead[i]) for p in variant_pictures[i]])
                caption = f"{layer}, unit {unit}: what else excites it, pictures pushed apart"
                yield Figure(f"{key}/diverse", image, caption, **figure_of)
            if intermediate is not None:
                strip = visualizer.row([visualizer.picture(p, dead[i]) for p in intermediate[:, i]])
                steps = ", ".join(map(str, visualizer.at_steps))
                yield Figure(f"{key}/course", strip, f"{layer}, unit {unit} after {steps} steps", **figure_of)

    def _classes(self, visualizer: Visualizer, labels: Sequence[int]) -> Iterator[Figure]:
        classes = visualizer.subject.classes
        keys = [f"logits/{classes[label]}" for label in labels]
        objectives = [logit(label) for label in labels]
        pictures, _ = visualizer.pictures(objectives, keys)
        dead = has_no_gradient(visualizer.subject.network, objectives, pictures).tolist()
        with torch.no_grad():
            logits = visualizer.subject.network(pictures).float()
        for i, (label, key) in enumerate(zip(labels, keys)):
            reached, probability = logits[i, label].item(), logits[i].softmax(0)[label].item()
            values = {"logit": reached, "probability": probability}
            caption = f"{classes[label]}: logit {reached:.3g}, probability {probability:.2f}"
            if dead[i]:
                values["dead"] = 1.0
                caption += DEAD
            image = visualizer.row([visualizer.picture(pictures[i], dead[i])])
            yield Figure(key, image, caption, label=label, values=values)
