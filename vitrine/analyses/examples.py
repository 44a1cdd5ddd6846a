"""Dataset examples: the images, and the regions of them, that excite a unit most (Zeiler & Fergus 2014)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.base import Analysis, Figure, Histogram, Scalar, Subject
from vitrine.analyses.example_search import top_examples
from vitrine.analyses.receptive_field import receptive_fields
from vitrine.analyses.token_places import context, token_places
from vitrine.analyses.top_k import TopExamples, merge
from vitrine.analyses.traits import Summary, Traits
from vitrine.core.settings import setting

BINS = 32  # of a histogram
SHARED_K = 9  # examples of a unit, of which all analyses take some

__all__ = ["Examples", "TopExamples", "dataset_examples", "merge", "top_examples"]


def dataset_examples(
    subject: Subject, k: int = SHARED_K, on_logits: Callable[[Tensor, Tensor], None] | None = None
) -> dict[str, TopExamples]:
    """The top examples of the subject's layers on its data set, computed once for all analyses.

    Args:
        on_logits: as in `top_examples`, of this rank's part; not called if they were computed before.
    """

    def find() -> dict[str, TopExamples]:
        shard = subject.shard(len(subject.dataset))
        batches = subject.batches("dataset examples", shard)
        find_top = partial(top_examples, subject.network, batches, subject.layers, k, subject.units)
        own = find_top(on_logits=on_logits) if shard else {}
        own = {layer: replace(top, indices=top.indices + shard.start) for layer, top in own.items()}
        parts = [part for part in subject.all_gather(own) if part]
        merge_all = partial(reduce, lambda a, b: merge([a, b], k))
        return {layer: merge_all([part[layer] for part in parts]) for layer in subject.layers}

    return subject.cached(("top_examples", k), find)


@dataclass(frozen=True)
class Examples(Analysis):
    """For each unit the images that excite it most, and its receptive fields on them, cropped and as boxes;
    of transformers the place of the token that fires, with what is around it.

    A figure's `histogram` is of the unit's largest activation in each image of the data set; `indices`,
    `scores` (activations) and `class_shares` are of the images shown.

    Scalars: "dead_units/<layer>", the share of dead units; "class_entropy/<layer>", the mean class entropy of
    the top images of the others; "overlap/<layer>", the mean Jaccard index of the top images of the units
    shown and those of the previous checkpoint.
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Examples",
        title="Top dataset examples",
        page_order=20,
        summaries=(Summary("dead_units", headline=True),),
        unit_rank=2,
        unit_picture="examples",
        unit_numbers={
            "activation": "activation of the best example",
            "top_class": "top class",
            "class_entropy": "class entropy",
            "top_class_share": "share of the top class",
        },
        budget_priority=110,
    )
    k: int = setting(9, "images a unit", least=1)
    tile: int = setting(64, "minimum side of an image in the picture, in pixels", least=8)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        examples = dataset_examples(subject, self.k)
        channels, *size = subject.probes.images.shape[1:]
        boxes = receptive_fields(subject.network, subject.layers, size, channels=channels)
        places = token_places(subject.network, boxes, subject.probes.images[:1])
        previous = {figure.key: figure for figure in subject.previous.get("examples", ())}
        for layer, units in subject.units.items():
            top, overlaps = examples[layer], []
            tokens, fields = layer in places, boxes[layer]
            if tokens:
                fields = places[layer].expand_as(fields)
            compute = partial(self._figures, subject, layer, top, fields, tokens)
            for figure in subject.map_sharded(list(enumerate(units)), compute):
                if figure.key in previous:
                    now, before = set(figure.indices), set(previous[figure.key].indices)
                    overlaps.append(len(now & before) / len(now | before))
                yield figure
            yield Scalar(f"dead_units/{layer}", top.dead.float().mean().item(), layer)
            if not top.dead.all():
                yield Scalar(f"class_entropy/{layer}", top.class_entropy[~top.dead].mean().item(), layer)
            if overlaps:
                yield Scalar(f"overlap/{layer}", sum(overlaps) / len(overlaps), layer)

    def _figures(
        self,
        subject: Subject,
        layer: str,
        top: TopExamples,
        boxes: Tensor,
        tokens: bool,
        units: Sequence[tuple[int, int]],
    ) -> Iterator[Figure]:
        what = "what excites it most, cut out and in place"
        if tokens:
            what = "what excites it most: the token that fires, framed, from near and in the image"
        for row, unit in units:
            images, _ = subject.images(top.indices[unit])
            fields = [boxes[unit][y, x].tolist() for y, x in top.positions[unit].tolist()]
            scores, dead = top.values[unit].tolist(), "; a dead unit, never above 0"
            classes, counts = top.labels[unit].unique(return_counts=True)
            count, shown = int(counts.max()), len(scores)
            class_summary = f"{count} of {shown} are {subject.classes[int(classes[counts.argmax()])]}"
            if count == 1 < shown:
                class_summary = "no two of one class"
            yield Figure(
                key=f"{layer}/unit-{unit:03d}",
                image=_draw_sheet(images.cpu(), fields, self.tile, tokens),
                caption=f"{layer}, unit {unit}: {what}; activation "
                f"{scores[0]:.3g} to {scores[-1]:.3g}; {class_summary}{dead if top.dead[unit] else ''}",
                layer=layer,
                unit=unit,
                values={
                    "activation": scores[0],
                    "class_entropy": top.class_entropy[unit].item(),
                    "top_class_share": count / shown,
                },
                indices=top.indices[unit].tolist(),
                scores=scores,
                class_shares={
                    subject.classes[c]: n / shown for c, n in zip(classes.tolist(), counts.tolist())
                },
                histogram=histogram(top.peaks[row]),
            )


