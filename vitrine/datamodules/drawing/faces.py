"""The faces of the signs, and of blank plates that are no sign: layers of distances, painted in turn.

A face has a half width of 1; its first layer is the outline of the plate. The signs follow the European ones
of the Vienna Convention on Road Signs and Signals (1968).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.datamodules.drawing.lettering import text_distance
from vitrine.datamodules.drawing.sdf import arc, disc, polygon, regular, stroke, union

CLASSES = ["stop", "yield", "no entry", "speed limit", "priority", "crossing", "turn right", "warning"]
LIMITS = ["30", "50", "60", "80", "120"]

RED, BLUE, YELLOW, WHITE, BLACK = range(5)
PAINTS = torch.tensor(
    [[0.76, 0.07, 0.11], [0.03, 0.27, 0.64], [0.98, 0.76, 0.05], [0.95, 0.95, 0.93], [0.08, 0.08, 0.09]]
)


class Face(NamedTuple):
    """Layers, outermost first: distances, [...] as the points they are of, and which of PAINTS is on each."""

    layers: list[Tensor]
    paints: list[int]
    plate: int = 1  # the layer that is the plate: those before are its border, those after it the glyph


def signs(p: Tensor) -> list[tuple[int, Face]]:
    """Every face with its label, at points [..., 2]; a class may have several (a speed limit's numbers)."""
    circle, octagon, square, diamond, up, down = _outlines(p)

    word = text_distance(p, "STOP", half_width=0.13, half_height=0.31, gap=0.16, width=0.115)
    bar = polygon(p, _box(0.7, 0.15)) - 0.03
    shaft = union(
        polygon(p, [(-0.45, 0.6), (-0.45, 0.0), (-0.19, 0.0), (-0.19, 0.6)]),
        stroke(p, [(-0.32, 0.0), *arc((-0.08, -0.0), 0.24, 0.24, 180, 270), (0.2, -0.24)], 0.26),
    )
    head = polygon(p, [(0.16, -0.62), (0.68, -0.24), (0.16, 0.14)])
    mark = union(
        polygon(p, [(-0.07, -0.36), (0.07, -0.36), (0.035, 0.16), (-0.035, 0.16)]) - 0.05,
        disc(p, 0.105, (0.0, 0.42)),
    )
    narrow = {"half_width": 0.135, "gap": 0.2, "width": 0.12}
    wide = {"half_width": 0.18, "gap": 0.27, "width": 0.145}

    faces = [
        (0, Face([octagon, octagon + 0.06, word], [WHITE, RED, WHITE])),
        (1, Face([down, down + 0.035, down + 0.23], [WHITE, RED, WHITE], plate=2)),
        (2, Face([circle, circle + 0.05, bar], [WHITE, RED, WHITE])),
        (4, Face([diamond, diamond + 0.035, diamond + 0.24], [BLACK, WHITE, YELLOW], plate=2)),
        (5, Face([square, square + 0.05, _gable(p), _walker(p)], [WHITE, BLUE, WHITE, BLACK])),
        (6, Face([circle, circle + 0.05, union(shaft, head)], [WHITE, BLUE, WHITE])),
        (7, Face([up, up + 0.035, up + 0.21, mark], [WHITE, RED, WHITE, BLACK], plate=2)),
    ]
    ring = [circle, circle + 0.03, circle + 0.24]
    for text in LIMITS:
        number = text_distance(p, text, half_height=0.37, **(wide if len(text) == 2 else narrow))
        faces.append((3, Face([*ring, number], [WHITE, RED, WHITE, BLACK], plate=2)))
    return sorted(faces, key=lambda face: face[0])


def blanks(p: Tensor) -> list[Face]:
    """Plates in the signs' outlines and colours that are no signs: without a glyph, or in a wrong colour."""
    circle, octagon, square, diamond, up, down = _outlines(p)
    return [
        Face([circle, circle + 0.05], [WHITE, RED]),
        Face([circle, circle + 0.05], [WHITE, BLUE]),
        Face([circle, circle + 0.03, circle + 0.24], [WHITE, RED, WHITE]),
        Face([circle], [RED]),
        Face([circle], [YELLOW]),
        Face([octagon, octagon + 0.06], [WHITE, RED]),
        Face([octagon, octagon + 0.06], [WHITE, BLUE]),
        Face([octagon, octagon + 0.2], [RED, WHITE]),
        Face([square, square + 0.05], [WHITE, BLUE]),
        Face([square, square + 0.05, _gable(p)], [WHITE, BLUE, WHITE]),
        Face([square], [RED]),
        Face([square, square + 0.06], [BLACK, YELLOW]),
        Face([square, square + 0.06], [BLACK, WHITE]),
        Face([diamond], [YELLOW]),
        Face([diamond, diamond + 0.035, diamond + 0.2], [WHITE, RED, WHITE]),
        Face([diamond, diamond + 0.05], [WHITE, BLUE]),
        Face([up, up + 0.035, up + 0.21], [WHITE, RED, WHITE]),
        Face([up, up + 0.06], [BLACK, YELLOW]),
        Face([up], [BLUE]),
        Face([down], [RED]),
        Face([down, down + 0.06], [WHITE, BLUE]),
        Face([down, down + 0.06], [BLACK, YELLOW]),
    ]


def label(p: Tensor) -> Face:
    """A sticker; its paints are given where it is stuck on."""
    square = polygon(p, _box(0.85)) - 0.15
    return Face([square, square + 0.25], [WHITE, BLACK])


_TRIANGLE = [(0.0, -0.71), (0.87, 0.74), (-0.87, 0.74)]  # to be rounded off by 0.12


def _outlines(p: Tensor) -> list[Tensor]:
    """Disc, octagon, square, diamond, triangle, triangle on its tip."""
    return [
        disc(p, 1.0),
        polygon(p, regular(8, 1 / math.cos(math.pi / 8), 22.5)),
        polygon(p, _box(0.88)) - 0.12,
        polygon(p, regular(4, 0.93)) - 0.07,
        polygon(p, _TRIANGLE) - 0.12,
        polygon(p * p.new_tensor((1.0, -1.0)), _TRIANGLE) - 0.12,
    ]


def _box(half_width: float, half_height: float | None = None) -> list[tuple[float, float]]:
    w, h = half_width, half_width if half_height is None else half_height
    return [(-w, -h), (w, -h), (w, h), (-w, h)]


def _gable(p: Tensor) -> Tensor:
    return polygon(p, [(0.0, -0.78), (0.84, 0.68), (-0.84, 0.68)]) - 0.03


def _walker(p: Tensor) -> Tensor:
    """Someone on foot, walking to the left over a zebra crossing."""
    limbs = [
        stroke(p, [(0.03, -0.17), (0.03, 0.1)], 0.17),
        stroke(p, [(0.03, 0.12), (-0.07, 0.28), (-0.17, 0.47)], 0.09),
        stroke(p, [(0.04, 0.12), (0.13, 0.27), (0.19, 0.47)], 0.09),
        stroke(p, [(0.0, -0.18), (-0.11, -0.03), (-0.18, 0.07)], 0.06),
        stroke(p, [(0.06, -0.18), (0.14, -0.02), (0.2, 0.08)], 0.06),
    ]
    stripes = [
        polygon(p, [(x - 0.045, 0.52), (x + 0.045, 0.52), (x * 1.12 + 0.055, 0.63), (x * 1.12 - 0.055, 0.63)])
        for x in (-0.52, -0.31, -0.1, 0.1, 0.31, 0.52)
    ]
    return union(disc(p, 0.09, (0.02, -0.36)), *limbs, *stripes)
