"""Pictures of networks that are right for the wrong reason: classes, images, scenes with parts left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.lettering import printable
from vitrine.analyses.localization import draw_outline
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.plots import render_plot
from vitrine.analyses.shortcut_tests import Evidence

COLOURS = ("#2166ac", "#b2182b", "#4d9221", "#e08214", "#762a83", "#8c510a")
LINE = 15  # pixels a map


def draw_classes(evidence: Evidence, mask: str, threshold: float | None, classes: Sequence[str]) -> Tensor:
    """For each class and map the share of recognised images' maps inside a mask, as a multiple of what is to
    lie there, with 95 % intervals: uint8 [H, W, 3]."""
    limits, labels = evidence.limits(mask, threshold), evidence.labels.unique().tolist()

    def draw(axes: Any) -> None:
        count = len(evidence.shares)
        axes.axvspan(0, 1, color="#fbe9e7", zorder=0)
        axes.axvline(1, color="#b2182b", linewidth=1)
        for k, (name, shares) in enumerate(evidence.shares.items()):
            points = []
            for i, label in enumerate(labels):
                rows = evidence.recognised & (evidence.labels == label)
                if rows.any():
                    ratio = shares[mask][rows] / limits[rows]
                    error = ratio.std().item() / math.sqrt(len(ratio)) if len(ratio) > 1 else 0.0
                    points.append((ratio.mean().item(), i + 0.7 * ((k + 0.5) / count - 0.5), 1.96 * error))
            x, y, errors = zip(*points) if points else ((), (), ())
            style = {"fmt": "o", "markersize": 4, "linewidth": 1.2, "color": COLOURS[k % len(COLOURS)]}
            axes.errorbar(x, y, xerr=errors, label=name.replace("_", " "), **style)
        axes.set_yticks(range(len(labels)), [printable(classes[k]) or "?" for k in labels], parse_math=False)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(left=0)
        wanted = "its share of the pixels" if threshold is None else f"{threshold:.0%}"
        axes.set_xlabel(f"share of the map on the {printable(mask)} / {wanted}")
        axes.grid(False, axis="y")
        axes.figure.legend(loc="outside upper center", ncols=min(count, 4))

    return render_plot(draw, height=90 + len(labels) * max(22, LINE * len(evidence.shares)))


def draw_telling(
    images: Tensor,
    maps: Mapping[str, Tensor],
    masks: Tensor,
    shares: Mapping[str, Tensor],
    names: Sequence[str],
) -> Tensor:
    """A row an image: the image and its maps, the mask outlined, with the share of each map inside.

    Args:
        images: [N, C, H, W]; maps: [N, H, W] >= 0 by name; masks: bool [N, H, W]; shares: [N] by map.
    """
    side, rows, captions = paint.tile_side(images.shape[-2:]), [], []
    for i, image in enumerate(images):
        tiles = [paint.picture(image)]
        tiles += [
            paint.overlay_heatmap(of[i].clamp(max=paint.percentile_scale(of[i])), image)
            for of in maps.values()
        ]
        rows.append([draw_outline(paint.resize(tile, side), masks[i], "cyan") for tile in tiles])
        captions.append(
            [
                f"{masks[i].float().mean():.0%} of the pixels",
                *(f"{shares[name][i]:.0%} inside" for name in maps),
            ]
        )
    return picture_table(rows, ["image", *(name.replace("_", " ") for name in maps)], names, captions)


def draw_scenes(
    columns: Mapping[str, Tensor],
    probabilities: Mapping[str, Tensor],
    predicted: Tensor,
    classes: Sequence[str],
) -> Tensor:
    """A row a scene, a column a version of it: images [N, C, H, W] with what is predicted of them, red where
    that is not `predicted`."""
    side = paint.tile_side(next(iter(columns.values())).shape[-2:])
    rows = [
        [paint.resize(paint.picture(of[i]), side) for of in columns.values()] for i in range(len(predicted))
    ]
    captions, changed = [], []
    for i, before in enumerate(predicted.tolist()):
        best = [of[i].max(0) for of in probabilities.values()]
        captions.append([f"{classes[int(label)]} {share:.0%}" for share, label in best])
        changed.append([int(label) != before for _, label in best])
    titles = [classes[label] for label in predicted.tolist()]
    return picture_table(rows, list(columns), titles, captions, changed)
