"""The page everybody knows: what excites a unit, and beside each crop what in it does."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.examples import dataset_examples
from vitrine.analyses.receptive_field import receptive_field
from vitrine.analyses.relu_rules import NoRule
from vitrine.analyses.saliency import deconvnet, guided_backprop, input_gradient
from vitrine.analyses.traits import Traits
from vitrine.core.settings import setting

log = logging.getLogger(__name__)

PASS = 64  # images a pass


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
    side: int = setting(128, "about how many pixels a side a crop is shown with", least=8)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        top = dataset_examples(subject, max(9, self.examples))  # nine are what others ask for: found once
        for layer, units in subject.units.items():
            chosen = torch.tensor(list(units))
            found = (top[layer].values, top[layer].indices, top[layer].positions)
            values, indices, positions = (t.cpu()[chosen, : self.examples] for t in found)
            there = int(values.isfinite().all(0).sum())  # NaNs, and small data sets, give fewer
            values, indices, positions = values[:, :there], indices[:, :there], positions[:, :there]
            if not there:
                log.warning("unit_saliency: no finite activations in layer %s", layer)
                continue
            height, width = subject.probes.images.shape[-2:]
            boxes = receptive_field(subject.network, layer, positions, (height, width))
            windows = _windows(boxes.flatten(0, 1), height, width).view_as(boxes)
            best = _Best(layer, chosen, values, indices, positions, windows)
            yield from subject.map_sharded(range(len(chosen)), partial(self._figures, subject, best))

    def _figures(self, subject: Subject, best: _Best, rows: Sequence[int]) -> Iterator[Figure]:
        titles, tiles = self._tiles(subject, best, list(rows))
        there = best.indices.shape[1]
        for i, row in enumerate(rows):
            unit, values = int(best.units[row]), best.values[row]
            own = tiles[i * there : (i + 1) * there]  # of each example: the crop and its maps
            yield Figure(
                key=f"{best.layer}/unit-{unit:03d}",
                image=paint.grid([tile for row in zip(*own) for tile in row], there),
                caption=f"{best.layer}, unit {unit}: its top {there} dataset examples (activation "
                f"{values[0]:.3g} to {values[-1]:.3g}), cropped to what it sees; below, {titles}.",
                layer=best.layer,
                unit=unit,
                values={"activation": values[0].item()},
            )

    def _tiles(self, subject: Subject, best: _Best, rows: list[int]) -> tuple[str, list[list[Tensor]]]:
        """The names of the maps, and for each unit and example its crop and the maps' crops."""
        windows = best.windows[rows].flatten(0, 1)
        field = int((windows[0, 2:] - windows[0, :2]).max())
        side = self.side if field > self.side else field * round(self.side / field)
        owners = best.units[rows].to(subject.device)[:, None].expand(len(rows), best.indices.shape[1])
        owners, indices = owners.flatten(), best.indices[rows].flatten()
        positions = best.positions[rows].flatten(0, 1).to(subject.device)
        tiles = []
        for start in range(0, len(indices), PASS):
            part = slice(start, start + PASS)
            images, _ = subject.images(indices[part])
            where = {"layer": best.layer, "unit": owners[part], "position": positions[part]}
            try:
                titles = "guided backprop and deconvnet of the unit"
                maps = [
                    technique(subject.network, images, **where) for technique in (guided_backprop, deconvnet)
                ]
            except NoRule as error:
                log.info("unit_saliency shows the input gradient: %s", error)
                titles = "the input gradient of the unit"
                maps = [input_gradient(subject.network, images, **where)]
            for image, box, *signals in zip(images.cpu(), windows[part].tolist(), *(m.cpu() for m in maps)):
                top, left, bottom, right = box
                crops = [signal[:, top:bottom, left:right] for signal in signals]
                shown = [paint.signed_picture(crop, paint.percentile_scale(crop)) for crop in crops]
                pictures = [paint.picture(image[:, top:bottom, left:right]), *shown]
                tiles.append([paint.fit_square(p, side) for p in pictures])
        return titles, tiles


@dataclass(frozen=True)
class _Best:
    """Units [U] of a layer, and of each the examples [U, E] with their windows [U, E, 4], all of one size."""

    layer: str
    units: Tensor
    values: Tensor
    indices: Tensor
    positions: Tensor
    windows: Tensor


def _windows(boxes: Tensor, height: int, width: int) -> Tensor:
    """Windows of one size that hold the boxes [P, 4]; those at the border are moved inwards, not cut."""
    size = (boxes[:, 2:] - boxes[:, :2]).amax(0).clamp(min=1)
    room = torch.tensor([height, width]) - size
    middle = (boxes[:, :2] + boxes[:, 2:] - size).div(2, rounding_mode="floor")
    corner = torch.minimum(middle.clamp(min=0), room)
    return torch.cat([corner, corner + size], 1)
