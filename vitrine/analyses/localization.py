"""Localization by attribution maps: against masks, where the data set has them, and by deleting pixels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.attribution import (
    TECHNIQUES,
    Effort,
    attributions,
    cam_layer,
    importance,
    known_attributions,
    planted_stickers,
)
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.pass_size import images_at_once
from vitrine.analyses.pointing import best_iou, deletion, energy_inside, insertion, pointing_game
from vitrine.analyses.traits import Summary, Traits
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import setting

log = logging.getLogger(__name__)

Maps = dict[str, Tensor]  # attribution maps by technique, or masks by name

CURVE_IMAGES = 64  # altered copies of images in a pass, at most
OUTLINES = {"white": (255, 255, 255), "cyan": (0, 220, 255), "magenta": (255, 0, 220), "lime": (120, 255, 0)}
MEASURES = {"pointing_game": pointing_game, "energy_inside": energy_inside, "best_iou": best_iou}


@dataclass(frozen=True)
class Localization(Analysis):
    """How well attribution maps of the predicted class locate the masks' regions, and the pixels that the
    network uses.

    Scalars: `pointing_game`, `energy_inside` and `best_iou` as "<measure>/<mask>/<map>"; "mask_share/<mask>",
    the expected value of the first two for a random map; "insertion/<map>" and "deletion/<map>".
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Class maps",
        title="Where explanations look",
        page_order=90,
        summaries=(
            Summary("pointing_game", parts=2, headline=True),
            Summary("energy_inside", parts=2),
            Summary("insertion"),
            Summary("deletion"),
        ),
        budget_priority=70,
    )
    images: int = setting(48, "images of the data set measured, the same at every checkpoint", least=1)
    maps: list[str] = setting(
        [
            "gradient",
            "guided_backprop",
            "integrated_gradients",
            "grad_cam",
            "legrad",
            "chefer",
            "attention_gradient",
            "rollout",
        ],
        f"maps measured, of {', '.join(TECHNIQUES)}",
    )
    stickers: bool = setting(True, "where stickers can be planted (signs), measure on scenes with them, too")
    curve_images: int = setting(8, "how many of these for insertion and deletion; 0: none", least=0)
    curve_steps: int = setting(16, "steps of insertion and deletion (the paper's: 224)", least=1)
    shown: int = setting(6, "images in the picture of the maps; 0: no picture", least=0)
    copies: int = setting(8, "SmoothGrad: noisy copies", least=1)
    steps: int = setting(8, "integrated gradients: points of the path", least=1)
    baseline: float = setting(0.5, "the pixel value of nothing", least=0, most=1)

    def __post_init__(self) -> None:
        for name in self.maps:
            TECHNIQUES.check(name)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        count = min(self.images, len(subject.dataset))
        # a random sample, as the order of labels may be periodic
        indices = permutation(len(subject.dataset), subject.seed)[:count]
        masks = _masks(subject.dataset, indices, subject.device)
        attributed = self._attribute_all(subject, indices, masks)
        if not attributed[0].maps:
            return  # the log says why
        if masks:
            yield from self._measure(subject, indices, attributed, masks)
        else:
            log.info("localization: the data set has no masks, so only insertion and deletion are measured")
        rows = range(min(self.curve_images, count))
        areas = subject.map_sharded(rows, partial(self._areas, subject, indices, attributed))
        for name in attributed[0].maps if areas else ():
            for measure in ("insertion", "deletion"):
                yield Scalar(f"{measure}/{name}", _mean(area[measure, name] for area in areas))
        with_stickers = planted_stickers(subject) if self.stickers and "sticker" not in masks else None
        if with_stickers is not None:
            subject = with_stickers
            sticker = {"sticker": _masks(subject.dataset, indices, subject.device)["sticker"]}
            attributed = self._attribute_all(subject, indices, sticker)
            yield from self._measure(subject, indices, attributed, sticker)

    def _attribute_all(self, subject: Subject, indices: Tensor, masks: Maps) -> list[_AttributedImage]:
        return subject.map_sharded(range(len(indices)), partial(self._attribute, subject, indices, masks))

    def _attribute(
        self, subject: Subject, indices: Tensor, masks: Maps, rows: Sequence[int]
    ) -> Iterator[_AttributedImage]:
        images, _ = subject.images(indices[list(rows)])
        with torch.no_grad():
            logits = [subject.network(part) for part in images.split(subject.batch_size)]
        targets = torch.cat(logits).argmax(1)
        effort = Effort(
            self.copies,
            steps=self.steps,
            baseline=self.baseline,
            seed=subject.seed,
            batch_size=subject.batch_size,
        )
        known = known_attributions(subject, indices[list(rows)], effort)
        new = [name for name in self.maps if name not in known]
        known |= attributions(subject.network, new, images, targets, cam_layer(subject), effort)
        maps = {name: importance(name, known[name]) for name in self.maps if name in known}
        scores = {
            (measure, mask, name): score(values, regions[list(rows)]).tolist()
            for mask, regions in masks.items()
            for name, values in maps.items()
            for measure, score in MEASURES.items()
        }
        kept = max(self.curve_images, self.shown, 1)  # images whose maps are needed later
        for i, row in enumerate(rows):
            kept_maps = {name: values[i].cpu() for name, values in maps.items()} if row < kept else {}
            own_scores = {key: values[i] for key, values in scores.items()}
            yield _AttributedImage(int(targets[i]), own_scores, kept_maps)

    def _areas(
        self, subject: Subject, indices: Tensor, attributed: Sequence[_AttributedImage], rows: Sequence[int]
    ) -> list[dict[tuple[str, str], float]]:
        """For each image and map the areas under the insertion and deletion curves."""
        images, _ = subject.images(indices[list(rows)])
        targets = torch.tensor([attributed[row].target for row in rows], device=images.device)
        size = images_at_once(*images.shape[-2:], images.device, min(CURVE_IMAGES, subject.batch_size))
        effort = {"steps": self.curve_steps, "batch_size": size}
        areas = {}
        for name in attributed[0].maps:
            maps = torch.stack([attributed[row].maps[name] for row in rows]).to(images.device)
            arguments = subject.network, images, targets, maps
            areas["insertion", name], _ = insertion(*arguments, **effort)
            areas["deletion", name], _ = deletion(*arguments, **effort, baseline=self.baseline)
        return [{key: area[i].item() for key, area in areas.items()} for i in range(len(rows))]

    def _measure(
        self, subject: Subject, indices: Tensor, attributed: Sequence[_AttributedImage], masks: Maps
    ) -> Iterator[Figure | Scalar]:
        scores = {}
        for mask, regions in masks.items():
            present = regions.flatten(1).any(1).tolist()
            yield Scalar(f"mask_share/{mask}", regions[present].float().mean().item())
            for name in attributed[0].maps:
                for measure in MEASURES:
                    key = measure, mask, name
                    scores[key] = _mean(image.scores[key] for image, has in zip(attributed, present) if has)
                    yield Scalar(f"{measure}/{mask}/{name}", scores[key])
        if self.shown:
            images, _ = subject.images(indices[: self.shown])
            first = attributed[: self.shown]
            maps = {name: torch.stack([image.maps[name] for image in first]) for name in first[0].maps}
            yield self._figure(images, maps, masks, scores)

    def _figure(
        self, images: Tensor, maps: Maps, masks: Maps, scores: dict[tuple[str, str, str], float]
    ) -> Figure:
        side, tiles = paint.tile_side(images.shape[-2:]), []
        for i in range(min(self.shown, len(images))):
            tiles.append(paint.picture(images[i]))
            tiles += [
                paint.overlay_heatmap(values[i].clamp(max=paint.percentile_scale(values[i])), images[i])
                for values in maps.values()
            ]
            peaks = [None, *(divmod(int(values[i].argmax()), images.shape[-1]) for values in maps.values())]
            for k, peak in zip(range(-len(peaks), 0), peaks):
                tile = paint.resize(tiles[k], side)
                for colour, regions in zip(OUTLINES, masks.values()):
                    tile = draw_outline(tile, regions[i], colour)
                tiles[k] = tile if peak is None else _draw_spot(tile, peak, side / max(images.shape[-2:]))
        lines = [f"{mask} ({colour})" for mask, colour in zip(masks, OUTLINES)]
        hits = [
            f"on the {mask} "
            + ", ".join(f"{name} {scores['pointing_game', mask, name]:.0%}" for name in maps)
            for mask in masks
        ]
        return Figure(
            key=f"maps/{'-'.join(masks)}",
            image=paint.grid(tiles, 1 + len(maps)),
            caption=f"image, {', '.join(maps)} of the predicted class; outlined: {', '.join(lines)}; white "
            f"spot: the maximum. How often it lies {'; '.join(hits)}.",
        )


