"""What is optimised for a picture: pixels, Fourier coefficients or phases, in decorrelated colours.

A parameterization turns free variables into pictures in [0, 1]. `initialize` draws each picture's variables
from that picture's own generator; `invert` finds variables that give a given picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.analyses.picture_size import Size, sides

INITIAL_DEVIATION = 0.01  # standard deviation of initial variables
CONTRAST = 4.0  # divisor of Fourier pictures (Olah 2017)
# cycles a picture (a square one of as many pixels), up to which smooth ones have natural images' frequencies
COARSE = 8


def imagenet_colours() -> Tensor:
    """The principal colour directions of ImageNet, [3, 3] (Olah 2017)."""
    directions = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    return directions / directions.norm(dim=0).max()


def colour_matrix(images: Tensor) -> Tensor:
    """The principal colour directions of images [N, C, H, W], each as long as the colours'
    standard deviation along it, as [C, C].

    The longest has length 1; multiplied by the matrix, independent values get the images' correlations.
    """
    pixels = images.float().transpose(0, 1).flatten(1)
    channels = len(pixels)
    if channels == 1:
        return torch.ones(1, 1, device=images.device)
    variances, directions = torch.linalg.eigh(torch.cov(pixels.double()))
    # pictures keep a little colour even where the data set has none
    deviations = variances.clamp_min(variances.max() * 1e-4 + 1e-12).sqrt()
    matrix = (directions * deviations).flip(1)
    sign = matrix[0].sign().where(matrix[0] != 0, torch.ones_like(matrix[0]))  # a direction has none
    return (matrix * sign / matrix.norm(dim=0).max()).float()


def mix_channels(values: Tensor, matrix: Tensor) -> Tensor:
    """The channels of values [N, C, H, W] multiplied by a matrix [C, C]."""
    return (matrix @ values.flatten(2)).unflatten(2, values.shape[2:])


def mean_magnitude(images: Tensor, size: Size, colours: Tensor) -> Tensor:
    """The mean |rfft2| of images [N, C, H, W], in decorrelated colours and scaled to `size` pixels:
    [C, height, width // 2 + 1]; MACO keeps it fixed (Fel 2023)."""
    images = F.interpolate(images.float(), sides(size), mode="bilinear", antialias=True, align_corners=False)
    values = mix_channels(images - 0.5, torch.linalg.inv(colours))
    return torch.fft.rfft2(values).abs().mean(0)


@dataclass(frozen=True)
class Pixels:
    """Free variables [N, C, height, width]: pixels before the colour matrix and the sigmoid."""

    size: Size
    colours: Tensor  # [C, C], as `colour_matrix` gives them

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return sides(self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one picture's variables."""
        return (len(self.colours), *self.sides)

    def initialize(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Random variables, each picture's from its own (CPU) generator."""
        variables = torch.stack([torch.randn(self.shape, generator=g) for g in generators])
        return variables.to(self.colours.device) * INITIAL_DEVIATION

    def pictures(self, variables: Tensor) -> Tensor:
        """The pictures [N, C, height, width] in [0, 1]."""
        return torch.sigmoid(mix_channels(variables, self.colours))

    def invert(self, pictures: Tensor) -> Tensor:
        """Variables whose pictures are these, resized to this size and clamped away from black and white."""
        if pictures.shape[-2:] != self.sides:
            pictures = F.interpolate(pictures, self.sides, mode="bilinear", align_corners=False)
        logits = torch.logit(pictures.to(self.colours), eps=0.01)
        return mix_channels(logits, torch.linalg.inv(self.colours))


@dataclass(frozen=True)
class Fourier(Pixels):
    """Free variables [N, C, height, width // 2 + 1, 2]: Fourier coefficients, each scaled by the inverse of
    its frequency, as in natural images (Olah 2017)."""

    @property
    def shape(self) -> tuple[int, ...]:
        height, width = self.sides
        return (len(self.colours), height, width // 2 + 1, 2)

    @cached_property
    def scale(self) -> Tensor:
        """The factor of each coefficient, [height, width // 2 + 1]."""
        height, width = self.sides
        rows = torch.fft.fftfreq(height, device=self.colours.device)[:, None]
        columns = torch.fft.rfftfreq(width, device=self.colours.device)
        frequency = torch.sqrt(rows**2 + columns**2).clamp_min(1 / max(height, width))
        return math.sqrt(height * width) / frequency / CONTRAST

    def pictures(self, variables: Tensor) -> Tensor:
        spectrum = torch.view_as_complex(variables) * self.scale
        return super().pictures(torch.fft.irfft2(spectrum, s=self.sides))

    def invert(self, pictures: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.rfft2(super().invert(pictures)) / self.scale).contiguous()


@dataclass(frozen=True)
class Smooth(Fourier):
    """Fourier coefficients that fall with frequency to the power of 1.5 above `COARSE` cycles a picture: for
    networks whose gradients are noise from pixel to pixel, as transformers' are."""

    @cached_property
    def scale(self) -> Tensor:
        height, width = self.sides
        side = math.sqrt(height * width)  # cycles are counted along it, in whatever direction
        rows = torch.fft.fftfreq(height, 1 / side, device=self.colours.device)[:, None]
        columns = torch.fft.rfftfreq(width, 1 / side, device=self.colours.device)
        cycles = torch.sqrt(rows**2 + columns**2)
        return super().scale / (cycles / COARSE).clamp_min(1).sqrt()


@dataclass(frozen=True)
class Phases(Pixels):
    """Free variables [N, C, height, width // 2 + 1]: phases alone, at the magnitudes of natural images (MACO,
    Fel 2023)."""

    magnitude: Tensor  # [C, height, width // 2 + 1], as `mean_magnitude` gives them

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.magnitude.shape)

    def initialize(self, generators: Sequence[torch.Generator]) -> Tensor:
        variables = torch.stack([torch.rand(self.shape, generator=g) for g in generators])
        return variables.to(self.colours.device) * (2 * torch.pi) - torch.pi

    def pictures(self, variables: Tensor) -> Tensor:
        spectrum = torch.polar(self.magnitude.expand_as(variables), variables)
        values = torch.fft.irfft2(spectrum, s=self.sides)
        centred = values - values.mean((2, 3), keepdim=True)
        return super().pictures(centred / centred.std((1, 2, 3), keepdim=True))

    def invert(self, pictures: Tensor) -> Tensor:
        return torch.fft.rfft2(super().invert(pictures)).angle()
