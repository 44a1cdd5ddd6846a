"""A network's structure apart from what it has learned: the same modules and operations on random weights.

Which axes of a module's output are rows, columns and channels, and whether the logits depend on it, are
properties of the structure. On random weights they can be measured even where the network's own derivatives
are zero or NaN: zero-initialised heads and branches, dead ReLUs, diverged training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

CONVOLUTION, DENSE = 0.5, 0.1  # gains: small, so that a residual branch adds little to what passes by it


def forward_on_random_weights(network: nn.Module, images: Tensor) -> Any:
    """The network's output on images [B, C, H, W], its weights replaced for this pass; in the images' own
    precision, at least float32.

    The weights are the same at every call: matrices and kernels normal with standard deviation
    gain / sqrt(inputs), one-dimensional biases 0 and scales 1; running statistics those of standardised
    values.
    """
    generator = torch.Generator().manual_seed(0)
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    weights = {}
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if not tensor.is_floating_point():
            continue
        value = tensor.detach()
        if name.endswith("running_mean"):
            value = torch.zeros_like(value)
        elif name.endswith("running_var"):
            value = torch.ones_like(value)
        elif isinstance(tensor, nn.Parameter) and tensor.ndim < 2:
            value = torch.full_like(value, float(not name.endswith("bias")))
        elif isinstance(tensor, nn.Parameter):
            gain = DENSE if tensor.ndim == 2 else CONVOLUTION
            value = torch.randn(tensor.shape, generator=generator) * gain / tensor.shape[1] ** 0.5
        weights[name] = value.to(tensor.device, torch.promote_types(tensor.dtype, images.dtype))
    return functional_call(network, weights, (images,))


class PassRelus(TorchDispatchMode):
    """Within the scope ReLUs give their inputs: no unit is dead, and what a ReLU reads always matters."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        match func.overloadpacket.__name__:
            case "relu" | "hardtanh" | "threshold":
                return args[0].clone()
            case "relu_" | "hardtanh_" | "threshold_":
                return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def local_operations() -> Iterator[None]:
    """Within the scope an operation on a window reads its centre alone: convolution, pooling, self-attention
    (each position its own value).

    An element of a map then depends on pixels at its own place only, apart from what mixes all positions
    (squeeze-excitation, normalisation over space, dense layers across tokens).
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation for a whole block, attention included
    try:
        with _LocalOperations():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


class _LocalOperations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "convolution" and not args[6]:  # not a transposed one
            args = (args[0], _centre_tap(args[1]), *args[2:])
        result = func(*args, **(kwargs or {}))
        if name == "max_pool2d_with_indices":
            return _window_centres(result[0], *args[:4]), result[1]
        if name in ("max_pool2d", "avg_pool2d"):
            return _window_centres(result, *args[:4])
        if name in ("_softmax", "_safe_softmax") and result.ndim > 2 and result.shape[-2] == result.shape[-1]:
            return torch.eye(result.shape[-1]).to(result).expand_as(result).contiguous()
        if name.startswith("_scaled_dot_product") and result[0].shape == args[2].shape:
            return args[2].clone(), *result[1:]
        return result


def _centre_tap(weight: Tensor) -> Tensor:
    centre = (..., *(size // 2 for size in weight.shape[2:]))
    tap = torch.zeros_like(weight)
    tap[centre] = weight[centre]
    return tap


def _window_centres(pooled: Tensor, x: Tensor, kernel: Any, stride: Any = (), padding: Any = (0,)) -> Tensor:
    """Of x [..., H, W], instead of the pools [..., h, w] over its windows, the elements at their centres."""
    for axis, i in ((-2, 0), (-1, -1)):
        size, step, pad = list(kernel)[i], list(stride or kernel)[i], list(padding)[i]
        centres = torch.arange(pooled.shape[axis], device=x.device) * step + size // 2 - pad
        x = x.index_select(axis, centres.clamp(0, x.shape[axis] - 1))
    return x
