"""Mean and standard deviation of pixels, per channel, for a network's normalisation."""

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import permutation

_SAMPLE = 2000  # images; the mean is then accurate to about a hundredth


def imagenet_statistics(channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of ImageNet's [0, 1] pixels; in grayscale for one channel."""
    if channels == 1:
        return (0.449,), (0.226,)
    return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def compute_statistics(split: ImageDataset, seed: int = 0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a split's [0, 1] pixels, from 2,000 random images at most."""
    sample = permutation(len(split), seed)[:_SAMPLE].sort().values
    count, total, squares = 0, 0.0, 0.0
    for indices in sample.split(100):
        pixels = split.batch(indices)[0].double().div_(255)
        count += pixels[:, 0].numel()
        total, squares = total + pixels.sum((0, 2, 3)), squares + pixels.square_().sum((0, 2, 3))
    mean = total / count
    std = (squares / count - mean.square()).clamp_(min=1e-6).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())
