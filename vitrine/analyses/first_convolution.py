"""A faster input gradient of a network's first convolution, on a CPU.

Convolutions of images have one or three input channels, for which the CPU's backward kernels leave most of a
vector register empty; at 7 x 7 and stride 2 they take a quarter of an optimisation's time. The same gradient
is an ordinary convolution of the output's gradient, with a channel for each input channel and phase of the
stride, followed by a pixel shuffle (Shi 2016).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

MAX_CHANNELS = 4  # of the input; with more, autograd is as fast
LANES = 8  # output channels are padded to a multiple of what a vector register holds


class FastFirstConvolution(TorchFunctionMode):
    """Within the scope, strided convolutions of images on a CPU compute input gradients by
    `convolution_input_gradient`; values are unchanged, and weights and biases get no gradients."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7 and _is_supported(*args):
            return _Convolution.apply(*args[:5])
        return func(*args, **(kwargs or {}))


def _is_supported(
    input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> bool:
    return (
        input.device.type == "cpu"
        and input.ndim == 4
        and weight.shape[1] <= MAX_CHANNELS
        and input.requires_grad
        and groups == 1
        and tuple(dilation) == (1, 1)
        and len(set(stride)) == 1
        and stride[0] > 1
        and not isinstance(padding, str)
    )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding = input.shape[-2:], stride[0], padding
        return F.conv2d(input, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        gradient = convolution_input_gradient(gradient, weight, ctx.size, ctx.stride, ctx.padding)
        return gradient, None, None, None, None


def convolution_input_gradient(
    gradient: Tensor, weight: Tensor, size: Any, stride: int, padding: Any
) -> Tensor:
    """The gradient [B, C, *size] of a convolution's input from the gradient [B, K, h, w] of its output.

    Args:
        weight: [K, C, kh, kw].
        stride: of rows and columns alike.
        padding: of rows, of columns.
    """
    units, channels, *kernel = weight.shape
    rows, columns = (-(-side // stride) for side in kernel)
    weight = F.pad(weight, (0, columns * stride - kernel[1], 0, rows * stride - kernel[0]))
    phases = weight.reshape(units, channels, rows, stride, columns, stride).permute(1, 3, 5, 0, 2, 4)
    phases = phases.reshape(-1, units, rows, columns).flip(2, 3)
    count = len(phases)
    phases = F.pad(phases, (0, 0, 0, 0, 0, 0, 0, -count % LANES))
    phases = phases.contiguous(memory_format=torch.channels_last)
    phases = phases.to(gradient.dtype)  # bfloat16 under autocast
    shuffled = F.conv2d(gradient, phases, padding=(rows - 1, columns - 1))[:, :count]
    padded = F.pixel_shuffle(shuffled, stride)
    (top, left), (height, width) = padding, size
    inside = padded[:, :, top : top + height, left : left + width]
    return F.pad(inside, (0, width - inside.shape[3], 0, height - inside.shape[2]))
