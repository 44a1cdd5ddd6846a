"""Random views of an object: pose, light, background, camera (Athalye 2018)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.core import settings
from vitrine.core.random_numbers import fold_in, uniform
from vitrine.core.settings import SettingError, setting


@dataclass(frozen=True)
class ViewDistribution:
    """What views are drawn from, uniformly; any rotation. The defaults are Athalye's (2018)."""

    nearest: float = setting(2.5, "smallest distance of the camera, in radii of the object", least=1.5)
    farthest: float = setting(3.0, "largest distance of the camera, in radii of the object", least=1.5)
    shift: float = setting(0.05, "largest shift across the view either way, in radii of the object", least=0)
    darkest: float = setting(0.1, "darkest background", least=0, most=1)
    brightest: float = setting(1.0, "brightest background", least=0, most=1)
    lighten: float = setting(0.15, "largest change of brightness either way, of [0, 1] pixels", least=0)
    least_light: float = setting(0.5, "smallest factor of brightness", above=0)
    most_light: float = setting(2.0, "largest factor of brightness", above=0)
    tint: float = setting(0.15, "largest change of each colour channel either way", least=0)
    least_channel: float = setting(0.7, "smallest factor of each colour channel", above=0)
    most_channel: float = setting(1.3, "largest factor of each colour channel", above=0)
    noise: float = setting(0.1, "largest standard deviation of the camera's noise", least=0)

    def __post_init__(self) -> None:
        settings.check(self)
        for low, high in (
            ("nearest", "farthest"),
            ("darkest", "brightest"),
            ("least_light", "most_light"),
            ("least_channel", "most_channel"),
        ):
            if getattr(self, low) > getattr(self, high):
                came = f"is {getattr(self, low)} and {high} {getattr(self, high)}"
                raise SettingError(low, f"{came}, expected at most that: did you swap them?")

    def without_colour(self) -> ViewDistribution:
        """The same poses and backgrounds, with a camera that changes neither light nor colours and has no
        noise: the simulation of Athalye's section 3.2, where the defaults are what he prints for."""
        same = {"lighten": 0.0, "least_light": 1.0, "most_light": 1.0, "tint": 0.0, "noise": 0.0}
        return dataclasses.replace(self, **same, least_channel=1.0, most_channel=1.0)


class Views(NamedTuple):
    """N views of an object: the arguments of a picture of it, a row each."""

    rotations: Tensor  # float64 [N, 3, 3]
    positions: Tensor  # float64 [N, 3], of the object before the camera
    lights: Tensor  # float64 [N, 3], unit vectors towards the light, as seen from the camera
    ambient: Tensor  # float64 [N], the share of light that comes from everywhere
    backgrounds: Tensor  # float64 [N, 3]
    gains: Tensor  # float64 [N, 3], of the colour channels
    offsets: Tensor  # float64 [N, 3], added to them
    noise: Tensor  # float64 [N], standard deviation
    keys: Tensor  # int64 [N], of the noise

    def __getitem__(self, rows: slice | Tensor) -> Views:  # type: ignore[override]
        return Views(*(field[rows] for field in tuple(self)))

    def repeat(self, count: int) -> Views:
        """These views, all of them `count` times."""
        return Views(*(field.repeat(count, *[1] * (field.ndim - 1)) for field in tuple(self)))


def draw_views(keys: Tensor, distribution: ViewDistribution) -> Views:
    """A view for each key, int64 [N]."""
    d = distribution
    numbers = uniform(keys, 22).double()
    columns = iter(numbers.unbind(1))

    def between(low: float, high: float, width: int = 1) -> Tensor:
        drawn = torch.stack([next(columns) for _ in range(width)], 1) * (high - low) + low
        return drawn if width > 1 else drawn[:, 0]

    rotations = _rotations(next(columns), next(columns), next(columns))
    distance = between(d.nearest, d.farthest)
    shift = between(-d.shift, d.shift, 2)
    cos, sin = _circle(next(columns))
    height = between(0.2, 1.0)  # of the light: from before the object, never from behind it
    flat = (1 - height * height).sqrt()
    ambient = between(0.35, 0.65)
    backgrounds = between(d.darkest, d.brightest, 3)
    light, lighten = between(d.least_light, d.most_light), between(-d.lighten, d.lighten)
    gains = between(d.least_channel, d.most_channel, 3) * light[:, None]
    offsets = between(-d.tint, d.tint, 3) + lighten[:, None]
    noise = between(0, d.noise)
    return Views(
        rotations,
        torch.stack([shift[:, 0], shift[:, 1], -distance], 1),
        torch.stack([flat * cos, flat * sin, height], 1),
        ambient,
        backgrounds,
        gains,
        offsets,
        noise,
        fold_in(keys, 1),
    )


def turntable(count: int, tilt: float = 20.0, distance: float = 2.7) -> Views:
    """Views from all around at equal angles, from somewhat above (degrees), in even light before mid-grey."""
    cos, sin = _circle(torch.arange(count, dtype=torch.float64) / count)
    up, down = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turns = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], 1).view(-1, 3, 3)
    tilts = torch.tensor([[1, 0, 0], [0, up, -down], [0, down, up]], dtype=torch.float64)
    fixed = {
        "lights": (0.4, 0.5, 0.768),
        "backgrounds": (0.5, 0.5, 0.5),
        "gains": (1, 1, 1),
        "offsets": (0, 0, 0),
    }
    rows = {
        name: torch.tensor([value], dtype=torch.float64).expand(count, -1) for name, value in fixed.items()
    }
    positions = torch.stack([zero, zero, -distance * one], 1)
    return Views(tilts @ turns, positions, ambient=one / 2, noise=zero, keys=torch.arange(count), **rows)


def _rotations(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Uniform rotations [N, 3, 3] from uniform numbers in [0, 1), each [N] (Shoemake 1992)."""
    (c2, s2), (c3, s3) = _circle(second), _circle(third)
    low, high = (1 - first).sqrt(), first.sqrt()
    x, y, z, w = low * s2, low * c2, high * s3, high * c3
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)]
    rows += [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)]
    rows += [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, 1).view(-1, 3, 3)


def _circle(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of a number of whole turns. Rounded to float32: the last bits of a sine depend on where
    in a tensor it stands."""
    angle = turns * (2 * math.pi)
    return angle.cos().float().double(), angle.sin().float().double()
