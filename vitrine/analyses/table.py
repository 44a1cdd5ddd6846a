"""Pictures in rows and columns, with words above, beside and below them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIZE = 12  # of the letters, in pixels
LINE = 17  # from one line of words to the next
GAP = 4
INK, FAINT, ALARM = (34, 34, 34), (110, 110, 110), (178, 24, 43)


def table(
    rows: Sequence[Sequence[Tensor]],
    columns: Sequence[str],
    titles: Sequence[str],
    words: Sequence[Sequence[str]] | None = None,
    marked: Sequence[Sequence[bool]] | None = None,
) -> Tensor:
    """Pictures as a table on white paper, uint8 [H, W, 3].

    Args:
        rows: pictures of one size, uint8 [h, w, 3], row by row.
        columns: what stands above each column, in as many lines as it has; what does not fit is cut off.
        titles: what stands beside each row, turned upwards.
        words: what stands below each picture.
        marked: which of these words are red.
    """
    height, width = rows[0][0].shape[:2]
    below = LINE if words is not None else 0
    pitch = height + below + GAP
    above = LINE * max(len(title.split("\n")) for title in columns)
    size = (LINE + len(columns) * (width + GAP) - GAP, above + len(rows) * pitch - GAP)
    sheet = Image.new("RGB", size, "white")
    for c, title in enumerate(columns):
        for line, part in enumerate(title.split("\n")):
            _write(sheet, part, LINE + c * (width + GAP), line * LINE, width)
    for r, pictures in enumerate(rows):
        top = above + r * pitch
        beside = Image.new("RGB", (height, LINE), "white")
        _write(beside, titles[r], 0, 0, height)
        sheet.paste(beside.rotate(90, expand=True), (0, top))
        for c, picture in enumerate(pictures):
            left = LINE + c * (width + GAP)
            sheet.paste(Image.fromarray(picture.contiguous().numpy()), (left, top))
            if words is not None:
                red = marked is not None and marked[r][c]
                _write(sheet, words[r][c], left, top + height, width, ALARM if red else FAINT)
    return torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(sheet.height, sheet.width, 3)


def fitted(words: str, width: float) -> str:
    """Words cut off to `width` pixels, which an ellipsis tells."""
    if _font().getlength(words) <= width:
        return words
    while words and _font().getlength(f"{words}…") > width:
        words = words[:-1]
    return f"{words.rstrip()}…"


def _write(
    sheet: Image.Image, words: str, left: int, top: int, width: int, colour: tuple[int, int, int] = INK
) -> None:
    words = fitted(" ".join(words.split()), width)
    place = (left + width / 2, top + LINE / 2)
    ImageDraw.Draw(sheet).text(place, words, fill=colour, font=_font(), anchor="mm")


@cache
def _font() -> Any:
    import matplotlib  # its letters, so that tables and plots have the same

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), SIZE)
