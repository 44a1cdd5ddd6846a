"""The parts of a sign, border, plate and glyph: painted without some of them, or with another class's."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.datamodules.drawing.atlas import Atlas, atlas
from vitrine.datamodules.drawing.faces import CLASSES
from vitrine.datamodules.drawing.plates import Plates, opacities, select

SIGN_PARTS = ("border", "plate", "glyph")
BORDER, PLATE, GLYPH = range(3)


class AlteredSigns(NamedTuple):
    """Signs of m images that are painted in parts."""

    rows: Tensor  # int64 [m], which images
    faces: tuple[Plates | None, Plates | None, Plates | None]  # whose border, plate, glyph; None: its own
    painted: Tensor  # bool [m, 3], whether the part is painted
    altered: Tensor  # bool [m, 3], whether the part is another than the sign's own, or none


class Pieces(NamedTuple):
    """What the parts of a face cover, of m images: opacities [m, h, w]."""

    border: Tensor
    border_colour: Tensor  # [m, 3, h, w], as it has two layers in some faces
    plate: Tensor
    plate_colour: Tensor  # [m, 3, 1, 1]
    glyph: Tensor  # [m, 2, h, w], of its two layers, one above the other
    glyph_colours: Tensor  # [m, 2, 3, 1, 1]

    @property
    def shares(self) -> Tensor:
        """How much of each pixel shows each part, [m, 3, h, w]."""
        under = (1 - self.glyph).prod(1)
        return torch.stack([self.border * under, self.plate * under, 1 - under], 1)


def pieces(faces: Plates, softness: Tensor, at: Tensor) -> Pieces:
    """The parts of faces, as `plates.paint` paints them: the border around the plate, the glyph on it.

    Args:
        softness: [m], width of a blurred edge, in half widths of the image.
        at: [size], the centres of an image's rows and columns.
    """
    layers = opacities(faces, softness, at, at)
    single = (atlas().plates[faces.face] == 1)[:, None, None]  # the border has one layer, not two
    plate = torch.where(single, layers[:, 1], layers[:, 2])
    colours = faces.paints[:, :, :, None, None]
    inner = torch.where(single, 0.0, layers[:, 1])[:, None]
    return Pieces(
        border=layers[:, 0] * (1 - plate),
        border_colour=colours[:, 0] + inner * (colours[:, 1] - colours[:, 0]),
        plate=plate,
        plate_colour=torch.where(single[:, None], colours[:, 1], colours[:, 2]),
        glyph=torch.stack([torch.where(single, layers[:, 2], 0.0), layers[:, 3]], 1),
        glyph_colours=colours[:, 2:],
    )


def repaint(
    canvas: Tensor, below: Tensor, signs: Plates, altered: AlteredSigns, softness: Tensor, at: Tensor
) -> None:
    """Paint signs that are painted already once more, in parts, in place.

    What shows nothing of an altered part, before or after, keeps its bits. What a part leaves free shows what
    is behind the sign. A border of another class goes around the outside of what it has in common with the
    plate, over it.

    Args:
        canvas: float32, [n, channels, size, size], the first three of which are colours.
        below: [n, 3, size, size], the colours before the signs were painted.
        signs, softness: of all n images.
    """
    rows = altered.rows
    softness = softness[rows]
    own = pieces(select(signs, rows), softness, at)
    border, plate, glyph = (own if faces is None else pieces(faces, softness, at) for faces in altered.faces)
    painted = altered.painted.float()[:, :, None, None].unbind(1)
    drawn = Pieces(
        border.border * painted[BORDER],
        border.border_colour,
        plate.plate * painted[PLATE],
        plate.plate_colour,
        glyph.glyph * painted[GLYPH][:, None],
        glyph.glyph_colours,
    )
    colours = below[rows]
    colours += (drawn.plate_colour - colours) * drawn.plate[:, None]
    colours += (drawn.border_colour - colours) * drawn.border[:, None]
    for layer in (0, 1):
        colours += (drawn.glyph_colours[:, layer] - colours) * drawn.glyph[:, layer, None]
    differs = ((own.shares > 0) | (drawn.shares > 0)) & altered.altered[:, :, None, None]
    canvas[rows, :3] = torch.where(differs.any(1)[:, None], colours, canvas[rows, :3])


def other_labels(labels: Tensor, chance: Tensor) -> Tensor:
    """Of each sign and part another class that has such a part; the sign's own where none has: int64 [n, 3].

    Args:
        labels: int64 [n].
        chance: [n] in [0, 1), which of the classes that there are.
    """
    allowed = _exchangeable()[:, labels].transpose(0, 1)  # [n, 3, classes]
    place = (chance[:, None] * allowed.sum(2)).long()
    chosen = ((allowed.cumsum(2) == place[:, :, None] + 1) & allowed).int().argmax(2)
    return torch.where(allowed.any(2), chosen, labels[:, None])


@functools.cache
def _exchangeable() -> Tensor:
    """By which class's part that of a class can be replaced, so that one sees it: bool [3, classes, classes].

    Borders differ in form or colour. A plate differs in colour from the one that it replaces and from the
    glyph on it, a glyph from the plate.
    """
    table, count = atlas(), len(CLASSES)
    faces = [int(variants[0]) for variants in table.variants]
    plate = [int(table.paints[face, table.plates[face]]) for face in faces]
    glyph = [_glyph_paint(table, face) for face in faces]
    allowed = torch.zeros(3, count, count, dtype=torch.bool)
    for a in range(count):
        for b in range(count):
            allowed[BORDER, a, b] = not _same_border(table, faces[a], faces[b])
            allowed[PLATE, a, b] = plate[a] != plate[b] != glyph[a]
            allowed[GLYPH, a, b] = a != b and None not in (glyph[a], glyph[b]) and plate[a] != glyph[b]
    return allowed


def _glyph_paint(table: Atlas, face: int) -> int | None:
    """The outermost paint of a face's glyph; None where there is no glyph."""
    first = int(table.plates[face]) + 1
    if first >= table.paints.shape[1] or (_distances(table, face, first) > 0).all():
        return None
    return int(table.paints[face, first])


def _same_border(table: Atlas, a: int, b: int) -> bool:
    depth = int(table.plates[a])
    return (
        depth == int(table.plates[b])
        and torch.equal(table.paints[a, :depth], table.paints[b, :depth])
        and all(torch.equal(_distances(table, a, k), _distances(table, b, k)) for k in range(depth + 1))
    )


def _distances(table: Atlas, face: int, layer: int) -> Tensor:
    return table.distances[0, layer].unflatten(0, (len(table.paints), -1))[face]
