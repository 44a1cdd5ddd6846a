"""Random numbers that are a pure function of a key: the same in any batch and on any device, without state.

A key is an int64. Numbers are a counter's, hashed (SplitMix64; Steele, Lea & Flood 2014).
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def make_key(*parts: int) -> int:
    """One key in [0, 2^63) from integers, in this order."""
    state = 0
    for part in parts:
        z = (state + (int(part) & _MASK) + _GAMMA) & _MASK
        z = ((z ^ (z >> 30)) * _FIRST) & _MASK
        z = ((z ^ (z >> 27)) * _SECOND) & _MASK
        state = z ^ (z >> 31)
    return state >> 1


def hash_seed(content: bytes) -> int:
    """A seed in [0, 2^63) for `torch.Generator`, from SHA-256."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def content_keys(images: Tensor) -> Tensor:
    """A key for each image from its pixels alone, int64 [N]: equal images have equal keys."""
    bits = (images.detach().float() + 0.0).contiguous().view(torch.int32).flatten(1).long()  # + 0: no -0
    places = torch.arange(bits.shape[1], device=bits.device) * _signed(_GAMMA)
    return _mix(_mix(bits + places).sum(1))


def fold_in(keys: Tensor, *data: int | Tensor) -> Tensor:
    """New keys from keys and what they are for: a restart, a step, or an image's index; int64 [N].

    Args:
        keys: int64 [N], or a scalar.
        data: integers, or int64 [N] on the device of `keys`.
    """
    for part in data:
        offset = (part + 1) * _signed(_GAMMA)
        keys = _mix(keys + (offset if isinstance(part, Tensor) else _signed(offset & _MASK)))
    return keys


def uniform(keys: Tensor, *shape: int) -> Tensor:
    """Numbers in [0, 1), float32 [N, *shape]; asking for more leaves the first ones as they are."""
    counter = torch.arange(1, math.prod(shape) + 1, device=keys.device) * _signed(_GAMMA)
    bits = _mix(keys[:, None] + counter)
    numbers = bits.bitwise_right_shift_(40).bitwise_and_(0xFFFFFF).float()  # 24 bits: what a float32 holds
    return numbers.div_(1 << 24).view(len(keys), *shape)


def normal(keys: Tensor, *shape: int) -> Tensor:
    """Standard normal numbers, float32 [N, *shape] (Box & Muller 1958)."""
    radius, angle = uniform(keys, 2, *shape).unbind(1)
    return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)


def permutation(count: int, seed: int) -> Tensor:
    """0 ... count - 1 in random order, int64 [count], on the CPU."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)).mul_(_signed(_FIRST))  # int64 products wrap, on CPU and GPU alike
    z = (z ^ _shift(z, 27)).mul_(_signed(_SECOND))
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    # >> of an int64 carries the sign along: cut it off
    return z.bitwise_right_shift(bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
