"""The parts of a scene: left out or replaced by another class's with all else equal, and where they are."""

import torch
from torch import Tensor

from vitrine.core.random_numbers import make_key
from vitrine.datamodules.drawing.noise import fractal
from vitrine.datamodules.drawing.obstacles import obstacle_opacity, pole_opacity
from vitrine.datamodules.drawing.plates import Plates, opacities, select
from vitrine.datamodules.drawing.random_stream import RandomStream
from vitrine.datamodules.drawing.scene import Scene, random_sign, render
from vitrine.datamodules.drawing.sign_parts import SIGN_PARTS, AlteredSigns, other_labels, pieces
from vitrine.datamodules.drawing.stickers import COLOURS, sticker

PARTS = (*SIGN_PARTS, "pole", "distractors", "obstacle", "sticker")
CLASS_PARTS = (*SIGN_PARTS, "sticker")  # of which each class has its own
_SIGN, _POLE, _DISTRACTORS, _OBSTACLE, _STICKER = slice(0, 3), 3, 4, 5, 6
_LEAST_SHARE = 0.1  # of a pixel: what shows less of a part everywhere shows nothing of it


def without_parts(scene: Scene, size: int, left_out: Tensor) -> Tensor:
    """The images of the scenes without some of their parts, uint8 [n, 3, size, size].

    Args:
        left_out: bool [n, parts], in the order of PARTS.
    """
    kept = ~left_out

    def less(objects: tuple, part: int) -> tuple:
        return objects[0], objects[1] & kept[:, part]

    rows = torch.nonzero(left_out[:, _SIGN].any(1)).flatten()
    altered = AlteredSigns(rows, (None, None, None), kept[rows, _SIGN], left_out[rows, _SIGN])
    remaining = scene._replace(
        blanks=tuple(less(blank, _DISTRACTORS) for blank in scene.blanks),
        pole=less(scene.pole, _POLE),
        obstacle=less(scene.obstacle, _OBSTACLE),
        sticker=less(scene.sticker, _STICKER),
    )
    return render(remaining, size, altered).images


def with_other_parts(
    scene: Scene,
    size: int,
    seed: int,
    indices: Tensor,
    labels: Tensor,
    replaced: Tensor,
    contrast: float = 1.0,
) -> Tensor:
    """The images of the scenes with some of their parts replaced by another class's, each in the place, light
    and fading of the one that it replaces: uint8 [n, 3, size, size].

    Which class is a function of seed and index. A glyph is replaced where there is one.

    Args:
        seed, indices, labels, contrast: those of `compose`.
        replaced: bool [n, parts], in the order of PARTS; False in all that no class has of its own.
    """
    random = RandomStream(make_key(seed, 6), indices)
    others = other_labels(labels, random.uniform(0, 1))
    shift = 1 + random.integers(len(COLOURS) - 1)
    rows = torch.nonzero(replaced[:, _SIGN].any(1)).flatten()
    own, wanted = select(scene.sign[0], rows), replaced[rows, _SIGN] & (others != labels[:, None])[rows]
    faces: list[Plates | None] = [None] * len(SIGN_PARTS)
    for part in range(len(SIGN_PARTS)):
        if not wanted[:, part].any():
            continue
        chosen = torch.where(wanted[:, part], others[rows, part], labels[rows])
        face = random_sign(RandomStream(make_key(seed, 0), indices[rows]), chosen, contrast)
        faces[part] = own._replace(face=face.face, paints=face.paints)
    altered = AlteredSigns(rows, (faces[0], faces[1], faces[2]), torch.ones_like(wanted), wanted)
    sticker_labels = torch.where(replaced[:, _STICKER], (labels + shift) % len(COLOURS), labels)
    stickers = sticker(RandomStream(make_key(seed, 4), indices), sticker_labels, scene.sign[0])
    return render(scene._replace(sticker=(stickers, scene.sticker[1])), size, altered).images


def part_masks(scene: Scene, size: int) -> Tensor:
    """The pixels that show each part: bool [n, parts, size, size], in the order of PARTS.

    A pixel shows a part if the part covers it at least half as much as the pixel that it covers most: thus
    thin borders, which cover no pixel by half, have pixels, too.
    """
    shares = _shares(scene, size)
    most = shares.amax((2, 3), keepdim=True)
    return (shares >= most / 2) & (shares >= _LEAST_SHARE)


def _shares(scene: Scene, size: int) -> Tensor:
    """How much of each pixel shows each part, [n, parts, size, size]."""
    at = (2 * torch.arange(size) + 1).float() / size - 1
    count = len(scene.seeds)
    shares = torch.zeros(count, len(PARTS), size, size)
    texture = fractal(scene.ground.seeds[:, 0], size, scene.ground.fall)  # the light of the background
    softness = scene.light.blur.clamp(min=2 / size)

    def cover(part: int | slice, present: Tensor, opacity: Tensor) -> None:
        opacity = opacity * present[:, None, None] if opacity.ndim == 3 else opacity
        total = opacity if opacity.ndim == 3 else opacity.sum(1)
        shares.mul_(1 - total[:, None])
        shares[:, part] += opacity

    def outline(plates: Plates) -> Tensor:
        return opacities(plates, softness, at, at)[:, 0]

    for blank, present in scene.blanks:
        cover(_DISTRACTORS, present, outline(blank))
    cover(_POLE, scene.pole[1], pole_opacity(scene.pole[0], softness, at)[0])
    cover(_SIGN, scene.sign[1], pieces(scene.sign[0], softness, at).shares)
    cover(_OBSTACLE, scene.obstacle[1], obstacle_opacity(scene.obstacle[0], softness, texture, at))
    cover(_STICKER, scene.sticker[1], outline(scene.sticker[0]))
    return shares
