"""Random differentiable transformations of images in [0, 1], one an image.

A transformation is called on images [N, C, H, W] and keys int64 [N] of its random numbers; an image's outcome
depends on its own key only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.attacks.threat import per_image
from vitrine.core import settings
from vitrine.core.random_numbers import uniform
from vitrine.core.settings import setting


@dataclass(frozen=True)
class Transformation:
    """Settings, which are checked; subclasses transform."""

    def __post_init__(self) -> None:
        settings.check(self)


@dataclass(frozen=True)
class Rotation(Transformation):
    """Rotation about the centre."""

    degrees: float = setting(20.0, "largest angle either way, in degrees", least=0, most=180)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        (turn,) = _uniform_between(keys, images, (-self.degrees, self.degrees))
        aspect = images.shape[3] / images.shape[2]
        return warp(images, similarity(torch.deg2rad(turn), torch.ones_like(turn), aspect))


@dataclass(frozen=True)
class Scale(Transformation):
    """Change of size about the centre."""

    least: float = setting(0.8, "smallest size, of the image's", above=0)
    most: float = setting(1.2, "largest size, of the image's", above=0)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        (size,) = _uniform_between(keys, images, (self.least, self.most))
        return warp(images, similarity(torch.zeros_like(size), size))


@dataclass(frozen=True)
class Perspective(Transformation):
    """A change of viewpoint: each corner moves by itself."""

    shift: float = setting(0.15, "how far a corner moves at most, of the image's side", least=0, most=0.3)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        return change_viewpoint(images, keys, self.shift)


@dataclass(frozen=True)
class Light(Transformation):
    """Contrast about mid-grey, and brightness."""

    brightness: float = setting(0.15, "largest change of brightness either way", least=0, most=1)
    contrast: float = setting(0.3, "largest change of contrast either way, as a share", least=0, most=1)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        b, c = self.brightness, self.contrast
        numbers = _uniform_between(keys, images, (-b, b), (1 - c, 1 + c))
        brightness, contrast = (per_image(values, images) for values in numbers)
        return ((images - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


@dataclass(frozen=True)
class Blur(Transformation):
    """Gaussian blur."""

    sigma: float = setting(1.0, "largest standard deviation, in pixels", above=0)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        (sigma,) = _uniform_between(keys, images, (0.05, max(self.sigma, 0.05)))
        return blur(images, sigma, math.ceil(3 * self.sigma))


def blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Each image blurred by a Gaussian of its own standard deviation [N], in pixels."""
    count, channels, height, width = images.shape
    radius = min(radius, height - 1, width - 1)
    if radius < 1:
        return images
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-offsets.square() / (2 * sigma[:, None].square()))
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None, None]
    flat = F.pad(images, [radius] * 4, mode="reflect").reshape(1, count * channels, height + 2 * radius, -1)
    flat = F.conv2d(flat, weights, groups=count * channels)
    flat = F.conv2d(flat, weights.transpose(2, 3), groups=count * channels)
    return flat.view(images.shape)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Each image through a homography, bilinear; beyond the border the border pixels are repeated.

    Args:
        matrices: [N, 3, 3], from positions in the result to positions in the image, from -1 to 1 each.
    """
    height, width = images.shape[2:]
    y = (torch.arange(height, device=images.device, dtype=images.dtype) * 2 + 1) / height - 1
    x = (torch.arange(width, device=images.device, dtype=images.dtype) * 2 + 1) / width - 1
    x, y = torch.meshgrid(x, y, indexing="xy")
    positions = torch.stack([x, y, torch.ones_like(x)], -1)
    positions = torch.einsum("nij,hwj->nhwi", matrices, positions)
    grid = positions[..., :2] / positions[..., 2:].clamp(min=1e-3)
    warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.clamp(0, 1)  # weights that sum to 1 do so but for rounding


def change_viewpoint(images: Tensor, keys: Tensor, shift: float) -> Tensor:
    """Each image with each corner moved by itself, by at most `shift` of the image's side."""
    moves = uniform(keys, 4, 2).to(images.dtype) * 2 - 1
    return warp(images, homography(moves * 2 * shift))


def similarity(turn: Tensor, size: Tensor, aspect: float = 1) -> Tensor:
    """Homographies [N, 3, 3] that turn by an angle (radians) and enlarge by a factor, both [N].

    Args:
        aspect: the images' width, of their height: from -1 to 1 is more pixels along the longer side.
    """
    cos, sin, zero = torch.cos(turn) / size, torch.sin(turn) / size, torch.zeros_like(turn)
    rows = [cos, -sin / aspect, zero, sin * aspect, cos, zero, zero, zero, torch.ones_like(turn)]
    return torch.stack(rows, -1).view(-1, 3, 3)


def homography(moves: Tensor) -> Tensor:
    """The homographies [N, 3, 3] from the corners to the corners plus `moves` [N, 4, 2]."""
    corners = moves.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    sources = corners + moves
    x, y = corners[:, 0].expand(len(moves), 4), corners[:, 1].expand(len(moves), 4)
    u, v = sources.unbind(-1)
    one, zero = torch.ones_like(u), torch.zeros_like(u)
    for_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1)
    for_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1)
    solved = torch.linalg.solve(torch.cat([for_u, for_v], 1), torch.cat([u, v], 1))
    return torch.cat([solved, one[:, :1]], 1).view(-1, 3, 3)


def _uniform_between(keys: Tensor, like: Tensor, *ranges: tuple[float, float]) -> tuple[Tensor, ...]:
    """A number in each range for each key, each [N]."""
    numbers = uniform(keys, len(ranges)).to(like.dtype)
    return tuple(low + (high - low) * numbers[:, i] for i, (low, high) in enumerate(ranges))
