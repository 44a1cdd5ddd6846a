"""Noise fields, hashed from the position in the field."""

import torch
from torch import Tensor

_COARSEST = 6  # lattice points a side that the first octave starts from


def fractal(seeds: Tensor, size: int, fall: Tensor, octaves_left_out: int = 0) -> Tensor:
    """1/f noise: octaves of smooth noise, each finer by two and weaker by `fall`; float32 [n, size, size].

    A field drawn larger by two is the same field with one octave more, where sizes are powers of two.

    Args:
        seeds: int32, [n], 32 random bits for each field.
        fall: [n], amplitude of an octave by that of the one before: 1 is 1/f in amplitude, less is smoother.
        octaves_left_out: finest octaves that are not drawn.

    Returns:
        Fields of mean 0 and a standard deviation of about 0.5.
    """
    sides = [_COARSEST]
    while sides[-1] - 2 < size:
        sides.append(2 * sides[-1] - 2)
    field, amplitude, power = 0.0, torch.ones_like(fall), torch.zeros_like(fall)
    for octave, side in enumerate(sides):
        if octave:
            field = _upsample(_upsample(field).mT).mT
        if octave < len(sides) - octaves_left_out:
            field = white_noise(seeds, octave, side).mul_(amplitude[:, None, None]).add_(field)
            power = power + amplitude * amplitude
            amplitude = amplitude * fall
    return field[:, 1 : size + 1, 1 : size + 1] / power.sqrt()[:, None, None]


def white_noise(seeds: Tensor, layer: int, side: int) -> Tensor:
    """White noise, uniform in [-1, 1): float32, [n, side, side]."""
    return _bits(seeds, layer, side).float().mul_(2.0**-30).sub_(1)


def add_grain(images: Tensor, seeds: Tensor, amplitude: Tensor) -> None:
    """Add white noise, uniform in +- amplitude ([n]), to images ([n, 3, size, size]), in place."""
    bits = _bits(seeds, 31, images.shape[-1])
    step = (amplitude / 512)[:, None, None]
    for channel in range(3):
        images[:, channel] += ((bits >> 10 * channel) & 1023).float().mul_(step)
    images -= amplitude[:, None, None, None]


def _bits(seeds: Tensor, layer: int, side: int) -> Tensor:
    """31 random bits for each place: int32 [n, side, side] (a multiply and xor-shift hash; products wrap)."""
    place = torch.arange(side, dtype=torch.int32)
    place = (place[:, None] << 16 | place) + (layer << 11)  # a side of up to 2,047 fits in between
    bits = place ^ seeds[:, None, None]
    bits ^= bits >> 16  # the sign is carried along by the shift, which leaves the sign bit 0
    bits *= 0x7FEB352D
    bits ^= bits >> 15
    bits *= -0x7B935975
    bits ^= bits >> 16
    return bits


def _upsample(field: Tensor) -> Tensor:
    """Twice as fine along the last dimension, [..., s] -> [..., 2 s - 2]: a quadratic spline."""
    left, right = field[..., :-1], field[..., 1:]
    step = (right - left).mul_(0.25)
    finer = field.new_empty(*left.shape, 2)
    torch.add(left, step, out=finer[..., 0])
    torch.sub(right, step, out=finer[..., 1])
    return finer.flatten(-2)
