"""The size of optimised pictures: pixels on a side, or height and width."""

from __future__ import annotations

Size = int | tuple[int, int]


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def size_text(size: Size) -> str:
    """ "64", or "12 x 20" of pictures that are not square."""
    height, width = sides(size)
    return str(height) if height == width else f"{height} x {width}"
