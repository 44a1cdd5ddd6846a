"""All faces in one table of distances, looked up bilinearly: edges stay sharp at any size (Green 2007)."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.datamodules.drawing.faces import BLACK, CLASSES, blanks, label, signs

REACH = 1.25  # half width of the square that distances are tabulated in; a face's is 1
TEXELS = 128  # a side
LAYERS = 4  # of a face, at most


class Atlas(NamedTuple):
    """All faces in one table, so that any image of a batch may show any of them."""

    distances: Tensor  # [1, LAYERS, faces x TEXELS, TEXELS], float32; a missing layer is far away everywhere
    paints: Tensor  # [faces, LAYERS], int64
    outlines: Tensor  # [faces, 48, 2], float32, extreme points of the outline
    variants: list[Tensor]  # for each class, the faces it may wear
    blanks: Tensor  # the faces of blank plates
    label: int  # the face of a sticker
    plates: Tensor  # [faces], int64, the layer that is the plate, see `Face.plate`


@functools.cache
def atlas() -> Atlas:
    """The table of all faces, made once."""
    kinds = len(CLASSES)
    p = _grid()
    labelled = [*signs(p), *((kinds, face) for face in blanks(p)), (kinds + 1, label(p))]
    tables, paints, outlines, plates = [], [], [], []
    for _, face in labelled:
        missing = LAYERS - len(face.layers)
        tables.append(torch.stack([*face.layers, *[torch.full_like(face.layers[0], 9.0)] * missing]))
        paints.append([*face.paints, *[BLACK] * missing])
        outlines.append(_outline(face.layers[0]))
        plates.append(face.plate)
    owners = torch.tensor([owner for owner, _ in labelled])
    members = [torch.nonzero(owners == owner).flatten() for owner in range(kinds + 2)]
    return Atlas(
        # A look-up reads all layers of a place: they lie side by side.
        torch.cat(tables, dim=1)[None].contiguous(memory_format=torch.channels_last),
        torch.tensor(paints),
        torch.stack(outlines),
        members[:kinds],
        members[kinds],
        int(members[kinds + 1]),
        torch.tensor(plates),
    )


def _grid() -> Tensor:
    across = (torch.arange(TEXELS) + 0.5) * (2 * REACH / TEXELS) - REACH
    return torch.stack(torch.meshgrid(across, across, indexing="xy"), dim=-1)


def _outline(distance: Tensor) -> Tensor:
    """The points of the shape that lie farthest in each of 48 directions, [48, 2]."""
    angles = torch.arange(48) * (2 * math.pi / 48)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    texel = 2 * REACH / TEXELS
    near = distance.abs() < texel
    along_y, along_x = torch.gradient(distance, spacing=texel)
    slope = torch.stack([along_x, along_y], dim=-1)[near]
    points = _grid()[near] - distance[near][:, None] * slope  # texels along the edge, moved onto it
    return points[(points @ directions.T).argmax(dim=0)]
