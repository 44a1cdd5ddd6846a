"""The font of all pictures, and text as it can be written with it."""

from functools import cache
from pathlib import Path

FAMILY = "DejaVu Sans"  # ships with matplotlib


@cache
def font_file() -> Path:
    import matplotlib  # takes a third of a second: only where it is needed

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@cache
def _letters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(font_file()).get_charmap())


def printable(text: str) -> str:
    """Text in one line; letters that the font lacks (Chinese, emoji, ...) are left out, and a question mark
    says so: pictures show what is there, captions have the whole text."""
    words, letters = " ".join(text.split()), _letters()
    written, missing = [], False
    for letter in words:
        known = ord(letter) in letters
        if known or not missing:
            written.append(letter if known else "?")
        missing = not known
    return "".join(written)
