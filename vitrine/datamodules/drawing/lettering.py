"""Letters and digits as strokes, without a font: paths in a box of the given half width and half height."""

from __future__ import annotations

from torch import Tensor

from vitrine.datamodules.drawing.sdf import Point, arc, stroke, union

Path = list[Point]


def text_distance(
    points: Tensor, text: str, *, half_width: float, half_height: float, gap: float, width: float
) -> Tensor:
    """Distance to a word centred on the origin.

    Args:
        points: [..., 2].
        text: of the characters in `PATHS`.
        half_width, half_height: of one character, measured along the middle of its strokes.
        gap: between the boxes of neighbours, middle of stroke to middle of stroke.
        width: of the strokes.
    """
    pitch = 2 * half_width + gap
    distances = []
    for place, character in enumerate(text):
        shifted = points - points.new_tensor((pitch * (place - (len(text) - 1) / 2), 0.0))
        paths = PATHS[character](half_width, half_height)
        distances += [stroke(shifted, path, width) for path in paths]
    return union(*distances)


def _zero(w: float, h: float) -> list[Path]:
    top, bottom = arc((0, w - h), w, w, 180, 360), arc((0, h - w), w, w, 0, 180)
    return [[*top, *bottom, top[0]]]


def _one(w: float, h: float) -> list[Path]:
    return [[(-0.7 * w, -0.62 * h), (0.3 * w, -h), (0.3 * w, h)]]


def _two(w: float, h: float) -> list[Path]:
    return [[*arc((0, w - h), w, w, 185, 395), (-w, h), (w, h)]]


def _three(w: float, h: float) -> list[Path]:
    upper = arc((0, -0.52 * h), 0.92 * w, 0.48 * h, 205, 450)
    lower = arc((0, 0.48 * h), w, 0.52 * h, 270, 515)
    return [[*upper, *lower]]


def _five(w: float, h: float) -> list[Path]:
    bowl = arc((-0.05 * w, 0.4 * h), 1.05 * w, 0.6 * h, 235, 510)
    return [[(0.85 * w, -h), (-0.75 * w, -h), bowl[0], *bowl]]


def _six(w: float, h: float) -> list[Path]:
    loop = arc((0, 0.45 * h), w, 0.55 * h, 0, 360, 24)
    hook = arc((0, w - h), w, w, 325, 180)
    return [loop, [*hook, (-w, 0.45 * h)]]


def _eight(w: float, h: float) -> list[Path]:
    return [arc((0, -0.52 * h), 0.88 * w, 0.48 * h, 0, 360, 24), arc((0, 0.48 * h), w, 0.52 * h, 0, 360, 24)]


def _s(w: float, h: float) -> list[Path]:
    upper = arc((0, -h / 2), w, h / 2, 335, 90)
    lower = arc((0, h / 2), w, h / 2, 270, 515)
    return [[*upper, *lower]]


def _t(w: float, h: float) -> list[Path]:
    return [[(-1.1 * w, -h), (1.1 * w, -h)], [(0, -h), (0, h)]]


def _p(w: float, h: float) -> list[Path]:
    bowl = arc((0.0, -0.45 * h), w, 0.55 * h, 270, 450)
    return [[(-w, h), (-w, -h), *bowl, (-w, 0.1 * h)]]


PATHS = {
    "0": _zero,
    "1": _one,
    "2": _two,
    "3": _three,
    "5": _five,
    "6": _six,
    "8": _eight,
    "S": _s,
    "T": _t,
    "O": _zero,
    "P": _p,
}
