"""A traffic sign in a cluttered scene: its random composition (`compose`), and its image (`render`)."""

from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.core.random_numbers import make_key
from vitrine.datamodules.drawing import backgrounds, noise
from vitrine.datamodules.drawing.atlas import atlas
from vitrine.datamodules.drawing.backgrounds import Ground
from vitrine.datamodules.drawing.faces import PAINTS
from vitrine.datamodules.drawing.obstacles import Obstacle, Pole, obstacle, paint_obstacle, paint_pole, pole
from vitrine.datamodules.drawing.plates import Fields, Plates, paint, place, random_plates, select
from vitrine.datamodules.drawing.random_stream import RandomStream
from vitrine.datamodules.drawing.sign_parts import AlteredSigns, repaint
from vitrine.datamodules.drawing.stickers import sticker

SIGN, STICKER = 3, 4  # channels of the canvas, after the colours: how much of a pixel shows them
BLANKS = 3  # at most, in an image
_GRAY = 0.55  # that paints fade to


class Light(NamedTuple):
    """Illumination and camera of each image; tensors over images."""

    gain: Tensor  # [n, 3], by colour
    slope: Tensor  # [n, 2], of the light over the image
    haze: Tensor  # [n], added grey
    blur: Tensor  # [n], width of an edge, in half widths of the image
    grain: Tensor  # [n], amplitude of the sensor's noise


class Scene(NamedTuple):
    """The composition of each of n images, independent of the image size.

    With each object come the images that have it, bool [n].
    """

    ground: Ground
    blanks: tuple[tuple[Plates, Tensor], ...]  # that are no sign
    pole: tuple[Pole, Tensor]  # what the sign stands on
    sign: tuple[Plates, Tensor]  # `compose` gives it to all
    obstacle: tuple[Obstacle, Tensor]  # what stands before the sign
    sticker: tuple[Plates, Tensor]  # of the class
    light: Light
    seeds: Tensor  # int32 [n], for the grain


class Drawing(NamedTuple):
    """Images and their ground truth."""

    images: Tensor  # uint8, [n, 3, size, size]
    sign: Tensor  # bool, [n, size, size], the pixels more than half covered by the sign
    sticker: Tensor  # the same of the sticker


def compose(seed: int, indices: Tensor, labels: Tensor, stickers: Tensor, contrast: float = 1.0) -> Scene:
    """The scenes at some indices, each a function of the seed and its own index, label and sticker only.

    Args:
        indices, labels: int64, [n].
        stickers: bool, [n], which images have the sticker of their class; nothing else depends on it.
        contrast: of the signs' colours; 1: as they are, 0: gray.
    """

    def stream(purpose: int) -> RandomStream:
        return RandomStream(make_key(seed, purpose), indices)

    sign = random_sign(stream(0), labels, contrast)
    plates = [stream(10 + slot) for slot in range(BLANKS)]
    present = [plate.bernoulli(0.55) for plate in plates]  # before a plate, whose numbers may grow in count
    occluded, poles, light = stream(2), stream(3), stream(5)
    return Scene(
        ground=backgrounds.ground(stream(1)),
        blanks=tuple(zip(map(_blank, plates), present)),
        pole=(pole(poles, sign), poles.bernoulli(0.6)),
        sign=(sign, torch.ones(len(indices), dtype=torch.bool)),
        obstacle=(obstacle(occluded, sign), occluded.bernoulli(0.35)),
        sticker=(sticker(stream(4), labels, sign), stickers),
        light=Light(
            gain=light.uniform(0.6, 1.2)[:, None] * light.uniform(0.9, 1.1, 3),
            slope=light.uniform(-0.25, 0.25, 2),
            haze=light.uniform(0.0, 0.12),
            blur=light.uniform(0.5, 2.2) / 32,
            grain=light.uniform(0.01, 0.09),
        ),
        seeds=light.bits(),
    )


def render(scene: Scene, size: int, altered: AlteredSigns | None = None) -> Drawing:
    """Images of the scenes, `size` pixels a side; of `altered` signs the images alone, not the masks."""
    at = (2 * torch.arange(size) + 1).float() / size - 1
    canvas = torch.zeros(len(scene.seeds), 5, size, size)
    texture = backgrounds.paint_background(canvas[:, :3], scene.ground, at, at)
    softness = scene.light.blur.clamp(min=2 / size)

    def where_present(objects: Fields, present: Tensor) -> tuple[Fields, Tensor, Tensor]:
        """The objects of the images that have them, these images, and their softness."""
        rows = torch.nonzero(present).flatten()
        return select(objects, rows), rows, softness[rows]

    for blank in scene.blanks:
        paint(canvas, *where_present(*blank))
    paint_pole(canvas, *where_present(*scene.pole), at)
    below = canvas[:, :3].clone() if altered is not None else canvas[:, :3]
    paint(canvas, *where_present(*scene.sign), cover=SIGN)
    if altered is not None:
        repaint(canvas, below, scene.sign[0], altered, softness, at)
    paint_obstacle(canvas, *where_present(*scene.obstacle), texture, at, uncover=SIGN)
    paint(canvas, *where_present(*scene.sticker), cover=STICKER)
    return Drawing(_apply_light(canvas[:, :3], scene, at), canvas[:, SIGN] > 0.5, canvas[:, STICKER] > 0.5)


def _apply_light(colours: Tensor, scene: Scene, at: Tensor) -> Tensor:
    """The colours under each image's light, haze and grain: uint8, [n, 3, size, size]."""
    light = scene.light
    slope = light.slope[:, 0, None, None] * at + light.slope[:, 1, None, None] * at[:, None] + 1
    image = colours * slope[:, None]
    image *= (light.gain * 255)[:, :, None, None]
    noise.add_grain(image, scene.seeds, light.grain * 255)
    image += (light.haze * 255 + 0.5)[:, None, None, None]
    return image.clamp_(0, 255).to(torch.uint8)


def _fade(random: RandomStream, paints: Tensor) -> Tensor:
    """Paints, [n, LAYERS], as randomly faded colours, [n, LAYERS, 3]."""
    faded, colours = random.uniform(0.0, 0.25)[:, None, None], PAINTS[paints]
    return colours + (_GRAY - colours) * faded + random.uniform(-0.05, 0.05, 3)[:, None]


def random_sign(random: RandomStream, labels: Tensor, contrast: float = 1.0) -> Plates:
    """A sign of each class, its place, tilt, size and fading drawn at random; contrast as for `compose`."""
    table = atlas()
    pick, face = random.uniform(0, 1), torch.empty_like(labels)
    for label, variants in enumerate(table.variants):
        chosen = variants[(pick * len(variants)).long().clamp_(max=len(variants) - 1)]
        face = torch.where(labels == label, chosen, face)
    plates = _placed_plates(random, face, (0.25, 0.70), margin=0.0)
    return plates if contrast == 1 else plates._replace(paints=_GRAY + (plates.paints - _GRAY) * contrast)


def _blank(random: RandomStream) -> Plates:
    blanks = atlas().blanks
    return _placed_plates(random, blanks[random.integers(len(blanks))], (0.12, 0.45), margin=-0.2)


def _placed_plates(random: RandomStream, face: Tensor, widths: tuple[float, float], margin: float) -> Plates:
    plates = random_plates(random, face, random.uniform(*widths), _fade(random, atlas().paints[face]))
    return place(plates, random.uniform(0, 1, 2), margin)
