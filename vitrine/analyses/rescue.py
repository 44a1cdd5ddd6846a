"""A way up for dead units: gradients that pass a ReLU which would stop all of an image's (Olah 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def push_up(input: Tensor, ceiling: float | None = None, in_place: bool = False) -> Tensor:
    """ReLU; back passes what its slope lets pass or, of an image it stops altogether, what pushes inputs up.

    A rule for `relu_rules.ReluRule`, for gradients of what is to be maximised.
    """
    output = _PushUp.apply(input, ceiling)
    return input.copy_(output) if in_place else output


class _PushUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, ceiling: float | None) -> Tensor:
        ctx.save_for_backward(input > 0 if ceiling is None else (input > 0) & (input < ceiling))
        return input.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        (open_,) = ctx.saved_tensors
        passed = signal * open_
        stopped = (passed.flatten(1).abs().amax(1) == 0).view(-1, *[1] * (signal.ndim - 1))
        return torch.where(stopped, signal.clamp_min(0), passed), None
