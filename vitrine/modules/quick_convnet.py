"""A network that learns CIFAR-10 in ten short epochs: airbench94's (Jordan 2024)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SCALE = 8.0  # of shifts: under SGD they learn at its square, 64 times the learning rate
_SHRINKAGE = 5e-4  # added to the variance of filters that hardly see anything


class QuickConvNet(nn.Module):
    """2x2 filters that whiten, then groups of two 3x3 convolutions with pooling between, normalised, GELU.

    What makes it quick: images are whitened, convolutions begin as the identity, normalisation has shifts
    alone, which learn much faster than filters, and logits are small. It is made for the settings of its
    recipe, configs/cifar10-quick.yaml.

    airbench whitens by the principal axes of the first 5,000 training images. Here filters are those that
    patches of all photographs have nearly as axes: differences of neighbours, for each cosine over the
    channels; batch normalisation, which follows, makes their variance one.

    Args:
        widths: channels of each group. Each halves the side, so that images need 16 pixels for three of them.
    """

    def __init__(self, num_classes: int, channels: int = 3, widths: Sequence[int] = (64, 256, 256)):
        super().__init__()
        if len(widths) < 1 or any(w < 1 for w in widths):
            raise ValueError(f"widths is {list(widths)}, expected one positive number a group")
        whiten = nn.Conv2d(channels, 8 * channels, 2, bias=False)
        whiten.weight = nn.Parameter(whitening_filters(channels), requires_grad=False)
        normalise = ShiftedNorm(8 * channels, scale=1.0, eps=_SHRINKAGE)
        self.whiten = nn.Sequential(whiten, normalise, nn.GELU())
        self.groups = nn.Sequential(*(_group(a, b) for a, b in zip([8 * channels, *widths], widths)))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.linear = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.groups(self.whiten(images)))
        return self.linear(x.flatten(1) / 9)


class ShiftedNorm(nn.BatchNorm2d):
    """Batch normalisation without a scale, whose shift is `scale` times its parameter, at first zero."""

    def __init__(self, channels: int, scale: float = _SCALE, eps: float = 1e-12):
        super().__init__(channels, eps=eps, momentum=0.4, affine=False)
        self.scale, self.shift = scale, nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance, ones = self.running_mean, self.running_var, torch.ones_like(self.shift)
        shift = self.scale * self.shift
        return F.batch_norm(x, mean, variance, ones, shift, self.training, self.momentum, self.eps)


def whitening_filters(channels: int) -> Tensor:
    """Orthonormal filters of four pixels and their negatives, [8 channels, channels, 2, 2].

    They are the mean and three differences of the pixels, for each cosine over the channels: of RGB gray, red
    against blue, and green against both.
    """
    places = torch.arange(channels) + 0.5
    over = torch.stack([torch.cos(math.pi * k / channels * places) for k in range(channels)])
    haar = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).view(4, 2, 2) / 2
    filters = torch.einsum("kc,sij->kscij", F.normalize(over, dim=1), haar).flatten(0, 1)
    return torch.cat([filters, -filters])


def _group(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (before, after):
        conv = nn.Conv2d(inputs, after, 3, padding=1, bias=False)
        nn.init.dirac_(conv.weight.data[:inputs])
        layers += [conv, *([nn.MaxPool2d(2)] if not layers else [])]
        layers += [ShiftedNorm(after), nn.GELU()]
    return nn.Sequential(*layers)
