"""Layers that slide a window over their maps: how far it reaches, and what it gives of a part of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Window:
    """How a convolution or a maximum slides, down and across."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    fill: float  # beyond the border

    def reach(self, axis: int) -> int:
        """How far its last position is from its first."""
        return self.dilation[axis] * (self.kernel[axis] - 1)

    @staticmethod
    def slide(module: nn.Module, maps: Tensor) -> Tensor:
        """What a layer gives of maps that have their border already."""
        if isinstance(module, nn.Conv2d):
            weights = (module.weight, module.bias)
            return F.conv2d(maps, *weights, module.stride, 0, module.dilation, module.groups)
        return F.max_pool2d(maps, module.kernel_size, module.stride, 0, module.dilation)


def slides(module: nn.Module | None) -> Window | None:
    """How a layer slides; None for others."""
    if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return Window(module.kernel_size, module.stride, module.padding, module.dilation, 0.0)
    if type(module) is nn.MaxPool2d and not module.ceil_mode and not module.return_indices:
        settings = (module.kernel_size, module.stride, module.padding, module.dilation)
        return Window(*((s, s) if isinstance(s, int) else tuple(s) for s in settings), -torch.inf)
    return None
