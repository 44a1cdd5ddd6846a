"""Mean and standard deviation of pixels, per channel: what a network's normalisation takes away."""

from __future__ import annotations

from typing import Any

from vitrine.core.random_numbers import permutation

_SAMPLE = 2000  # images; the mean is then known to about a hundredth


def imagenet_statistics(channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of ImageNet's [0, 1] pixels; of their grey for one channel."""
    if channels == 1:
        return (0.449,), (0.226,)
    return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def statistics(split: Any, seed: int = 0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a split's [0, 1] pixels, of up to 2,000 images drawn with the seed."""
    chosen = permutation(len(split), seed)[:_SAMPLE].sort().values
    count, total, squares = 0, 0.0, 0.0
    for indices in chosen.split(100):
        pixels = split.batch(indices)[0].double().div_(255)
        count += pixels[:, 0].numel()
        total, squares = total + pixels.sum((0, 2, 3)), squares + pixels.square_().sum((0, 2, 3))
    mean = total / count
    std = (squares / count - mean.square()).clamp_(min=1e-6).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())
