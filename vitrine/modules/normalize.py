"""Normalisation as a part of the network, so that everything around it uses [0, 1] pixels."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """Subtracts the mean and divides by the standard deviation of each channel, in units of [0, 1] pixels.

    Raises:
        ValueError: lengths that differ, numbers that are not finite, a std that is not positive; in the
            forward pass, images that are not floating point.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        mean, std = [float(m) for m in mean], [float(s) for s in std]
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} channels and std {len(std)}, expected as many")
        if not all(math.isfinite(m) for m in mean):
            raise ValueError(f"mean is {mean}, expected finite numbers")
        if not all(math.isfinite(s) and s > 0 for s in std):
            raise ValueError(f"std is {std}, expected positive numbers")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}, expected floating point in [0, 1]")
        return (images - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"channels={len(self.mean)}"


def attach(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Normalise the input of `network` before its first layer, without renaming any layer.

    The statistics are in `network.normalize` (and so in the state_dict), and a pre-hook applies them. The
    hook looks them up on the network that it is called for, so that copies use their own.
    """
    network.add_module("normalize", Normalize(mean, std))
    network.register_forward_pre_hook(_normalize_input)
    return network


def _normalize_input(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (network.normalize(inputs[0]), *inputs[1:])