@dataclass(frozen=True)
class _AttributedImage:
    """An image's attribution maps for the predicted class."""

    target: int  # the predicted class
    scores: dict[tuple[str, str, str], float]  # by measure, mask and map
    maps: Maps  # the importance of pixels, [H, W] by technique; of the first images only


def _mean(values: Iterable[float]) -> float:
    return torch.tensor(list(values)).mean().item()


def _masks(dataset: ImageDataset, indices: Tensor, device: torch.device) -> Maps:
    """The data set's masks at `indices` that are not empty on all images, bool [N, H, W] by name."""
    masks = {name: mask.to(device).bool() for name, mask in dataset.masks(indices).items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def draw_outline(picture: Tensor, mask: Tensor, colour: str) -> Tensor:
    """A copy of a picture [H, W, 3] with the inner edge of a mask [h, w] drawn on it."""
    inside = F.interpolate(mask[None, None].float().cpu(), picture.shape[:2])
    edge = (inside > 0) & (F.max_pool2d(1 - F.pad(inside, [1] * 4), 3, 1) > 0)
    return torch.where(edge[0, 0, :, :, None], torch.tensor(OUTLINES[colour], dtype=torch.uint8), picture)


def _draw_spot(picture: Tensor, position: tuple[int, int], scale: float) -> Tensor:
    """A copy of a picture with a white spot, framed in black, at a position given in the image's pixels."""
    picture, (row, column) = picture.clone(), (round((p + 0.5) * scale) for p in position)
    for radius, grey in ((3, 0), (2, 255)):
        picture[max(0, row - radius) : row + radius, max(0, column - radius) : column + radius] = grey
    return picture
