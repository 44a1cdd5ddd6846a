"""Do the maps point at the thing? Against masks where the data set has them, and against the network."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.attribution import TECHNIQUES, Effort, attributions, cam_layer, strength, technique
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.pointing import best_iou, deletion, energy_inside, insertion, pointing_game
from vitrine.analyses.probe_saliency import bright, tile_side
from vitrine.analyses.traits import Summary, Traits
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import setting

log = logging.getLogger(__name__)

OUTLINES = {"white": (255, 255, 255), "cyan": (0, 220, 255), "magenta": (255, 0, 220), "lime": (120, 255, 0)}
MEASURES = {"pointing_game": pointing_game, "energy_inside": energy_inside, "best_iou": best_iou}


@dataclass(frozen=True)
class Localization(Analysis):
    """How well each map of the predicted class finds what the masks mark, and what the network needs.

    Scalars: `pointing_game`, `energy_inside` and `best_iou` as "<measure>/<mask>/<map>"; "mask_share/<mask>",
    what a map without any knowledge reaches of the first two; "insertion/<map>" and "deletion/<map>".
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
    images: int = setting(
        48, "images of the data set that are measured, the same at every checkpoint", least=1
    )
    maps: list[str] = setting(
        ["gradient", "guided_backprop", "integrated_gradients", "grad_cam"],
        f"maps measured, of {', '.join(TECHNIQUES)}",
    )
    stickers: bool = setting(True, "where stickers can be planted (signs), measure on scenes with them, too")
    curve_images: int = setting(8, "how many of these for insertion and deletion; 0: none", least=0)
    curve_steps: int = setting(16, "steps of insertion and deletion (the paper's: 224)", least=1)
    shown: int = setting(6, "images in the picture of the maps; 0: no picture", least=0)
    copies: int = setting(8, "SmoothGrad: noisy copies", least=1)
    steps: int = setting(8, "integrated gradients: points on the way", least=1)
    baseline: float = setting(0.5, "the pixel value of nothing", least=0, most=1)

    def __post_init__(self) -> None:
        for name in self.maps:
            technique(name)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        count = min(self.images, len(subject.dataset))
        # a random sample, as labels may come in a period
        indices = permutation(len(subject.dataset), subject.seed)[:count]
        masks = _masks(subject.dataset, indices, subject.device)
        seen = self._seen(subject, indices, masks)
        if masks:
            yield from self._measured(subject, indices, seen, masks)
        else:
            log.info("localization: the data set has no masks, so only insertion and deletion are measured")
        few = range(min(self.curve_images, count))
        areas = subject.map_sharded(few, partial(self._areas, subject, indices, seen))
        for name in seen[0].maps if areas else ():
            for measure in ("insertion", "deletion"):
                yield Scalar(f"{measure}/{name}", _mean(area[measure, name] for area in areas))
        stickered = subject.dataset.with_stickers() if self.stickers and "sticker" not in masks else None
        if stickered is not None:
            subject = dataclasses.replace(subject, dataset=stickered)
            sticker = {"sticker": _masks(subject.dataset, indices, subject.device)["sticker"]}
            seen = self._seen(subject, indices, sticker)
            yield from self._measured(subject, indices, seen, sticker)

    def _seen(self, subject: Subject, indices: Tensor, masks: dict[str, Tensor]) -> list[_Seen]:
        """What is seen in the images at `indices`."""
        return subject.map_sharded(range(len(indices)), partial(self._looks, subject, indices, masks))

    def _looks(
        self, subject: Subject, indices: Tensor, masks: dict[str, Tensor], rows: Sequence[int]
    ) -> Iterator[_Seen]:
        images, _ = subject.images(indices[list(rows)])
        with torch.no_grad():
            targets = torch.cat(
                [subject.network(part).argmax(1) for part in images.split(subject.batch_size)]
            )
        effort = Effort(self.copies, steps=self.steps, baseline=self.baseline, seed=subject.seed)
        found = attributions(subject.network, self.maps, images, targets, cam_layer(subject), effort)
        maps = {name: strength(name, values) for name, values in found.items()}
        scores = {
            (measure, mask, name): of(values, where[list(rows)]).tolist()
            for mask, where in masks.items()
            for name, values in maps.items()
            for measure, of in MEASURES.items()
        }
        kept = max(self.curve_images, self.shown, 1)  # further maps need not be sent to anybody
        for i, row in enumerate(rows):
            own = {name: values[i].cpu() for name, values in maps.items()} if row < kept else {}
            yield _Seen(int(targets[i]), {key: values[i] for key, values in scores.items()}, own)

    def _areas(
        self, subject: Subject, indices: Tensor, seen: Sequence[_Seen], rows: Sequence[int]
    ) -> list[dict[tuple[str, str], float]]:
        """Of each image and map the areas under the curves of insertion and deletion."""
        images, _ = subject.images(indices[list(rows)])
        targets = torch.tensor([seen[row].target for row in rows], device=images.device)
        areas = {}
        for name in seen[0].maps:
            maps = torch.stack([seen[row].maps[name] for row in rows]).to(images.device)
            given = subject.network, images, targets, maps
            areas["insertion", name], _ = insertion(*given, steps=self.curve_steps)
            areas["deletion", name], _ = deletion(*given, steps=self.curve_steps, baseline=self.baseline)
        return [{key: area[i].item() for key, area in areas.items()} for i in range(len(rows))]

    def _measured(
        self, subject: Subject, indices: Tensor, seen: Sequence[_Seen], masks: dict[str, Tensor]
    ) -> Iterator[Figure | Scalar]:
        scores = {}
        for mask, where in masks.items():
            there = where.flatten(1).any(1).tolist()
            yield Scalar(f"mask_share/{mask}", where[there].float().mean().item())
            for name in seen[0].maps:
                for measure in MEASURES:
                    key = measure, mask, name
                    scores[key] = _mean(one.scores[key] for one, here in zip(seen, there) if here)
                    yield Scalar(f"{measure}/{mask}/{name}", scores[key])
        if self.shown:
            images, _ = subject.images(indices[: self.shown])
            maps = {
                name: torch.stack([one.maps[name] for one in seen[: self.shown]]) for name in seen[0].maps
            }
            yield self._picture(images, maps, masks, scores)

    def _picture(
        self,
        images: Tensor,
        maps: dict[str, Tensor],
        masks: dict[str, Tensor],
        scores: dict[tuple[str, str, str], float],
    ) -> Figure:
        side, tiles = tile_side(images.shape[-2:]), []
        for i in range(min(self.shown, len(images))):
            tiles.append(paint.picture(images[i]))
            tiles += [
                paint.overlay_heatmap(found[i].clamp(max=bright(found[i])), images[i])
                for found in maps.values()
            ]
            peaks = [None, *(divmod(int(found[i].argmax()), images.shape[-1]) for found in maps.values())]
            for at, peak in zip(range(-len(peaks), 0), peaks):
                tile = paint.resize(tiles[at], side)
                for colour, where in zip(OUTLINES, masks.values()):
                    tile = outlined(tile, where[i], colour)
                tiles[at] = tile if peak is None else _marked(tile, peak, side / max(images.shape[-2:]))
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
class _Seen:
    """What is seen in one image.

    Attributes:
        target: the class that it is taken for.
        scores: by measure, mask and map.
        maps: of the first images, where each map points, [H, W] by name.
    """

    target: int
    scores: dict[tuple[str, str, str], float]
    maps: dict[str, Tensor]


