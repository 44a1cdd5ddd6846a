"""Flat plates in space: their position in the image, and painting them with anti-aliased edges."""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from vitrine.datamodules.drawing.atlas import LAYERS, REACH, atlas
from vitrine.datamodules.drawing.random_stream import RandomStream, rotation

Fields = TypeVar("Fields", bound=tuple[Tensor, ...])


def select(fields: Fields, rows: Tensor) -> Fields:
    """The same named tuple for some of its images."""
    return type(fields)(*(field[rows] for field in fields))


class Plates(NamedTuple):
    """A plate for each image; image coordinates are -1 to 1, right and down."""

    face: Tensor  # int64 [n], which of the atlas
    centre: Tensor  # [n, 2], of the face, in the image
    frame: Tensor  # [n, 2, 2], from the face's plane (half width 1) to the image
    lean: Tensor  # [n, 2], perspective: how much nearer the plate comes, to its right and its bottom
    paints: Tensor  # [n, LAYERS, 3], colours
    least: Tensor  # [n, 2], how far the plate reaches from its centre, in the image, left and up
    greatest: Tensor  # [n, 2], and right and down

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The least and the greatest coordinates of the plates in the image: [n, 2] each."""
        return self.centre + self.least, self.centre + self.greatest


def random_plates(random: RandomStream, face: Tensor, width: Tensor, paints: Tensor) -> Plates:
    """Plates around the origin, randomly rotated, sheared and seen in perspective.

    Args:
        face: int64 [n].
        width: [n], in the image, as a fraction of the image's.
        paints: [n, LAYERS, 3].
    """
    cosine, sine = rotation(random.uniform(-0.13, 0.13)).unbind(-1)  # up to 15 degrees
    shear, squash = random.uniform(-0.12, 0.12), random.uniform(0.78, 1.12)
    # Rotation after shear after squeezing the width, as when walking past the plate.
    entries = [cosine * squash, cosine * shear - sine, sine * squash, sine * shear + cosine]
    frame = torch.stack(entries, dim=-1).view(-1, 2, 2)
    lean = random.uniform(-0.14, 0.14, 2)
    outline = atlas().outlines[face]
    near = 1 - outline[..., 0] * lean[:, :1] - outline[..., 1] * lean[:, 1:]
    outline = outline / near[..., None]
    outline = outline[..., :1] * frame[:, None, :, 0] + outline[..., 1:] * frame[:, None, :, 1]
    least, greatest = outline.amin(1), outline.amax(1)
    scale = (2 * width / (greatest - least)[:, 0])[:, None]
    nowhere = torch.zeros(len(face), 2)
    return Plates(face, nowhere, frame * scale[:, None], lean, paints, least * scale, greatest * scale)


def place(plates: Plates, where: Tensor, margin: float) -> Plates:
    """The plates moved to `where` ([n, 2], 0 to 1) in the room that the image has for them.

    Args:
        margin: of the image's half width, kept free at the border; negative lets plates stick out.
    """
    least, greatest = plates.bounds()
    low, high = margin - 1 - least, 1 - margin - greatest
    return plates._replace(centre=plates.centre + low + (high - low) * where)


def paint(canvas: Tensor, plates: Plates, rows: Tensor, softness: Tensor, cover: int | None = None) -> None:
    """Paint a plate onto some of the images, in place.

    Args:
        canvas: float32, [n, channels, size, size], the first three of which are colours.
        plates: of m images.
        rows: int64, [m], which images they go onto.
        softness: [m], width of a blurred edge, in half widths of the image.
        cover: the channel that is to be drawn towards 1 where the plate covers; None for none.
    """
    size = canvas.shape[-1]
    least, greatest = plates.bounds()
    # Only a window around each plate is worked on; plates with windows of one size go together.
    margin = softness[:, None] / 2 + (greatest - least) * 0.02
    least = ((least - margin + 1) * (size / 2)).floor().long()
    greatest = ((greatest + margin + 1) * (size / 2)).ceil().long()
    step = max(size // 16, 1)
    side = (((greatest - least).amax(1) + step - 1) // step * step).clamp(max=size)
    corner = least.clamp(min=0).minimum((size - side)[:, None])
    for pixels in side.unique().tolist():
        these = torch.nonzero(side == pixels).flatten()
        span = torch.arange(pixels)
        xs, ys = corner[these, :1] + span, corner[these, 1:] + span  # [m, pixels]
        x, y = ((2 * pixels + 1).float() / size - 1 for pixels in (xs, ys))  # their centres
        opacity = opacities(select(plates, these), softness[these], x, y)
        colours = plates.paints[these, :, :, None, None]
        face = opacity[:, 1:2] * (colours[:, 1] - colours[:, 0])
        face += colours[:, 0]
        for layer in range(2, LAYERS):
            face += (colours[:, layer] - face).mul_(opacity[:, layer : layer + 1])
        windows = canvas.unfold(2, pixels, 1).unfold(3, pixels, 1)  # every window there is, as a view
        left, top = corner[these].unbind(1)
        below = windows[rows[these], :3, top, left]
        windows[rows[these], :3, top, left] = face.sub_(below).mul_(opacity[:, :1]).add_(below)
        if cover is not None:
            below = windows[rows[these], cover, top, left]
            windows[rows[these], cover, top, left] = (1 - below).mul_(opacity[:, 0]).add_(below)


def opacities(plates: Plates, softness: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """How much of each pixel each layer of a plate covers: [m, LAYERS, h, w].

    Args:
        plates, softness: of m images, as in `paint`.
        x, y: [m, w] and [m, h], or [w] and [h]: the pixels' centres.
    """
    table = atlas()
    (a, b), (c, d) = (row.unbind(1) for row in plates.frame.unbind(1))
    area = a * d - b * c
    to_face = torch.stack([d, -b, -c, a], dim=1) / area[:, None]
    from_centre_x, from_centre_y = x - plates.centre[:, :1], y - plates.centre[:, 1:]
    u = (to_face[:, 0:1] * from_centre_x)[:, None] + (to_face[:, 1:2] * from_centre_y)[:, :, None]
    v = (to_face[:, 2:3] * from_centre_x)[:, None] + (to_face[:, 3:4] * from_centre_y)[:, :, None]
    near = u * plates.lean[:, 0, None, None]
    near += v * plates.lean[:, 1, None, None]
    near.add_(1).clamp_(min=0.3).mul_(REACH)
    # Into the table, no farther than the middles of its outer texels: beyond, another face begins.
    faces, texels = len(table.paints), table.distances.shape[-1]
    edge = 1 - 1 / texels
    places = torch.empty(*u.shape, 2)
    places[..., 0] = u.div_(near).clamp_(-edge, edge)
    shift = (2 * plates.face + 1 - faces)[:, None, None].float()
    places[..., 1] = v.div_(near).clamp_(-edge, edge).add_(shift).div_(faces)
    tables = table.distances.expand(len(u), -1, -1, -1)
    distances = functional.grid_sample(tables, places, padding_mode="border", align_corners=False)
    # An edge is never softer than what the table reaches beyond the plate.
    sharpness = (area.abs().sqrt() / softness).clamp_(min=0.55 / (REACH - 1))
    return distances.mul_(-sharpness[:, None, None, None]).add_(0.5).clamp_(0, 1)
