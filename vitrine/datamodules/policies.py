"""RandAugment, TrivialAugmentWide and AugMix of a batch, with the operations of torchvision.transforms.v2.

What is drawn for an image is a function of its key; torchvision's own classes draw once for a whole batch,
from the global generator. Images with the same draw are transformed together.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vitrine.core.random_numbers import uniform

_MAX_DEPTH = 3  # operations in a chain of AugMix: 1 to 3

Operation = Callable[[Tensor, float, InterpolationMode], Tensor]


@dataclass(frozen=True)
class Space:
    """The operations of a policy and how strong they get.

    Args:
        names: of the operations, in torchvision's order.
        bins: magnitudes of each, evenly spaced.
        shear, rotate, colour: the largest magnitude: a slope, degrees, a fraction.
        translate: pixels, from the side of the image.
        bits: of posterization, at the lowest magnitude and at the highest.
    """

    names: tuple[str, ...]
    bins: int
    shear: float
    translate: Callable[[int], float]
    rotate: float
    colour: float
    bits: tuple[int, int]
    interpolation: InterpolationMode = InterpolationMode.NEAREST

    def magnitudes(self, name: str, height: int, width: int) -> Tensor:
        """The magnitudes of an operation without their signs, [bins]; 0 where it has none."""
        if name == "Posterize":
            most, least = self.bits
            return (most - torch.arange(self.bins) / ((self.bins - 1) / (most - least))).round()
        if name == "Solarize":
            return torch.linspace(1, 0, self.bins)
        sides = {"TranslateX": width, "TranslateY": height}
        largest = self.translate(sides[name]) if name in sides else self._largest.get(name, 0.0)
        return torch.linspace(0.0, largest, self.bins)

    @property
    def _largest(self) -> dict[str, float]:
        colours = ("Brightness", "Color", "Contrast", "Sharpness")
        return {"ShearX": self.shear, "ShearY": self.shear, "Rotate": self.rotate} | dict.fromkeys(
            colours, self.colour
        )


_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_COLOUR = ("Brightness", "Color", "Contrast", "Sharpness")
_TONE = ("Posterize", "Solarize", "AutoContrast", "Equalize")
_SIGNED = (*_GEOMETRIC, *_COLOUR)
_ALL = ("Identity", *_GEOMETRIC, *_COLOUR, *_TONE)

RANDAUGMENT = Space(_ALL, 31, 0.3, lambda side: 150.0 / 331.0 * side, 30.0, 0.9, (8, 4))
TRIVIALAUGMENT = Space(_ALL, 31, 0.99, lambda side: 32.0, 135.0, 0.99, (8, 2))
AUGMIX = Space(
    (*_GEOMETRIC, *_TONE, *_COLOUR),
    10,
    0.3,
    lambda side: side / 3.0,
    30.0,
    0.9,
    (4, 0),
    InterpolationMode.BILINEAR,
)


def randaugment(images: Tensor, keys: Tensor, operations: int, magnitude: int) -> Tensor:
    """So many random operations of one magnitude (0 to 30) on each image (Cubuk 2020).

    Args:
        images: uint8, or float in [0, 1], of 1 or 3 channels, [N, C, H, W]; returned in the same type.
        keys: of the images' random numbers, int64, [N].
    """
    for random in uniform(keys, operations, 2).cpu().unbind(1):
        chosen = _choose(RANDAUGMENT, random[:, 0])
        bins = torch.full_like(chosen, magnitude)
        images = apply_operations(images, RANDAUGMENT, chosen, bins, random[:, 1] < 0.5)
    return images


def trivialaugment(images: Tensor, keys: Tensor) -> Tensor:
    """One random operation of random magnitude on each image (Mueller & Hutter 2021, the wide space)."""
    random = uniform(keys, 3).cpu()
    bins = (random[:, 1] * TRIVIALAUGMENT.bins).long()
    chosen = _choose(TRIVIALAUGMENT, random[:, 0])
    return apply_operations(images, TRIVIALAUGMENT, chosen, bins, random[:, 2] < 0.5)


def augmix(images: Tensor, keys: Tensor, severity: int, width: int) -> Tensor:
    """Each image mixed with `width` chains of one to three random operations (Hendrycks 2020).

    The weights of the chains are of a flat Dirichlet distribution, and that of the image itself is uniform.

    Args:
        severity: 1 to 10; magnitudes are of the lowest so many of ten.
    """
    random = uniform(keys, 1 + width * (2 + 3 * _MAX_DEPTH))
    own, random = random[:, 0], random[:, 1:].view(len(keys), width, -1)
    chains = -torch.log1p(-random[..., 0])  # exponential: their shares are flat Dirichlet
    chains = chains / chains.sum(1, keepdim=True).clamp(min=1e-12) * (1 - own)[:, None]
    steps = random[..., 1:].reshape(len(keys) * width, -1).cpu()
    depths, steps = 1 + (steps[:, 0] * _MAX_DEPTH).long(), steps[:, 1:].view(len(steps), _MAX_DEPTH, 3)
    changed = images.repeat_interleave(width, 0)
    for depth in range(_MAX_DEPTH):
        rows = (depths > depth).nonzero()[:, 0]
        operation, level, sign = steps[rows, depth].unbind(1)
        bins, chosen = (level * severity).long(), _choose(AUGMIX, operation)
        place = rows.to(images.device)
        some = apply_operations(changed.index_select(0, place), AUGMIX, chosen, bins, sign < 0.5)
        changed.index_copy_(0, place, some)
    return mix_chains(images, changed.unflatten(0, (-1, width)), own, chains)


def mix_chains(images: Tensor, changed: Tensor, own: Tensor, chains: Tensor) -> Tensor:
    """The weighted sum of images [N, C, H, W] and their chains [N, width, C, H, W], in the images' type; the
    weights are [N] and [N, width]."""
    mixed = own[:, None, None, None] * images
    for chain, weight in zip(changed.unbind(1), chains.unbind(1)):
        mixed.add_(weight[:, None, None, None] * chain)
    return mixed.to(images.dtype)


def apply_operations(images: Tensor, space: Space, chosen: Tensor, bins: Tensor, negative: Tensor) -> Tensor:
    """The images after one operation each.

    Args:
        chosen: which of the space's operations, int64, [N], on the CPU as the other two are.
        bins: which of its magnitudes, int64, [N].
        negative: whether the magnitude is negative, where it has a sign, bool, [N].
    """
    groups = defaultdict(list)
    tables = [space.magnitudes(name, *images.shape[-2:]).tolist() for name in space.names]
    for row, (number, place, minus) in enumerate(zip(chosen.tolist(), bins.tolist(), negative.tolist())):
        name, magnitude = space.names[number], tables[number][place]
        groups[name, -magnitude if minus and name in _SIGNED else magnitude].append(row)
    result = images.clone()
    for (name, magnitude), rows in groups.items():
        if name != "Identity":
            place = torch.tensor(rows, device=images.device)
            some = images.index_select(0, place)  # indexing bytes by [place] takes several times as long
            result.index_copy_(0, place, _OPERATIONS[name](some, magnitude, space.interpolation))
    return result


def _choose(space: Space, random: Tensor) -> Tensor:
    return (random * len(space.names)).long()


def _shear(axis: int, images: Tensor, slope: float, interpolation: InterpolationMode) -> Tensor:
    shear = [0.0, 0.0]
    shear[axis] = math.degrees(math.atan(slope))
    origin = [0, 0]
    return F.affine(images, 0.0, [0, 0], 1.0, shear, interpolation=interpolation, center=origin)


def _translate(axis: int, images: Tensor, pixels: float, interpolation: InterpolationMode) -> Tensor:
    translate = [0, 0]
    translate[axis] = int(pixels)
    return F.affine(images, 0.0, translate, 1.0, [0.0, 0.0], interpolation=interpolation)


_OPERATIONS: dict[str, Operation] = {
    "ShearX": partial(_shear, 0),
    "ShearY": partial(_shear, 1),
    "TranslateX": partial(_translate, 0),
    "TranslateY": partial(_translate, 1),
    "Rotate": lambda images, degrees, how: F.rotate(images, degrees, interpolation=how),
    "Brightness": lambda images, change, _: F.adjust_brightness(images, 1 + change),
    "Color": lambda images, change, _: F.adjust_saturation(images, 1 + change),
    "Contrast": lambda images, change, _: F.adjust_contrast(images, 1 + change),
    "Sharpness": lambda images, change, _: F.adjust_sharpness(images, 1 + change),
    "Posterize": lambda images, bits, _: F.posterize(images, int(bits)),
    "Solarize": lambda images, level, _: F.solarize(
        images, level * (1.0 if images.is_floating_point() else 255)
    ),
    "AutoContrast": lambda images, *_: F.autocontrast(images),
    "Equalize": lambda images, *_: F.equalize(images),
}
