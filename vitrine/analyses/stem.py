"""A quicker way back to the pixels: the input gradient of a network's first convolution, on a CPU.

Convolutions of images have one or three input channels, for which the CPU's backward kernels leave most of a
vector register empty; at 7 x 7 and stride 2 they take a quarter of an optimisation's time. The same gradient
is an ordinary convolution of the incoming one, with a channel for each input channel and phase of the stride,
whose outputs are interleaved (Shi 2016).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

MOST_CHANNELS = 4  # of the input; with more the usual way is as quick
LANES = 8  # output channels are made a multiple of what a vector register holds


class QuickStem(TorchFunctionMode):
    """Within the scope, strided convolutions of images on a CPU take the quicker way back to their input.

    Their values are unchanged; their weights and biases get no gradients.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7 and _applies(*args):
            return _Stem.apply(*args[:5])
        return func(*args, **(kwargs or {}))


def _applies(
    input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> bool:
    return (
        input.device.type == "cpu"
        and input.ndim == 4
        and weight.shape[1] <= MOST_CHANNELS
        and input.requires_grad
        and groups == 1
        and tuple(dilation) == (1, 1)
        and len(set(stride)) == 1
        and stride[0] > 1
        and not isinstance(padding, str)
    )


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding = input.shape[-2:], stride[0], padding
        return F.conv2d(input, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return input_gradient(signal, weight, ctx.size, ctx.stride, ctx.padding), None, None, None, None


def input_gradient(signal: Tensor, weight: Tensor, size: Any, stride: int, padding: Any) -> Tensor:
    """The gradient [B, C, *size] of a convolution's input from that of its output [B, K, h, w].

    Args:
        weight: [K, C, kh, kw].
        stride: the same both ways.
        padding: down, right.
    """
    units, channels, *kernel = weight.shape
    high, wide = (-(-side // stride) for side in kernel)
    weight = F.pad(weight, (0, wide * stride - kernel[1], 0, high * stride - kernel[0]))
    phases = weight.view(units, channels, high, stride, wide, stride).permute(1, 3, 5, 0, 2, 4)
    phases = phases.reshape(-1, units, high, wide).flip(2, 3)
    count = len(phases)
    phases = F.pad(phases, (0, 0, 0, 0, 0, 0, 0, -count % LANES)).contiguous(
        memory_format=torch.channels_last
    )
    spread = F.conv2d(signal, phases, padding=(high - 1, wide - 1))[:, :count]
    padded = F.pixel_shuffle(spread, stride)
    (top, left), (height, width) = padding, size
    inside = padded[:, :, top : top + height, left : left + width]
    return F.pad(inside, (0, width - inside.shape[3], 0, height - inside.shape[2]))