def _mean(values: Iterable[float]) -> float:
    return torch.tensor(list(values)).mean().item()


def _masks(dataset: ImageDataset, indices: Tensor, device: torch.device) -> dict[str, Tensor]:
    """The data set's masks at `indices` that mark something in some image, bool [N, H, W] by name."""
    masks = {name: mask.to(device).bool() for name, mask in dataset.masks(indices).items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def outlined(picture: Tensor, mask: Tensor, colour: str) -> Tensor:
    """A copy of a picture [H, W, 3] with the inner edge of a mask [h, w] drawn in it."""
    where = F.interpolate(mask[None, None].float().cpu(), picture.shape[:2])
    edge = (where > 0) & (F.max_pool2d(1 - F.pad(where, [1] * 4), 3, 1) > 0)
    return torch.where(edge[0, 0, :, :, None], torch.tensor(OUTLINES[colour], dtype=torch.uint8), picture)


def _marked(picture: Tensor, position: tuple[int, int], scale: float) -> Tensor:
    """A copy of a picture with a white spot, framed in black, at a position given in the image's pixels."""
    picture, (row, column) = picture.clone(), (round((p + 0.5) * scale) for p in position)
    for reach, grey in ((3, 0), (2, 255)):
        picture[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach] = grey
    return picture
