"""The first layer's weights as pictures: each filter an image, all on one symmetric scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from vitrine.analyses import paint
from vitrine.analyses.base import Analysis, Figure, Subject
from vitrine.analyses.traits import Traits
from vitrine.core.settings import setting


def first_layer(network: nn.Module, image_shape: Sequence[int] | None = None) -> Tensor:
    """The weights of the layer that takes the pixels: [units, C, h, w].

    Of a convolution (a vision transformer's patch embedding is one) the filters; of a dense layer the rows,
    each folded back into an image. In a linear classifier they are the classes' templates.

    Args:
        image_shape: [C, H, W] of the network's images; where a dense layer comes first and this is not given,
            they are the network's `image_shape`, or square.

    Raises:
        ValueError: the network has neither, or its dense layer's inputs are no image.
    """
    return _find_first_layer(network, image_shape)[2]


@dataclass(frozen=True)
class Weights(Analysis):
    """The first layer's filters, each alone and all in one picture, in the layer's own order."""

    sharded: ClassVar[bool] = True  # every rank computes all: gathering shards costs more
    traits: ClassVar[Traits] = Traits(
        section="Features", title="First-layer weights", page_order=10, at_input=True, budget_priority=130
    )
    most: int = setting(64, "filters shown alone, evenly spaced if the layer has more", least=1)
    side: int = setting(64, "least side of a filter's picture, in pixels", least=1)

    def __call__(self, subject: Subject) -> Iterator[Figure]:
        layer, module, weights = _find_first_layer(subject.network, subject.probes.images.shape[1:])
        weights = weights.detach().float().cpu()
        scale = weights.abs().max().item()
        images, note, channels = weights, "", weights.shape[1]
        if channels not in (1, 3):
            images, note = weights.mean(1, keepdim=True), f"; the mean over its {channels} input channels"
        pictures = [paint.signed_picture(image, scale) for image in images]
        is_classifier = isinstance(module, nn.Linear) and len(weights) == len(subject.classes)
        kind = "weight row" if isinstance(module, nn.Linear) else "filter"
        legend = f"mid-grey is 0, full brightness {scale:.3g} in the whole layer{note}"
        height, width = images.shape[-2:]
        yield Figure(
            key=f"{layer}/all",
            image=_draw_sheet(pictures, self.side),
            caption=f"{layer}: all {len(images)} {kind}s, {height} x {width}; {legend}",
            layer=layer,
            values={"scale": scale},
        )
        count = min(self.most, len(pictures))
        for unit in (i * len(pictures) // count for i in range(count)):
            name = subject.classes[unit] if is_classifier else f"unit-{unit:03d}"
            yield Figure(
                key=f"{layer}/{name}",
                image=paint.magnify(pictures[unit], self.side),
                caption=f"{layer}, {name if is_classifier else f'{kind} {unit}'}; {legend}",
                layer=layer,
                unit=unit,
                label=unit if is_classifier else None,
                values={"scale": scale, "largest": weights[unit].abs().max().item()},
            )


def _find_first_layer(network: nn.Module, image_shape: Sequence[int] | None) -> tuple[str, nn.Module, Tensor]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module, module.weight
        if isinstance(module, nn.Linear):
            folded = _fold_inputs(network, module.in_features, image_shape)
            return name, module, module.weight.unflatten(1, folded)
    raise ValueError(
        "the network has neither a convolution nor a dense layer: no weights to show as pictures"
    )


def _fold_inputs(network: nn.Module, inputs: int, image_shape: Sequence[int] | None) -> Sequence[int]:
    """[C, H, W] of a dense layer's images: the network's `image_shape`, the given one, or square with 3
    channels or 1."""
    for shape in (getattr(network, "image_shape", None), image_shape):
        if shape is not None and math.prod(shape) == inputs:
            return tuple(shape)
    for channels in (3, 1):
        side = math.isqrt(inputs // channels)
        if channels * side * side == inputs:
            return (channels, side, side)
    given = "" if image_shape is None else f", nor one of {' x '.join(map(str, image_shape))}"
    raise ValueError(f"a first dense layer of {inputs} inputs sees no square image of 1 or 3 channels{given}")


def _draw_sheet(pictures: Sequence[Tensor], side: int) -> Tensor:
    """All pictures in a grid a little wider than high, enlarged by whole pixels."""
    columns = math.ceil(math.sqrt(len(pictures) * 4 / 3))
    min_side = min(side, max(1, 1200 // columns))  # hundreds of filters are shown smaller
    return paint.grid([paint.magnify(picture, min_side) for picture in pictures], columns)
