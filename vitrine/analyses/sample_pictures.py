"""Training images in rows, each with its label, its loss and a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.base import Subject
from vitrine.analyses.lettering import printable
from vitrine.analyses.picture_table import picture_table


@dataclass(frozen=True)
class Tile:
    """A training image and the lines below it."""

    index: int  # into the training split
    lines: Sequence[str]
    highlighted: bool = False  # written in red


def draw_rows(
    subject: Subject,
    rows: Sequence[tuple[str, Sequence[Tile]]],
    side: int,
    most: int,
    first: tuple[Tensor, Sequence[str]] | None = None,
) -> Tensor:
    """Rows of training images with a title each, uint8 [H, W, 3].

    Args:
        side: of a tile, in pixels.
        most: tiles a row; what a shorter row lacks is white.
        first: an image [C, H, W] that stands before the rows, and the lines below it.
    """
    indices = [tile.index for _, tiles in rows for tile in tiles]
    images = iter(subject.train_images(indices)[0] if indices else ())
    blank = torch.full((side, side, 3), paint.BACKGROUND, dtype=torch.uint8)
    pictures, captions, red = [], [], []
    for number, (_, tiles) in enumerate(rows):
        missing = most - len(tiles)
        row = [paint.fit_square(paint.picture(next(images)), side) for _ in tiles] + [blank] * missing
        words = [_text(tile.lines) for tile in tiles] + [""] * missing
        marked = [tile.highlighted for tile in tiles] + [False] * missing
        if first is not None:
            row.insert(0, paint.fit_square(paint.picture(first[0]), side) if number == 0 else blank)
            words.insert(0, _text(first[1]) if number == 0 else "")
            marked.insert(0, False)
        pictures.append(row)
        captions.append(words)
        red.append(marked)
    columns = [""] * len(pictures[0])
    return picture_table(pictures, columns, [printable(title) for title, _ in rows], captions, red)


def _text(lines: Sequence[str]) -> str:
    return "\n".join(map(printable, lines))
