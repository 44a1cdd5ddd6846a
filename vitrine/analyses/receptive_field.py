"""Which pixels a unit can see: theoretical receptive fields, and the effective one on an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vitrine.analyses.activations import activations
from vitrine.analyses.dependency import INDEPENDENT, DependencyMinimum
from vitrine.analyses.gradients import gradient
from vitrine.analyses.hooks import input_channels, output_hooks
from vitrine.analyses.layout import layouts
from vitrine.core.network_scopes import in_eager_eval_mode


def receptive_field(
    network: nn.Module,
    layer: str,
    positions: Tensor | Sequence,
    image_size: int | Sequence[int],
    *,
    unit: int | None = None,
    channels: int | None = None,
) -> Tensor:
    """The pixels that a layer's activation at a position can depend on, as a box clipped at the image border.

    Exact (the smallest box that holds them all) for convolutions and pools of any stride, dilation, padding
    and rounding, additions, concatenations, shuffles, adaptive pools and attention windows. Global pooling,
    dense layers, attention and therefore squeeze-excitation (EfficientNet, RegNet-Y, most of MobileNetV3)
    make it the whole image. Operations that are not known are taken to mix everything: a box is never too
    small.

    Args:
        layer: dotted name of a submodule.
        positions: [..., 2], row and column in the layer's map.
        image_size: side, or height and width, in pixels.
        unit: a channel, where branches of a concatenation have different fields; their hull unless given.
        channels: of the image; the first layer's unless given.

    Returns:
        int64 [..., 4]: top, left, bottom, right; half-open. Zeros where it depends on padding only.

    Raises:
        UnknownName: there is no such layer.
        ValueError: a position or the unit is outside the layer's map.
    """
    boxes = receptive_fields(network, [layer], image_size, channels=channels)[layer]
    if unit is not None:
        if not 0 <= unit < len(boxes):
            raise ValueError(f"unit {unit} is not among the {len(boxes)} channels of layer {layer!r}")
        boxes = boxes[unit]
    else:
        boxes = hull(boxes)
    positions = torch.as_tensor(positions)
    if positions.shape[-1:] != (2,):
        raise ValueError(f"positions have shape {tuple(positions.shape)}, expected [..., 2]: row and column")
    height, width = boxes.shape[:2]
    rows, columns = positions.long().cpu().unbind(-1)
    if ((rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)).any():
        raise ValueError(f"positions hold some outside the {height} x {width} map of layer {layer!r}")
    return boxes[rows, columns]


@in_eager_eval_mode
def receptive_fields(
    network: nn.Module, layers: Sequence[str], image_size: int | Sequence[int], *, channels: int | None = None
) -> dict[str, Tensor]:
    """The receptive fields of all channels and positions of several layers, in four forward passes.

    Returns:
        layer -> int64 [C, h, w, 4] (an expanded view where all channels see alike): top, left, bottom, right.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    shape = (1, channels or input_channels(network, (height, width)), height, width)
    parameter = next(network.parameters(), torch.zeros(()))
    rows = torch.arange(height, dtype=torch.float32, device=parameter.device)[:, None]
    columns = torch.arange(width, dtype=torch.float32, device=parameter.device)
    numberings = (rows, columns, -1 - rows, -1 - columns)  # a box ends where the last two are smallest
    with torch.no_grad():
        layout = layouts(network, parameter.new_zeros(shape), layers)
        minima = [_minima(network, numbers.expand(shape).contiguous(), layers) for numbers in numberings]
    found = {layer: [layout[layer].maps(sides[layer])[0].cpu() for sides in minima] for layer in layers}
    return {layer: _boxes(*sides) for layer, sides in found.items()}


def _minima(network: nn.Module, numbers: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """The smallest of the pixels' numbers that each element of the layers' outputs depends on."""
    minima: dict[str, Tensor] = {}
    floors: dict[str, float] = {}

    def keep(layer: str, output: Tensor) -> None:
        minima[layer], floors[layer] = tracker.minima(output).clone(), tracker.floor

    independent = torch.full((), INDEPENDENT, device=numbers.device)  # of the numbers' type, as all must be
    weights = {
        name: independent.expand_as(tensor)
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
        if tensor.is_floating_point()
    }
    tracker = DependencyMinimum(numbers)
    with output_hooks(network, layers, keep, stop=True), tracker:
        functional_call(network, weights, (numbers,))
    return {layer: minima[layer].clamp(max=floors[layer]) for layer in layers}


def _boxes(top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """The four minima [C, h, w] each as boxes, int64 [C, h, w, 4]; an expanded view where channels agree."""
    minima = torch.stack([top, left, bottom, right], -1)
    if (minima == minima[:1]).all():
        minima = minima[:1]
    boxes = torch.where(minima == INDEPENDENT, 0, minima).long()
    boxes[..., 2:] *= -1
    return boxes.expand(len(top), -1, -1, -1)


@in_eager_eval_mode
def effective_field(
    network: nn.Module, layer: str, unit: int, image: Tensor, position: Sequence[int]
) -> Tensor:
    """The pixels that matter to an activation, at a position (row, column), on this very image [C, H, W]:
    where its gradient is not zero, bool [H, W]."""
    image = image.detach().clone().requires_grad_()
    activation = activations(network, image[None], [layer])[layer][0, unit, position[0], position[1]]
    return (gradient(activation, image, f"layer {layer!r}") != 0).any(0)


def hull(boxes: Tensor) -> Tensor:
    """The smallest box around boxes [n, ..., 4] (top, left, bottom, right), empty ones left out: [..., 4]."""
    empty = (boxes[..., 2:] <= boxes[..., :2]).any(-1, keepdim=True)
    least = boxes[..., :2].masked_fill(empty, torch.iinfo(torch.int64).max).amin(0)
    most = boxes[..., 2:].masked_fill(empty, 0).amax(0)
    return torch.cat([least.masked_fill(empty.all(0), 0), most], -1)


def equal_windows(boxes: Tensor, height: int, width: int) -> Tensor:
    """Windows of one size, int64 [P, 4], that contain the boxes [P, 4] and lie inside the image."""
    size = (boxes[:, 2:] - boxes[:, :2]).amax(0).clamp(min=1)
    room = torch.tensor([height, width]) - size
    middle = (boxes[:, :2] + boxes[:, 2:] - size).div(2, rounding_mode="floor")
    corner = torch.minimum(middle.clamp(min=0), room)
    return torch.cat([corner, corner + size], 1)
