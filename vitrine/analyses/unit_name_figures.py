"""Pictures and tables of what units are called: places, likeness, parts and classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.base import Figure, Table
from vitrine.analyses.dissection import DETECTS
from vitrine.analyses.lettering import printable
from vitrine.analyses.localization import draw_outline
from vitrine.analyses.plots import bars, render_plot
from vitrine.analyses.unit_name_records import Names

MOST_ROWS = 512  # of a layer's table
DIM = 0.35  # of the light that is left where a unit is not active


def draw_places(images: Tensor, masks: Tensor, on: Tensor, side: int) -> Tensor:
    """Images in a row, dark where a unit is not active, the masks outlined.

    Args:
        images: [n, C, H, W]; masks, on: bool [n, H, W].
        side: longer side of each, in pixels.
    """
    tiles = []
    for image, mask, place in zip(images, masks, on):
        picture = paint.picture(image)
        dimmed = (picture.float() * DIM).to(torch.uint8)
        tile = paint.resize(torch.where(place[:, :, None], picture, dimmed), side)
        tiles.append(draw_outline(tile, mask, "cyan"))
    return paint.row(tiles)


def draw_alike(images: Tensor, embeddings: Tensor, side: int) -> Tensor:
    """Images along both sides of the matrix of their embeddings' cosines: black 0 and below, brightest 1.

    Args:
        images: [n, C, H, W]; embeddings: [n, D].
        side: of a cell, in pixels.
    """
    embeddings = F.normalize(embeddings, dim=1)
    cosines, shown = embeddings @ embeddings.T, [paint.fit_square(paint.picture(i), side) for i in images]
    empty = torch.full((side, side, 3), paint.BACKGROUND, dtype=torch.uint8)
    cells = [empty, *shown]
    for image, row in zip(shown, cosines):
        cells += [image, *(paint.colorize(value.expand(side, side)) for value in row)]
    return paint.grid(cells, 1 + len(shown))


def figure_of_layer(layer: str, names: Names, mono: Tensor | None) -> Figure:
    """How many units of a layer detect which part, and a table of its units."""
    counts = {name: int((names.detected == part).sum()) for part, name in enumerate(names.parts)}
    best = names.iou.flatten(1).amax(1)
    order = best.argsort(descending=True, stable=True)[:MOST_ROWS].tolist()
    rows = [next(iter(names.best(unit)), ("", 0.0)) for unit in order]
    columns: dict[str, list[Any]] = {
        "unit": [str(unit) for unit in order],
        "name": [name for name, _ in rows],
        "IoU": [iou for _, iou in rows],
    }
    if mono is not None:
        columns["monosemanticity"] = [None if m != m else m for m in mono[order].tolist()]
    total, detectors = len(best), sum(counts.values())
    shown = {name: {"units": float(count)} for name, count in counts.items()}
    left_out = f", the first {MOST_ROWS} in the table" if total > MOST_ROWS else ""
    return Figure(
        layer,
        bars(shown, {"units": "#2166ac"}, "units that detect it"),
        f"{layer}: {detectors} of {total} units detect a part (IoU above {DETECTS}){left_out}",
        layer=layer,
        table=Table(columns),
    )


def figure_of_network(names: Mapping[str, Names]) -> Figure:
    """The best IoU of any unit with each part of each class, and a table of the concepts."""
    first = next(iter(names.values()))
    stacked = torch.cat([of.iou for of in names.values()])  # of all units
    places = [(layer, unit) for layer, of in names.items() for unit in range(len(of.iou))]
    best, where = stacked.max(0)  # [parts, 1 + classes]
    flat = stacked.flatten(1).argmax(1)  # the concept of each unit
    detects = stacked.flatten(1).amax(1) > DETECTS
    counts = flat[detects].bincount(minlength=best.numel()).view_as(best)
    order = best.flatten().argsort(descending=True, stable=True).tolist()
    width = best.shape[1]
    rows = [(i // width, i % width) for i in order if best.flatten()[i] > 0]
    columns = {
        "concept": [first.concept(part, kind) for part, kind in rows],
        "units called so": [float(counts[part, kind]) for part, kind in rows],
        "best IoU": [best[part, kind].item() for part, kind in rows],
        "of": ["{}, unit {}".format(*places[int(where[part, kind])]) for part, kind in rows],
    }
    part, kind = rows[0] if rows else (0, 0)
    caption = "the best IoU of any unit with each part, in all images and in those of each class"
    if rows:
        layer, unit = places[int(where[part, kind])]
        caption += f"; {int(detects.sum())} of {len(places)} units are detectors, the best is unit {unit} of "
        caption += f"{layer}: {first.concept(part, kind)}, {best[part, kind]:.2f}"
    return Figure("units/concepts", _heat(best, first), caption, table=Table(columns))


def _heat(best: Tensor, names: Names) -> Tensor:
    kinds = ["any class", *names.classes]

    def draw(axes: Any) -> None:
        image = axes.imshow(best.T.numpy(), cmap="viridis", vmin=0, aspect="auto")
        axes.set_xticks(range(len(names.parts)), [printable(n) or "?" for n in names.parts], parse_math=False)
        if len(kinds) <= 40:
            axes.set_yticks(range(len(kinds)), [printable(kind) or "?" for kind in kinds], parse_math=False)
            middle = best.max().item() / 2
            for kind, row in enumerate(best.T.tolist()):
                for part, value in enumerate(row):
                    shade = "white" if value < middle else "black"
                    text = f"{value:.2f}" if value else ""  # a class may have no such part
                    axes.annotate(text, (part, kind), ha="center", va="center", size=8, color=shade)
        axes.grid(False)
        axes.figure.colorbar(image, label="best IoU of any unit")

    width = 240 + 74 * max(4, len(names.parts))
    return render_plot(draw, width=width, height=90 + (22 * len(kinds) if len(kinds) <= 40 else 400))
