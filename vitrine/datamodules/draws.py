"""Random numbers that are a pure function of what they are for: no state, the same on every device."""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = (1 << 64) - 1


def key(*parts: int) -> int:
    """Integers, in order, mixed into one key in [0, 2^63) (SplitMix64; Steele, Lea & Flood 2014)."""
    state = 0
    for part in parts:
        state = _mixed_int((state + (int(part) & _WORD) + _GOLDEN) & _WORD)
    return state >> 1


def uniform(key: Tensor, indices: Tensor, count: int) -> Tensor:
    """`count` uniform numbers in [0, 1) for each index, float32 [N, count], on the device of `indices`.

    Args:
        key: what they are for, an int64 scalar on the same device (it is never read back from there).
        indices: int64, [N]; a row depends on its own index only.
        count: numbers a row; asking for more leaves the first ones as they are.
    """
    rows = _mixed(key + _signed(_GOLDEN) * (indices[:, None] + 1))
    columns = torch.arange(1, count + 1, device=indices.device)
    bits = _mixed(rows + _signed(_GOLDEN) * columns)
    return ((bits >> 40) & 0xFFFFFF).float() / (1 << 24)  # 24 bits: what a float32 holds exactly


def _mixed_int(z: int) -> int:
    z = ((z ^ (z >> 30)) * _FIRST) & _WORD
    z = ((z ^ (z >> 27)) * _SECOND) & _WORD
    return z ^ (z >> 31)


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _signed(_FIRST)  # int64 products wrap, on CPU and GPU alike
    z = (z ^ _shifted(z, 27)) * _signed(_SECOND)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # >> of an int64 carries the sign along: cut it off


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
