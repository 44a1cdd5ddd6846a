"""Maps that know nothing of the network, which every attribution map has to beat: random, centre, edges."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.core.random_numbers import fold_in, make_key, uniform

CENTRE_WIDTH = 0.5  # standard deviation of the Gaussian, in half widths of the image


def control_maps(images: Tensor, indices: Tensor, seed: int) -> Mapping[str, Tensor]:
    """The controls by name, [N, H, W] >= 0.

    Args:
        images: [N, C, H, W].
        indices: of the images in their data set, int64 [N]: a random map is a function of seed and index.
    """
    return {
        "random": random_maps(images.shape[-2:], indices, seed).to(images.device),
        "centre": centre_map(images.shape[-2:]).to(images).expand(len(images), -1, -1),
        "edges": sobel_edges(images),
    }


def random_maps(size: torch.Size, indices: Tensor, seed: int) -> Tensor:
    """A uniform random number in [0, 1) for each pixel, [N, *size]."""
    return uniform(fold_in(torch.tensor(make_key(seed, 0)), indices.cpu()), *size)


def centre_map(size: torch.Size) -> Tensor:
    """A Gaussian in the middle of the image, [H, W]."""
    down, across = ((2 * torch.arange(side) + 1) / side - 1 for side in size)
    return torch.exp(-(down[:, None] ** 2 + across**2) / (2 * CENTRE_WIDTH**2))


def sobel_edges(images: Tensor) -> Tensor:
    """The magnitude of the gradient of each image's mean over channels, by Sobel's filter: [N, H, W]."""
    across = images.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    grey = F.pad(images.mean(1, keepdim=True), [1] * 4, mode="replicate")
    return F.conv2d(grey, torch.stack([across, across.T])[:, None]).norm(dim=1)
