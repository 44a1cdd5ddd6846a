"""Top dataset examples of units beside guided backprop and deconvnet (Zeiler & Fergus 2014)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitrine.analyses import paint
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.examples import dataset_examples
from vitrine.analyses.gradients import NoGradient
from vitrine.analyses.pass_size import images_at_once
from vitrine.analyses.receptive_field import equal_windows, hull, receptive_fields
from vitrine.analyses.relu_rules import NoRule
from vitrine.analyses.rule_gradients import rule_gradients
from vitrine.analyses.saliency import input_gradient
from vitrine.analyses.target_scores import UnitTarget
from vitrine.analyses.token_places import token_places
from vitrine.analyses.traits import Traits
from vitrine.core.settings import setting

log = logging.getLogger(__name__)

BATCH_SIZE = 64  # images of a pass, at most
RULES = {"guided_backprop": "logit", "deconvnet": "logit"}


@dataclass(frozen=True)
class UnitSaliency(Analysis):
    """For each unit shown, its top dataset examples' crops; below them guided backprop and deconvnet."""

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Features",
        title="What excites the unit, in its examples",
        page_order=50,
        unit_rank=3,
        budget_priority=90,
        reducible=("units",),
    )
    examples: int = setting(6, "dataset examples of each unit", least=1)
    side: int = setting(128, "approximate side of a crop's picture, in pixels", least=8)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        channels, height, width = subject.probes.images.shape[1:]
        top = dataset_examples(subject, max(9, self.examples))  # at least nine: shared with `examples`
        boxes = receptive_fields(subject.network, subject.layers, (height, width), channels=channels)
        places = token_places(subject.network, boxes, subject.probes.images[:1])
        for layer, own in subject.units.items():
            units = torch.tensor(list(own))
            finite = top[layer].values.cpu()[units].isfinite()
            if not finite.any(1).all():
                unshown = units[~finite.any(1)].tolist()
                log.warning("unit_saliency: no finite activations of units %s of layer %s", unshown, layer)
            units, finite = units[finite.any(1)], finite[finite.any(1)]
            if not len(units):
                continue
            # infinities, NaNs and small data sets give fewer
            count = min(self.examples, int(finite.sum(1).min()))
            columns = finite.int().argsort(dim=1, descending=True, stable=True)[:, :count]
            found = (top[layer].values, top[layer].indices, top[layer].positions)
            values, indices, positions = (t.cpu()[units[:, None], columns] for t in found)
            rows, columns = positions.unbind(-1)
            fields = hull(boxes[layer])[rows, columns]
            windows = equal_windows(fields.flatten(0, 1), height, width).view_as(fields)
            tokens = places[layer][rows, columns] if layer in places else None
            examples = _Examples(layer, units, values, indices, positions, windows, tokens)
            yield from subject.map_sharded(range(len(units)), partial(self._figures, subject, examples))

    def _figures(self, subject: Subject, examples: _Examples, rows: Sequence[int]) -> Iterator[Figure]:
        titles, tiles = self._tiles(subject, examples, list(rows))
        shown = "cropped to what it sees" if examples.tokens is None else "the token that fires framed"
        count = examples.indices.shape[1]
        for i, row in enumerate(rows):
            unit, values = int(examples.units[row]), examples.values[row]
            unit_tiles = tiles[i * count : (i + 1) * count]  # of each example: the crop and its maps
            yield Figure(
                key=f"{examples.layer}/unit-{unit:03d}",
                image=paint.grid([tile for row in zip(*unit_tiles) for tile in row], count),
                caption=f"{examples.layer}, unit {unit}: its top {count} dataset examples (activation "
                f"{values[0]:.3g} to {values[-1]:.3g}), {shown}; {titles}.",
                layer=examples.layer,
                unit=unit,
                values={"activation": values[0].item()},
            )

    def _tiles(
        self, subject: Subject, examples: _Examples, rows: list[int]
    ) -> tuple[str, list[list[Tensor]]]:
        """The names of the maps, and for each unit and example its crop and the maps' crops."""
        windows = examples.windows[rows].flatten(0, 1)
        field = int((windows[0, 2:] - windows[0, :2]).max())
        side = self.side if field > self.side else field * round(self.side / field)
        units = examples.units[rows].to(subject.device)[:, None].expand(len(rows), examples.indices.shape[1])
        units, indices = units.flatten(), examples.indices[rows].flatten()
        tokens = None if examples.tokens is None else examples.tokens[rows].flatten(0, 1)
        positions = examples.positions[rows].flatten(0, 1).to(subject.device)
        tiles = []
        most = min(BATCH_SIZE, subject.batch_size)
        size = images_at_once(*subject.probes.images.shape[-2:], subject.device, most)
        for start in range(0, len(indices), size):
            batch = slice(start, start + size)
            images, _ = subject.images(indices[batch])
            target = {"layer": examples.layer, "unit": units[batch], "position": positions[batch]}
            try:
                titles, maps = _unit_maps(subject.network, images, target)
            except NoGradient as error:
                titles, maps = f"without a map: {error}", []
            for image, window, *signals in zip(
                images.cpu(), windows[batch].tolist(), *(m.cpu() for m in maps)
            ):
                top, left, bottom, right = window
                crops = [signal[:, top:bottom, left:right] for signal in signals]
                pictures = [paint.signed_picture(crop, paint.percentile_scale(crop)) for crop in crops]
                pictures.insert(0, paint.picture(image[:, top:bottom, left:right]))
                if tokens is not None:
                    pictures[0] = _frame(
                        paint.resize(pictures[0], side), tokens[len(tiles)], image.shape[-2:]
                    )
                tiles.append([paint.fit_square(p, side) for p in pictures])
        return titles, tiles


def _unit_maps(network: nn.Module, images: Tensor, target: UnitTarget) -> tuple[str, list[Tensor]]:
    """The maps of units in images, each [N, C, H, W], and what they are; NoGradient where there are none."""
    try:
        maps = list(rule_gradients(network, images, RULES, **target).values())
    except NoRule as error:
        log.info("unit_saliency shows the input gradient: %s", error)
        return "below, the input gradient of the unit", [input_gradient(network, images, **target)]
    return "below, guided backprop and deconvnet of the unit", maps


@dataclass(frozen=True)
class _Examples:
    """The examples [U, E] of the units [U] of a layer, and their windows [U, E, 4] of one size; where windows
    are the whole images, the places of the tokens [U, E, 4]."""

    layer: str
    units: Tensor
    values: Tensor
    indices: Tensor
    positions: Tensor
    windows: Tensor
    tokens: Tensor | None


def _frame(picture: Tensor, place: Tensor, size: Sequence[int]) -> Tensor:
    """A picture of an image of that size with a frame around a place in it."""
    scale = max(picture.shape[:2]) / max(size)
    return paint.draw_box(picture, [round(edge * scale) for edge in place.tolist()])
