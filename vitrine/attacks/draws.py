"""Random numbers of an image's own: functions of its key, whatever batch the image is in, on every device.

The numbers are a counter's, hashed (SplitMix64; Steele, Lea & Flood 2014): there is no generator, so no state
that an attack could leave changed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WORD = 1 << 64


def _signed(word: int) -> int:
    return word - _WORD if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def content_keys(images: Tensor) -> Tensor:
    """A key for each image from its pixels alone, int64 [N]: equal images have equal keys."""
    bits = (images.detach().float() + 0.0).contiguous().view(torch.int32).flatten(1).long()  # + 0: no -0
    places = torch.arange(bits.shape[1], device=bits.device) * _GOLDEN
    return _mixed(_mixed(bits + places).sum(1))


def derived(keys: Tensor, *purpose: int) -> Tensor:
    """Keys for another purpose (a restart, a step), int64 [N]."""
    for part in purpose:
        keys = _mixed(keys + _signed((part + 1) * 0x9E3779B97F4A7C15 % _WORD))
    return keys


def uniform(keys: Tensor, *shape: int) -> Tensor:
    """Numbers in [0, 1), float32 [N, *shape], on the device of `keys`."""
    counter = torch.arange(1, math.prod(shape) + 1, device=keys.device) * _GOLDEN
    bits = _mixed(keys[:, None] + counter)
    numbers = (bits.bitwise_right_shift_(40).bitwise_and_(0xFFFFFF)).float()  # 24 bits: what a float32 holds
    return numbers.div_(1 << 24).view(len(keys), *shape)


def normal(keys: Tensor, *shape: int) -> Tensor:
    """Standard normal numbers, float32 [N, *shape] (Box & Muller 1958)."""
    radius, angle = uniform(keys, 2, *shape).unbind(1)
    return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)


def _mixed(z: Tensor) -> Tensor:
    """The words hashed; int64 products wrap, on CPU and GPU alike."""
    z = (z ^ _shifted(z, 30)).mul_(_FIRST)
    z = (z ^ _shifted(z, 27)).mul_(_SECOND)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    # >> of an int64 carries the sign along: cut it off
    return z.bitwise_right_shift(bits).bitwise_and_((1 << (64 - bits)) - 1)
