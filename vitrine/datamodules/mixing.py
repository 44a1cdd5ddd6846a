"""Mixup and cutmix: images of a batch in pairs, and labels as probabilities; torchvision.transforms.v2's
definitions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.core.random_numbers import fold_in, uniform

_PURPOSE = 3  # of these random numbers, beside those of the augmentation


def mix(
    images: Tensor, labels: Tensor, keys: Tensor, *, mixup_alpha: float, cutmix_alpha: float, classes: int
) -> tuple[Tensor, Tensor]:
    """Each image mixed with the one before it in the batch, by mixup or cutmix; of both, each batch gets one
    or the other with probability 1/2.

    The draw is one a batch, and a function of its keys; nothing waits for the device.

    Args:
        images: float, [N, C, H, W].
        labels: int64, [N].
        keys: of the images' random numbers, int64, [N].
        mixup_alpha, cutmix_alpha: of the Beta(alpha, alpha) that the shares are of; 0: not this way.

    Returns:
        Images, and targets: probabilities of the classes, float32, [N, K].
    """
    targets = F.one_hot(labels, classes).float()
    random = uniform(fold_in(keys.sum(), _PURPOSE)[None], 7)[0]  # a sum wraps around, which is as good
    first = mixup(images, targets, symmetric_beta(mixup_alpha, *random[0:2])) if mixup_alpha else None
    if not cutmix_alpha:
        return first or (images, targets)
    box = cut_box(symmetric_beta(cutmix_alpha, *random[2:4]), random[4:6], *images.shape[-2:])
    second = cutmix(images, targets, box)
    if first is None:
        return second
    return tuple(torch.where(random[6] < 0.5, *pair) for pair in zip(first, second))


def mixup(images: Tensor, targets: Tensor, share: Tensor | float) -> tuple[Tensor, Tensor]:
    """`share` of each image and 1 - `share` of the one before it; so the targets (Zhang 2018)."""

    def blend(values: Tensor) -> Tensor:
        return values.roll(1, 0).mul_(1.0 - share).add_(values.mul(share))

    return blend(images), blend(targets)


def cutmix(images: Tensor, targets: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """A box of each image from the one before it; targets by area (Yun 2019).

    Args:
        box: left, top, right, bottom (the latter two outside), int64, [4].
    """
    height, width = images.shape[-2:]
    left, top, right, bottom = box.unbind()
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    share = 1.0 - (right - left) * (bottom - top) / (width * height)
    return torch.where(inside, images.roll(1, 0), images), mixup(targets, targets, share)[1]


def cut_box(share: Tensor, centre: Tensor, height: int, width: int) -> Tensor:
    """The box of cutmix, int64, [4]: 1 - `share` of the area before it is clipped at the image's border.

    Args:
        share: scalar in [0, 1].
        centre: uniform in [0, 1), [2]: across and down.
    """
    size = centre.new_tensor([width, height])
    middle, half = (centre * size).long(), (0.5 * (1.0 - share).sqrt() * size).long()
    low, high = (middle - half).clamp(min=0), torch.minimum(middle + half, size.long())
    return torch.cat([low, high])


def symmetric_beta(alpha: float, first: Tensor, second: Tensor) -> Tensor:
    """A number of Beta(alpha, alpha) from two uniform ones in [0, 1): (1 + t / sqrt(v + t^2)) / 2 of a t of
    Student's distribution with v = 2 alpha, drawn by Bailey's polar method (Devroye 1996)."""
    cosine = torch.cos(2 * math.pi * second)
    ratio = ((1 - first).pow(-1 / alpha) - 1) * cosine.square()  # t^2 / v, perhaps infinite
    return (1 + cosine.sign() * (1 + 1 / ratio).rsqrt()) / 2
