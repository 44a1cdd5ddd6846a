"""The pictures of a subject's feature visualization, and the crops of the data set that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.activations import activations
from vitrine.analyses.ascent_defaults import ascent_settings, attends
from vitrine.analyses.base import Figure, Subject
from vitrine.analyses.examples import dataset_examples
from vitrine.analyses.objectives import Objective
from vitrine.analyses.parameterization import colour_matrix
from vitrine.analyses.picture_optimization import default_batch_size
from vitrine.analyses.picture_size import sides
from vitrine.analyses.receptive_field import receptive_fields
from vitrine.analyses.token_places import context, token_places
from vitrine.analyses.visualization import visualize, visualize_at_steps

if TYPE_CHECKING:
    from vitrine.analyses.features import Features

COLOUR_IMAGES = 256  # images from which the colour directions are computed
MIN_SIDE = 96  # pixels: smaller pictures are enlarged by a whole factor


class Visualizer:
    """Makes the pictures of one subject, all with the same settings, colours and examples."""

    def __init__(self, settings: Features, subject: Subject, previous: Mapping[str, Figure]):
        self.settings, self.subject, self.previous = settings, subject, previous
        self.best = dataset_examples(subject)  # here, because all ranks have to take part
        shape = tuple(subject.probes.images.shape[-2:])
        self.size = sides(settings.size or shape)
        self.scale = paint.magnification(self.size, MIN_SIDE)
        self.side = self.scale * max(self.size)  # of the square that a picture stands in
        has_attention = subject.cached("attends", partial(attends, subject.network, subject.probes.images))
        self.steps, self.ascent = ascent_settings(vars(settings), settings.steps, has_attention)
        self.at_steps = sorted({*(step for step in settings.course if step < self.steps), self.steps})
        channels = subject.probes.images.shape[1]
        trace = partial(receptive_fields, subject.network, subject.layers, shape, channels=channels)
        self.boxes = subject.cached("receptive_fields", trace) if settings.crops else {}
        places = token_places(subject.network, self.boxes, subject.probes.images[:1])
        for layer, tokens in places.items():
            self.boxes = {**self.boxes, layer: context(tokens, shape).expand_as(self.boxes[layer])}
        of_dataset = settings.colours == "dataset"
        self.colours = subject.cached("colours", self._fit_colours) if of_dataset else None

    def _fit_colours(self) -> Tensor:
        count = min(COLOUR_IMAGES, total := len(self.subject.dataset))
        return colour_matrix(self.subject.images([i * total // count for i in range(count)])[0])

    def pictures(
        self, objectives: list[Objective], keys: Sequence[str] = (), steps: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The objectives' pictures [N, C, height, width], and [steps, N, C, height, width] where the settings
        name intermediate steps."""
        settings, subject = self.settings, self.subject
        options: dict[str, Any] = {
            "size": self.size,
            "seed": subject.seed,
            **self.ascent,
            "precision": settings.precision,
            "colours": self.colours,
            "transforms": settings.transforms,
            "progress": subject.progress,
            "batch_size": min(subject.batch_size, default_batch_size(self.size, subject.device)),
        }
        if keys and all(key in self.previous for key in keys):
            options["warm_start"] = torch.stack([self._previous_picture(self.previous[key]) for key in keys])
        if keys and settings.course:
            intermediate = visualize_at_steps(subject.network, objectives, at_steps=self.at_steps, **options)
            return intermediate[-1], intermediate
        steps = self.steps if steps is None else steps
        return visualize(subject.network, objectives, steps=steps, **options), None

    def _previous_picture(self, figure: Figure) -> Tensor:
        """The optimised picture of a figure of the previous checkpoint, [C, height, width]."""
        spans = [n * self.scale for n in self.size]
        rows, columns = (slice((self.side - n) // 2, (self.side + n) // 2, self.scale) for n in spans)
        picture = figure.image[rows, columns].permute(2, 0, 1)
        return picture[: self.subject.probes.images.shape[1]].float().div(255)

    def picture(self, picture: Tensor, is_noise: bool) -> Tensor:
        """An optimised picture, uint8 [height, width, 3]; grey instead of noise."""
        return paint.picture(torch.full_like(picture, 0.5) if is_noise else picture)

    def peaks(self, pictures: Tensor, layer: str) -> Tensor:
        """The largest activation of every unit of a layer in each picture, [N, units]."""
        with torch.no_grad():
            return activations(self.subject.network, pictures, [layer])[layer].float().amax((2, 3))

    def crops(self, layer: str, unit: int, count: int) -> list[Tensor]:
        """The unit's receptive fields, or what is around its token, in the images that excite it most."""
        best = self.best[layer]
        indices, positions = best.indices[unit, :count], best.positions[unit, :count]
        if not len(indices):
            return []
        images, _ = self.subject.images(indices)
        boxes = self.boxes[layer][unit][positions[:, 0], positions[:, 1]]
        return [
            paint.picture(image[:, top:bottom, left:right])
            for image, (top, left, bottom, right) in zip(images, boxes.tolist())
            if bottom > top and right > left  # not a position that depends on padding only
        ]

    def row(self, pictures: list[Tensor], crops: Sequence[Tensor] = ()) -> Tensor:
        """Pictures and crops side by side in squares of one size; the first stands in the corner."""
        return paint.row([paint.fit_square(picture, self.side) for picture in (*pictures, *crops)])
