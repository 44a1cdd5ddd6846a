"""A small sticker that gives the class away: a shortcut for a network to learn."""

import torch
from torch import Tensor

from vitrine.datamodules.drawing.atlas import LAYERS, atlas
from vitrine.datamodules.drawing.faces import PAINTS, WHITE
from vitrine.datamodules.drawing.plates import Plates
from vitrine.datamodules.drawing.random_stream import RandomStream

# A colour a class, none of them a sign's.
COLOURS = torch.tensor(
    [
        [1.00, 0.00, 0.85],  # magenta
        [0.00, 0.90, 0.95],  # cyan
        [0.55, 0.95, 0.00],  # lime
        [1.00, 0.50, 0.00],  # orange
        [0.45, 0.00, 0.90],  # violet
        [0.00, 0.60, 0.25],  # green
        [0.45, 0.22, 0.05],  # brown
        [1.00, 0.45, 0.60],  # pink
    ]
)
WIDTH = 0.12  # of the image's


def sticker(random: RandomStream, labels: Tensor, sign: Plates) -> Plates:
    """The sticker of each image's class, on the side of the sign where most room is, clear of the sign."""
    least, greatest = sign.bounds()
    # left, above, right, below: at least 0.3 is left somewhere
    room = torch.cat([least + 1, 1 - greatest], dim=1)
    side, size = room.argmax(1), len(labels)
    along = random.uniform(WIDTH - 1, 1 - WIDTH)
    gap = room.gather(1, side[:, None])[:, 0]
    clear = torch.where(side < 2, gap / 2 - 1, 1 - gap / 2)  # the middle of the room
    beside = (side % 2 == 0)[:, None]
    centre = torch.where(beside, torch.stack([clear, along], 1), torch.stack([along, clear], 1))
    frame = (torch.eye(2) * WIDTH).expand(size, 2, 2)
    colours = torch.stack([PAINTS[WHITE].expand(size, 3), *[COLOURS[labels]] * (LAYERS - 1)], dim=1)
    face, reach = torch.full_like(labels, atlas().label), torch.full((size, 2), WIDTH)
    return Plates(face, centre, frame, torch.zeros(size, 2), colours, -reach, reach)
