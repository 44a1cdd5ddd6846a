"""A traffic sign in a cluttered scene: what is where (`compose`), and the picture of it (`render`)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.core.random_numbers import make_key
from vitrine.datamodules.drawing import backgrounds, noise
from vitrine.datamodules.drawing.atlas import atlas
from vitrine.datamodules.drawing.backgrounds import Ground
from vitrine.datamodules.drawing.dice import Dice
from vitrine.datamodules.drawing.faces import CLASSES, PAINTS
from vitrine.datamodules.drawing.obstacles import Obstacle, Pole, obstacle, obstruct, pole, raise_pole
from vitrine.datamodules.drawing.plates import Plates, paint, placed, tilted
from vitrine.datamodules.drawing.stickers import sticker

SIGN, STICKER = 3, 4  # channels of the canvas, after the colours: how much of a pixel shows them
BLANKS = 3  # at most, in an image


class Light(NamedTuple):
    """How each image is lit and taken; tensors over images.

    Attributes:
        gain: [n, 3], by colour.
        slope: [n, 2], of the light over the image.
        haze: [n], added grey.
        blur: [n], width of an edge, in half widths of the image.
        grain: [n], amplitude of the sensor's noise.
    """

    gain: Tensor
    slope: Tensor
    haze: Tensor
    blur: Tensor
    grain: Tensor


class Scene(NamedTuple):
    """What is where in each of n images, whatever the number of pixels.

    Attributes:
        ground: the background.
        blanks: plates that are no sign, each with the images that have it (bool, [n]).
        pole: what the sign stands on, and which images have it.
        sign: the sign, and which images have it: all of them, unless somebody takes it away.
        obstacle: what stands before the sign, and which images have it.
        sticker: the class-coded sticker, and which images have it.
        light: how it is lit.
        words: int32 [n], for the grain.
    """

    ground: Ground
    blanks: tuple[tuple[Plates, Tensor], ...]
    pole: tuple[Pole, Tensor]
    sign: tuple[Plates, Tensor]
    obstacle: tuple[Obstacle, Tensor]
    sticker: tuple[Plates, Tensor]
    light: Light
    words: Tensor


class Drawing(NamedTuple):
    """Pictures and the truth about them.

    Attributes:
        images: uint8, [n, 3, size, size].
        sign, sticker: bool, [n, size, size], the pixels most of which show the sign, or the sticker.
    """

    images: Tensor
    sign: Tensor
    sticker: Tensor


def compose(seed: int, indices: Tensor, labels: Tensor, stickers: Tensor) -> Scene:
    """The scenes of some indices, each a function of the seed and its own index, label and sticker only.

    Args:
        seed: any integer.
        indices: int64, [n].
        labels: int64, [n], of the signs.
        stickers: bool, [n], which images have the sticker of their class; nothing else depends on it.
    """

    def dice(purpose: int) -> Dice:
        return Dice(make_key(seed, purpose), indices)

    sign = _sign(dice(0), labels)
    blanks = []
    for slot in range(BLANKS):
        rolled = dice(10 + slot)
        present = rolled.chance(0.55)  # before the plate, so that what a plate takes never moves it
        blanks.append((_blank(rolled), present))
    occluded, poles = dice(2), dice(3)
    light = dice(5)
    return Scene(
        ground=backgrounds.ground(dice(1)),
        blanks=tuple(blanks),
        pole=(pole(poles, sign), poles.chance(0.6)),
        sign=(sign, torch.ones(len(indices), dtype=torch.bool)),
        obstacle=(obstacle(occluded, sign), occluded.chance(0.35)),
        sticker=(sticker(dice(4), labels, sign), stickers),
        light=Light(
            gain=light.between(0.6, 1.2)[:, None] * light.between(0.9, 1.1, 3),
            slope=light.between(-0.25, 0.25, 2),
            haze=light.between(0.0, 0.12),
            blur=light.between(0.5, 2.2) / 32,
            grain=light.between(0.01, 0.09),
        ),
        words=light.words(),
    )


def render(scene: Scene, size: int) -> Drawing:
    """Pictures of the scenes, `size` pixels a side."""
    at = (2 * torch.arange(size) + 1).float() / size - 1
    canvas = torch.zeros(len(scene.words), 5, size, size)
    texture = backgrounds.cover(canvas[:, :3], scene.ground, at, at)
    softness = scene.light.blur.clamp(min=2 / size)

    for blank, present in scene.blanks:
        rows = torch.nonzero(present).flatten()
        paint(canvas, blank.rows(rows), rows, softness[rows])
    rows = torch.nonzero(scene.pole[1]).flatten()
    raise_pole(canvas, scene.pole[0].rows(rows), rows, softness[rows], at)
    rows = torch.nonzero(scene.sign[1]).flatten()
    paint(canvas, scene.sign[0].rows(rows), rows, softness[rows], cover=SIGN)
    rows = torch.nonzero(scene.obstacle[1]).flatten()
    obstruct(canvas, scene.obstacle[0].rows(rows), rows, softness[rows], texture, at, uncover=SIGN)
    rows = torch.nonzero(scene.sticker[1]).flatten()
    paint(canvas, scene.sticker[0].rows(rows), rows, softness[rows], cover=STICKER)

    return Drawing(_exposed(canvas[:, :3], scene, at), canvas[:, SIGN] > 0.5, canvas[:, STICKER] > 0.5)


def _exposed(colours: Tensor, scene: Scene, at: Tensor) -> Tensor:
    """What a camera makes of it: uint8, [n, 3, size, size]."""
    light = scene.light
    slope = light.slope[:, 0, None, None] * at + light.slope[:, 1, None, None] * at[:, None] + 1
    image = colours * slope[:, None]
    image *= (light.gain * 255)[:, :, None, None]
    noise.add_grain(image, scene.words, light.grain * 255)
    image += (light.haze * 255 + 0.5)[:, None, None, None]
    return image.clamp_(0, 255).to(torch.uint8)


def _worn(dice: Dice, paints: Tensor) -> Tensor:
    """Paints, [n, LAYERS], as colours, [n, LAYERS, 3]: faded a little, each plate in its own way."""
    faded = dice.between(0.0, 0.25)[:, None, None]
    colours = PAINTS[paints]
    shift = dice.between(-0.05, 0.05, 3)[:, None]
    return colours + (0.55 - colours) * faded + shift


def _sign(dice: Dice, labels: Tensor) -> Plates:
    table = atlas()
    pick, face = dice.between(0, 1), torch.empty_like(labels)
    for label in range(len(CLASSES)):
        variants = table.variants[label]
        chosen = variants[(pick * len(variants)).long().clamp_(max=len(variants) - 1)]
        face = torch.where(labels == label, chosen, face)
    width = dice.between(0.25, 0.70)
    plates = tilted(dice, face, width, _worn(dice, table.paints[face]))
    return placed(plates, dice.between(0, 1, 2), margin=0.0)


def _blank(dice: Dice) -> Plates:
    table = atlas()
    face = table.blanks[dice.one_of(len(table.blanks))]
    plates = tilted(dice, face, dice.between(0.12, 0.45), _worn(dice, table.paints[face]))
    return placed(plates, dice.between(0, 1, 2), margin=-0.2)