def histogram(values: Tensor) -> Histogram | None:
    """The histogram of the finite values of [N]; None where there are none."""
    finite = values[values.isfinite()]
    if not len(finite):
        return None
    low, high = finite.min(), finite.max()
    bins = ((finite - low) / (high - low).clamp(min=1e-30) * BINS).long().clamp(max=BINS - 1)
    shares = bins.bincount(minlength=BINS).double() / len(finite)
    return Histogram(low.item(), high.item(), [round(share, 6) for share in shares.tolist()])


def _draw_sheet(images: Tensor, boxes: Sequence[Sequence[int]], tile: int, tokens: bool = False) -> Tensor:
    """Two blocks side by side, three images a row: the crops to the boxes, and the images with the boxes.
    Boxes of tokens are framed in what is around them."""
    size = images.shape[-2:]
    side = max(size) * paint.magnification(size, tile) if max(size) <= 2 * tile else 2 * tile
    crops, pictures = [], []
    for image, (top, left, bottom, right) in zip(images, boxes):
        picture = paint.resize(paint.picture(image), side)
        if bottom > top and right > left:
            crops.append(_crop(image, (top, left, bottom, right), side, tokens))
            scale = side / max(size)
            box = [edge * scale for edge in (top, left, bottom, right)]
            picture = paint.draw_box(picture, _min_size(box, picture.shape[:2]))
        else:  # the position depends on padding only
            crops.append(paint.fit_square(torch.full((1, 1, 3), paint.BACKGROUND, dtype=torch.uint8), side))
        pictures.append(paint.fit_square(picture, side))
    blocks = [paint.grid(block, columns=3) for block in (crops, pictures)]
    return paint.row(blocks, gap=4 * paint.GAP)


def _crop(image: Tensor, box: Sequence[int], side: int, token: bool) -> Tensor:
    """A box of an image [C, H, W], fitted into a square; of a token with what is around it, and framed."""
    if not token:
        top, left, bottom, right = box
        return paint.fit_square(paint.picture(image[:, top:bottom, left:right]), side)
    top, left, bottom, right = context(torch.tensor(box), image.shape[-2:]).tolist()
    crop = paint.resize(paint.picture(image[:, top:bottom, left:right]), side)
    scale = side / max(bottom - top, right - left)
    frame = [(edge - start) * scale for edge, start in zip(box, (top, left, top, left))]
    return paint.fit_square(paint.draw_box(crop, _min_size(frame, crop.shape[:2])), side)


def _min_size(box: Sequence[float], size: Sequence[int], min_side: int = 9) -> list[int]:
    """A box in whole pixels of a picture of `size`, widened about its centre to `min_side` pixels."""
    edges = []
    for low, high, limit in zip(box[:2], box[2:], size):
        length = min(max(min_side, round(high - low)), limit)
        start = max(0, min(round((low + high - length) / 2), limit - length))
        edges.append((start, start + length))
    (top, bottom), (left, right) = edges
    return [top, left, bottom, right]
