"""The pole behind a sign, and a branch or a bar that occludes a part of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.datamodules.drawing.plates import Plates
from vitrine.datamodules.drawing.random_stream import RandomStream


class Pole(NamedTuple):
    """A pole from the middle of a sign down; tensors over images."""

    top: Tensor  # [n, 2], in the image
    slope: Tensor  # [n], how far it goes right, going down
    half_width: Tensor  # [n], in half widths of the image
    grey: Tensor  # [n]


class Obstacle(NamedTuple):
    """Leaves (a ragged disc) or a bar (a branch, a wire, another pole); tensors over images."""

    is_bar: Tensor  # bool [n]
    centre: Tensor  # [n, 2], in the image
    heading: Tensor  # [n, 2], along the bar
    reach: Tensor  # [n], radius or half width, in half widths of the image
    ragged: Tensor  # [n], by how much the noise moves the edge
    colours: Tensor  # [n, 2, 3], what it varies between


_GROWTH = torch.tensor(
    [[0.16, 0.30, 0.08], [0.30, 0.36, 0.12], [0.28, 0.20, 0.12], [0.35, 0.35, 0.36], [0.62, 0.44, 0.12]]
)


def pole(random: RandomStream, sign: Plates) -> Pole:
    """A pole for each sign, in proportion to its width."""
    least, greatest = sign.bounds()
    width = (greatest - least)[:, 0]
    slope, half_width = random.uniform(-0.08, 0.08), width * random.uniform(0.03, 0.05)
    return Pole(sign.centre, slope, half_width, grey=random.uniform(0.35, 0.7))


def obstacle(random: RandomStream, sign: Plates) -> Obstacle:
    """An obstacle for each sign, over its border rather than its middle: most of the sign stays visible."""
    least, greatest = sign.bounds()
    radius = (greatest - least).amin(1) / 2
    is_bar = random.bernoulli(0.5)
    aside = torch.where(is_bar, random.uniform(0.25, 0.8), random.uniform(0.85, 1.15))
    reach = torch.where(is_bar, random.uniform(0.06, 0.15), random.uniform(0.35, 0.65))
    way = random.unit_vector()
    heading = torch.stack([-way[:, 1], way[:, 0]], dim=1)  # a bar passes the middle at the distance `aside`
    base = _GROWTH[random.integers(len(_GROWTH))]
    centre = (least + greatest) / 2 + way * (aside * radius)[:, None]
    ragged = radius * torch.where(is_bar, random.uniform(0.0, 0.06), random.uniform(0.1, 0.35))
    darker, lighter = random.uniform(0.5, 0.9)[:, None], random.uniform(1.0, 1.5)[:, None]
    colours = torch.stack([base * darker, base * lighter], dim=1)
    return Obstacle(is_bar, centre, heading, reach * radius, ragged, colours)


def paint_pole(canvas: Tensor, poles: Pole, rows: Tensor, softness: Tensor, at: Tensor) -> None:
    """Paint poles onto some of the images ([n, channels, size, size]), in place; as for `plates.paint`."""
    opacity, aside = pole_opacity(poles, softness, at)
    # A round pole: lighter a little to the left of its middle.
    round_ = 1.15 - (aside + 0.4).clamp_(-1.5, 1.5).square_() * 0.35
    _blend(canvas, rows, opacity[:, None], (round_ * poles.grey[:, None, None])[:, None])


def pole_opacity(poles: Pole, softness: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each pixel a pole covers, and how far right of the pole's middle it is, in the pole's half
    widths: [m, size, size] each."""
    left, top = (poles.top[:, k, None] for k in (0, 1))
    middle = left + (at - top) * poles.slope[:, None]  # [m, size], by row
    half = poles.half_width[:, None, None]
    aside = (at - middle[:, :, None]) / half
    soft = softness[:, None, None]
    opacity = (0.5 - (aside.abs() - 1) * half / soft).clamp_(0, 1)
    opacity *= (0.5 + (at - top)[:, :, None] / soft).clamp_(0, 1)
    return opacity, aside


def paint_obstacle(
    canvas: Tensor,
    obstacles: Obstacle,
    rows: Tensor,
    softness: Tensor,
    texture: Tensor,
    at: Tensor,
    uncover: int,
) -> None:
    """Paint obstacles onto some of the images, in place; as for `plates.paint`.

    Args:
        texture: [n, size, size], noise that makes edges ragged and leaves differ.
        uncover: the channel that is drawn towards 0 where the obstacle covers.
    """
    texture = texture[rows]
    opacity = obstacle_opacity(obstacles, softness, texture, at)
    first, second = obstacles.colours[:, :, :, None, None].unbind(1)
    colours = first + (texture * 0.9 + 0.5).clamp_(0, 1)[:, None] * (second - first)
    _blend(canvas, rows, opacity[:, None], colours)
    canvas[rows, uncover] = canvas[rows, uncover] * (1 - opacity)


def obstacle_opacity(obstacles: Obstacle, softness: Tensor, texture: Tensor, at: Tensor) -> Tensor:
    """How much of each pixel an obstacle covers: [m, size, size]; `texture` is of the same images."""
    x = (at - obstacles.centre[:, :1])[:, None]
    y = (at - obstacles.centre[:, 1:])[:, :, None]
    across = x * obstacles.heading[:, 1, None, None] - y * obstacles.heading[:, 0, None, None]
    is_bar = obstacles.is_bar[:, None, None]
    apart = torch.where(is_bar, across.abs(), (x * x + y * y).sqrt())
    distance = apart - obstacles.reach[:, None, None] + texture * obstacles.ragged[:, None, None]
    return (0.5 - distance / softness[:, None, None]).clamp_(0, 1)


def _blend(canvas: Tensor, rows: Tensor, opacity: Tensor, colours: Tensor) -> None:
    below = canvas[rows, :3]
    canvas[rows, :3] = below + opacity * (colours - below)
