"""The numbers of an image file, of any type, as the 256 levels that images are kept in."""

from functools import lru_cache
from typing import Any

import numpy as np

Range = tuple[float, float]  # the numbers that become black and white

_STATE = "the setting range=[low,high] says which numbers are black and white"


def scale_levels(
    numbers: np.ndarray, stated: Range | None, *, bits: int | None = None, white_is_0: bool = False
) -> np.ndarray:
    """The numbers as uint8, linearly from black, 0, to white, 255; what lies beyond is black or white.

    Args:
        numbers: integers, floats or bools, of any shape.
        stated: the numbers that are black and white. Unless stated: all of an unsigned type of up to 16 bits;
            0 and 1 for floats.
        bits: how many of the type's bits are used; by default all.
        white_is_0: whether the lowest number is white.

    Raises:
        ValueError: black and white are neither stated nor known, or are no numbers of that type; not all
            numbers are finite.
    """
    low, high = _known_range(numbers, bits) if stated is None else _checked_range(numbers, stated)
    if white_is_0:
        low, high = high, low
    if numbers.dtype.kind in "ui" and numbers.dtype.itemsize <= 2:
        native = numbers.dtype.newbyteorder("=")
        first = np.iinfo(native).min
        return _table(native.str, low, high)[numbers.astype(np.int32) - first if first else numbers]
    is_short = numbers.dtype.kind == "b" or numbers.dtype in (np.float16, np.float32)
    return _scale(numbers.astype(np.float32 if is_short else np.float64), low, high)


@lru_cache(maxsize=8)
def _table(kind: str, low: float, high: float) -> np.ndarray:
    """The level of each integer of a type."""
    limits = np.iinfo(kind)
    return _scale(np.arange(limits.min, limits.max + 1, dtype=np.float64), low, high)


def _scale(numbers: np.ndarray, low: float, high: float) -> np.ndarray:
    numbers = (numbers - low) * 255 / (high - low)  # in this order exact for integers
    return np.rint(np.clip(numbers, 0, 255, out=numbers), out=numbers).astype(np.uint8)


def _known_range(numbers: np.ndarray, bits: int | None) -> Range:
    kind = numbers.dtype
    if kind.kind == "b":
        return 0.0, 1.0
    if kind.kind == "f":
        low, high = numbers.min(), numbers.max()
        if not (low >= 0 and high <= 1):
            raise ValueError(f"it has values from {low:g} to {high:g}, expected 0 to 1; {_STATE}")
        return 0.0, 1.0
    if kind.kind == "u" and kind.itemsize <= 2:
        return 0.0, 2.0 ** (bits or 8 * kind.itemsize) - 1
    if kind.kind in "ui":
        signed = "signed " * (kind.kind == "i")
        raise ValueError(
            f"it has {signed}{8 * kind.itemsize}-bit integers, whose white is not known; {_STATE}"
        )
    raise ValueError(f"it has {kind}, expected numbers")


def _checked_range(numbers: np.ndarray, stated: Range) -> Range:
    kind: Any = numbers.dtype
    if kind.kind == "f":
        if not np.isfinite(numbers).all():
            raise ValueError("it has values that are not finite")
    elif kind.kind not in "bui":
        raise ValueError(f"it has {kind}, expected numbers")
    else:
        limits = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
        if not limits[0] <= stated[0] < stated[1] <= limits[1]:
            span = f"{8 * kind.itemsize} bits each, {limits[0]} to {limits[1]}"
            raise ValueError(f"it has numbers of {span}, which range=[{stated[0]:g},{stated[1]:g}] exceeds")
    return stated
