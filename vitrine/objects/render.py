"""Pictures of a textured mesh, differentiable in the texture."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.core.random_numbers import uniform
from vitrine.objects.mesh import Mesh
from vitrine.objects.rasterize import Lookup, rasterize
from vitrine.objects.views import Views

Fields = TypeVar("Fields", Lookup, Views)
SAMPLES = 2  # points a pixel, along each side


def render(mesh: Mesh, textures: Tensor, views: Views, size: int, samples: int = SAMPLES) -> Tensor:
    """Pictures [N, 3, size, size] in [0, 1] of a mesh from N views.

    Args:
        textures: [1 or N, 3, T, T] in [0, 1], the upper row first: one for all views, or one each.
        samples: points a pixel along each side, of which it is the mean.
    """
    lookup = rasterize(mesh, views.rotations, views.positions, size * samples)
    return shade(lookup, textures, views, samples)


def shade(lookup: Lookup, textures: Tensor, views: Views, samples: int = SAMPLES) -> Tensor:
    """Pictures of what a z-buffer found: texture, Lambert's light, background, then the camera's gain, offset
    and noise; clipped to [0, 1].

    Args:
        lookup: of N views, `samples` times as many pixels a side as the pictures get.
        textures: [1 or N, 3, T, T].
    """
    textures = textures.expand(len(lookup.mask), -1, -1, -1)
    views, lookup = _like(textures, views), _like(textures, lookup)
    x, y, z = lookup.normals.unbind(-1)
    towards = [axis[:, None, None] for axis in views.lights.unbind(1)]
    lit = (x * towards[0] + y * towards[1] + z * towards[2]).clamp(min=0)
    ambient = views.ambient[:, None, None]
    light = (ambient + (1 - ambient) * lit)[:, None]
    colour = sample(textures, lookup.uvs, bool(lookup.repeats.any())) * light
    image = torch.where(lookup.mask[:, None], colour, views.backgrounds[:, :, None, None])
    image = _mean_of_samples(image, samples)
    image = image * views.gains[:, :, None, None] + views.offsets[:, :, None, None]
    if views.noise.any():  # numbers for every pixel, which take as long as all the rest
        noise = camera_noise(views.keys, image.shape[1:]).to(image.dtype)
        image = image + noise * views.noise[:, None, None, None]
    return image.clamp(0, 1)


def sample(textures: Tensor, uvs: Tensor, repeats: bool = False) -> Tensor:
    """The textures [N, 3, T, T] at UV coordinates [N, H, W, 2] in [0, 1], bilinear: [N, 3, H, W].

    Args:
        repeats: whether beyond a border is the opposite one, rather than the border's own texels.
    """
    u, v = uvs.unbind(-1)
    if repeats:
        rows, columns = textures.shape[-2:]
        textures = F.pad(textures, (1, 1, 1, 1), mode="circular")
        u, v = (u * columns + 1) / (columns + 2), (v * rows + 1) / (rows + 2)
    grid = torch.stack([2 * u - 1, 1 - 2 * v], -1)
    return F.grid_sample(textures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def camera_noise(keys: Tensor, shape: torch.Size) -> Tensor:
    """Noise of variance 1 for each key, [N, *shape]: four uniform numbers added up, nearly normal."""
    a, b, c, d = uniform(keys, 4, *shape).unbind(1)
    return (a + b + c + d - 2) * 3**0.5


def _mean_of_samples(images: Tensor, samples: int) -> Tensor:
    """The mean of each square of `samples` x `samples` pixels, summed in one order."""
    total = 0
    for row in range(samples):
        for column in range(samples):
            total = total + images[:, :, row::samples, column::samples]
    return total / samples**2


def _like(textures: Tensor, fields: Fields) -> Fields:
    """The tensors of a named tuple on the device of the textures, floating point ones in their type."""
    cast = (of.to(textures.dtype) if of.is_floating_point() else of for of in tuple(fields))
    return type(fields)(*(of.to(textures.device) for of in cast))
