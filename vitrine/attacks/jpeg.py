"""Differentiable JPEG (Shin & Song 2017): everything but the rounding is linear."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.attacks.transformations import Transformation
from vitrine.core.random_numbers import uniform
from vitrine.core.settings import SettingError, setting

# ITU T.81, annex K
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@dataclass(frozen=True)
class JPEG(Transformation):
    """JPEG compression, with half the resolution in colour (4:2:0); without colour channels are luminance."""

    least: int = setting(60, "lowest quality", least=1, most=100)
    most: int = setting(95, "highest quality", least=1, most=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least > self.most:
            raise SettingError("least", f"is {self.least}, expected at most the highest quality, {self.most}")

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        quality = self.least + (self.most - self.least + 1) * uniform(keys, 1)[:, 0]
        return jpeg(images, quality.floor().clamp(max=self.most).to(images.dtype))


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Images [N, C, H, W] after JPEG compression at a quality [N] of 1 to 100: C = 3 in colour, else each
    channel as an image of its own."""
    height, width = images.shape[2:]
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    padded = F.pad(images * 255, [0, -width % 16, 0, -height % 16], mode="replicate")
    if images.shape[1] != 3:
        return (_compress(padded - 128, scale, _LUMA) + 128)[:, :, :height, :width].div(255).clamp(0, 1)
    matrix = _ycc_matrix(images.device, images.dtype)
    ycc = torch.einsum("ij,njhw->nihw", matrix, padded)
    luma = _compress(ycc[:, :1] - 128, scale, _LUMA) + 128
    chroma = _compress(F.avg_pool2d(ycc[:, 1:], 2), scale, _CHROMA)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    rgb = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), torch.cat([luma, chroma], 1))
    return rgb[:, :, :height, :width].div(255).clamp(0, 1).contiguous()  # for networks that view images


def _compress(planes: Tensor, scale: Tensor, table: tuple) -> Tensor:
    """Planes [N, c, H, W] quantised in the cosine transform of their 8x8 blocks."""
    count, channels, height, width = planes.shape
    transform = _dct_matrix(planes.device, planes.dtype)
    steps = torch.tensor(table, device=planes.device, dtype=planes.dtype) * scale.view(-1, 1, 1)
    steps = (steps + 0.5).floor().clamp(1, 255).view(-1, 1, 1, 1, 8, 8)
    blocks = planes.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = transform @ blocks @ transform.T / steps
    blocks = transform.T @ (_differentiable_round(coefficients) * steps) @ transform
    return blocks.transpose(3, 4).reshape(planes.shape)


def _differentiable_round(x: Tensor) -> Tensor:
    """x rounded, with the slope of Shin and Song's cubic: 3 (x - [x])^2, nothing in the middle of a step."""
    whole = x.detach().round()
    cubic = (x - whole) ** 3
    return whole + cubic - cubic.detach()


@functools.cache
@torch.inference_mode(False)  # whoever asks first: autograd keeps it
def _dct_matrix(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The orthonormal cosine transform of eight numbers, [8, 8]."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)
    matrix = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.to(device, dtype)


@functools.cache
@torch.inference_mode(False)
def _ycc_matrix(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(_TO_YCC, device=device, dtype=dtype)
