"""A concept as a row of pictures, and which classes use which concepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.lettering import font_file, printable
from vitrine.analyses.picture_table import BLACK, GREY, truncate
from vitrine.analyses.plots import render_plot

PANEL = 204  # pixels: width of the words and bars beside the pictures
MARGIN = 8
LINE = 17
TITLE_SIZE, TEXT_SIZE = 17, 12
FOR, AGAINST = (178, 24, 43), (33, 102, 172)  # red and blue, as in signed maps
WINDOW = 0.5  # of the image's shorter side: the part around the peak that is cut out
LEGIBLE = 40  # columns up to which classes are named


def draw_concept(
    title: str,
    lines: Sequence[str],
    classes: Sequence[tuple[str, float]],
    scale: float,
    images: Tensor,
    maps: Tensor,
    side: int,
) -> Tensor:
    """A row: words and bars of the classes that use the concept; then its best images, above the part around
    the peak, below the whole image under the concept's map. uint8 [H, W, 3].

    Args:
        lines: below the title.
        classes: names, and what the concept adds to their logit.
        scale: of that, what fills a bar.
        images: [N, C, H, W], best first.
        maps: [N, h, w], >= 0; all on one scale, whose top is the largest.
        side: of a tile, in pixels.
    """
    top = maps.max().clamp_min(1e-30)
    crops, overlays = [], []
    for image, heat in zip(images.cpu(), maps.cpu()):
        crops.append(paint.fit_square(paint.picture(_around_peak(image, heat)), side))
        picture = paint.picture(image).permute(2, 0, 1) / 255
        overlays.append(paint.fit_square(_overlay(heat / top, picture), side))
    pictures = paint.grid([*crops, *overlays], columns=len(images))
    panel = _draw_panel(title, lines, classes, scale, pictures.shape[0])
    return torch.cat([panel, pictures], dim=1)


def draw_importance(importance: Tensor, concepts: Sequence[str], classes: Sequence[str]) -> Tensor:
    """What each concept adds to each class's logit, [K, classes], as a picture: red for, blue against."""

    def draw(axes: Any) -> None:
        largest = importance.nan_to_num(0).abs().max().item() or 1.0
        image = axes.imshow(importance.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
        axes.grid(False)
        axes.set_yticks(range(len(concepts)), concepts, size=8)
        names = [_shortened(printable(name) or "?") for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90, size=8, parse_math=False)
        axes.figure.colorbar(image, label="added to the logit", fraction=0.05, pad=0.02)

    return render_plot(draw, 260 + max(24 * len(classes), 200), 170 + 20 * len(concepts))


def _shortened(name: str, letters: int = 22) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def _around_peak(image: Tensor, heat: Tensor) -> Tensor:
    """The square part of an image [C, H, W] around the peak of its map [h, w]."""
    height, width = image.shape[-2:]
    length = max(1, round(WINDOW * min(height, width)))
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    corner = []
    for place, count, size in ((row, heat.shape[0], height), (column, heat.shape[1], width)):
        centre = (place + 0.5) * size / count
        corner.append(max(0, min(round(centre - length / 2), size - length)))
    top, left = corner
    return image[:, top : top + length, left : left + length]


def _overlay(heat: Tensor, image: Tensor) -> Tensor:
    """An image that keeps its colours where the map [h, w] in [0, 1] is high, and fades to a dark grey."""
    weight = paint.upsample(heat, image.shape[-2:]).clamp(0, 1)
    grey = 0.3 * image.mean(0, keepdim=True) + 0.05
    return paint.picture(image * weight + grey * (1 - weight))


def _draw_panel(
    title: str, lines: Sequence[str], classes: Sequence[tuple[str, float]], scale: float, height: int
) -> Tensor:
    sheet = Image.new("RGB", (PANEL, height), "white")
    draw = ImageDraw.Draw(sheet)
    large, small = (ImageFont.truetype(font_file(), size) for size in (TITLE_SIZE, TEXT_SIZE))
    left, right = MARGIN, PANEL - 2 * MARGIN
    inside = right - left
    draw.text((left, 2), title, fill=BLACK, font=large)
    y = 2 + TITLE_SIZE + MARGIN
    for line in lines:
        draw.text((left, y), truncate(printable(line), inside), fill=GREY, font=small)
        y += LINE
    y += MARGIN // 2
    for name, value in classes:
        if y + LINE + 6 > height:
            break
        number = f"{value:+.2g}"
        room = inside - small.getlength(number) - MARGIN
        draw.text((left, y), truncate(printable(name) or "?", room), fill=BLACK, font=small)
        draw.text((right, y), number, fill=GREY, font=small, anchor="ra")
        length = round(inside * min(1.0, abs(value) / scale)) if scale > 0 else 0
        draw.rectangle(
            (left, y + LINE - 1, left + max(1, length), y + LINE + 2), fill=FOR if value >= 0 else AGAINST
        )
        y += LINE + 7
    return torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(height, PANEL, 3)
