"""Pictures in rows and columns, with titles and captions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vitrine.analyses.lettering import font_file, printable
from vitrine.analyses.outputs import Turntable

FONT_SIZE = 12  # pixels
LINE = 17  # pixels: height of a line of text
GAP = 4  # pixels between the pictures
BLACK, GREY, RED = (34, 34, 34), (110, 110, 110), (178, 24, 43)


def picture_table(
    rows: Sequence[Sequence[Tensor]],
    columns: Sequence[str],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    highlighted: Sequence[Sequence[bool]] | None = None,
) -> Tensor:
    """Pictures as a table with titles, uint8 [H, W, 3].

    Args:
        rows: pictures of one size, uint8 [h, w, 3], row by row.
        columns: the title above each column, of one or more lines; truncated to the column's width.
        titles: the title beside each row, rotated by 90 degrees.
        captions: one or more lines below each picture; red where `highlighted`.
    """
    height, width = rows[0][0].shape[:2]
    header, pitch = _down(height, columns, captions)
    size = (LINE + len(columns) * (width + GAP) - GAP, header + len(rows) * pitch - GAP)
    sheet = Image.new("RGB", size, "white")
    for c, title in enumerate(columns):
        for line, text in enumerate(title.split("\n")):
            _draw_text(sheet, text, LINE + c * (width + GAP), line * LINE, width)
    for r, pictures in enumerate(rows):
        top = header + r * pitch
        title = Image.new("RGB", (height, LINE), "white")
        _draw_text(title, titles[r], 0, 0, height)
        sheet.paste(title.rotate(90, expand=True), (0, top))
        for c, picture in enumerate(pictures):
            left = LINE + c * (width + GAP)
            sheet.paste(Image.fromarray(picture.contiguous().numpy()), (left, top))
            if captions is not None:
                colour = RED if highlighted is not None and highlighted[r][c] else GREY
                for line, text in enumerate(captions[r][c].split("\n")):
                    _draw_text(sheet, text, left, top + height + line * LINE, width, colour)
    return torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(sheet.height, sheet.width, 3)


def turntable(
    rows: Sequence[Sequence[Tensor]],
    views: Sequence[str],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
    highlighted: Sequence[Sequence[bool]],
) -> tuple[Tensor, Turntable]:
    """Things as they are seen from all around, a row each, as a table and as what the page turns.

    Args:
        rows, titles, captions, highlighted: as of `picture_table`.
        views: what each column is called.
    """
    height, width = rows[0][0].shape[:2]
    header, pitch = _down(height, views, captions)
    turned = Turntable(
        list(views),
        {title: list(row) for title, row in zip(titles, captions)},
        {title: list(row) for title, row in zip(titles, highlighted)},
        first=(LINE, header),
        size=(width, height),
        pitch=(width + GAP, pitch),
    )
    return picture_table(rows, views, titles, captions, highlighted), turned


def _down(height: int, columns: Sequence[str], captions: Sequence[Sequence[str]] | None) -> tuple[int, int]:
    """The pixels above the first row of pictures of a height, and from a row to the next."""
    lines = max((len(text.split("\n")) for row in captions for text in row), default=0) if captions else 0
    header = LINE * max(len(title.split("\n")) for title in columns) if any(columns) else 0
    return header, height + lines * LINE + GAP


def truncate(text: str, width: float) -> str:
    """Text shortened to `width` pixels, ending in an ellipsis where something was left out."""
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _draw_text(
    sheet: Image.Image, text: str, left: int, top: int, width: int, colour: tuple[int, int, int] = BLACK
) -> None:
    text = truncate(printable(text), width)
    centre = (left + width / 2, top + LINE / 2)
    ImageDraw.Draw(sheet).text(centre, text, fill=colour, font=_font(), anchor="mm")


@cache
def _font() -> Any:
    return ImageFont.truetype(font_file(), FONT_SIZE)
