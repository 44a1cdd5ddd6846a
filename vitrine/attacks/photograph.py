"""Printing and photographing an image (Kurakin 2016; Athalye 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.attacks.jpeg import JPEG
from vitrine.attacks.transformations import (
    Blur,
    Light,
    Perspective,
    Rotation,
    Scale,
    Transformation,
    blur,
    change_viewpoint,
)
from vitrine.core.random_numbers import fold_in, normal, uniform
from vitrine.core.settings import setting


@dataclass(frozen=True)
class PrintAndPhotograph(Transformation):
    """A print of limited contrast with a tone curve a channel; then a photograph: perspective, uneven light,
    blur, noise, JPEG."""

    black: float = setting(0.1, "brightness of the blackest ink at most", least=0, most=0.5)
    white: float = setting(0.1, "what the paper lacks to white at most", least=0, most=0.4)
    gamma: float = setting(0.25, "largest exponent of a channel's curve either way: 2^gamma", least=0, most=2)
    shift: float = setting(0.05, "how far a corner moves at most, of the image's side", least=0, most=0.3)
    shade: float = setting(0.2, "largest fall of the light over the image", least=0, most=1)
    sigma: float = setting(0.6, "largest blur, in pixels", above=0)
    noise: float = setting(0.02, "largest standard deviation of the camera's noise", least=0, most=1)
    quality: int = setting(75, "lowest JPEG quality", least=1, most=95)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        photograph = self._photograph(self._print(images, keys), keys)
        return JPEG(least=self.quality, most=95)(photograph, fold_in(keys, 5))

    def _print(self, images: Tensor, keys: Tensor) -> Tensor:
        numbers = uniform(fold_in(keys, 1), 3, images.shape[1]).to(images.dtype)
        low, high, curve = numbers[..., None, None].unbind(1)
        exponent = 2 ** ((2 * curve - 1) * self.gamma)
        low, high = low * self.black, 1 - high * self.white
        # the slope of a power is infinite at 0
        return low + (high - low) * images.clamp(min=1e-3) ** exponent

    def _photograph(self, images: Tensor, keys: Tensor) -> Tensor:
        count, _, height, width = images.shape
        images = change_viewpoint(images, fold_in(keys, 2), self.shift)
        numbers = uniform(fold_in(keys, 3), 4).to(images.dtype)
        angle, fall, focus, grain = numbers[..., None, None, None].unbind(1)
        y = torch.linspace(-0.5, 0.5, height, device=images.device, dtype=images.dtype)[:, None]
        x = torch.linspace(-0.5, 0.5, width, device=images.device, dtype=images.dtype)
        across = torch.cos(angle * 2 * torch.pi) * x + torch.sin(angle * 2 * torch.pi) * y
        images = images * (1 - fall * self.shade * (0.5 + across))
        images = blur(images, (0.05 + focus * self.sigma).view(count), max(1, round(3 * self.sigma)))
        noise = normal(fold_in(keys, 4), *images.shape[1:]).to(images.dtype)
        return (images + grain * self.noise * noise).clamp(0, 1)


@dataclass(frozen=True)
class Physical(Transformation):
    """All transformations in turn: an image as a hand-held camera may see it."""

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        chain = (Rotation(), Scale(), Perspective(0.08), Light(0.1, 0.2), Blur(0.7), PrintAndPhotograph())
        for index, transformation in enumerate(chain):
            images = transformation(images, fold_in(keys, index))
        return images
