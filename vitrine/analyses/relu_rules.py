"""Backward rules for ReLUs, the network unchanged: guided backpropagation, deconvnet, redirected ReLUs.

A `TorchFunctionMode` intercepts every call of a torch function in its scope and replaces each ReLU, whether
module, function or method, in-place or not, called once or twice. Module hooks miss some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Rule = Callable[[Tensor, float | None, bool], Tensor]
"""(input, ceiling or None, in place) -> ReLU of the input, with another backward rule."""


def guided_relu(input: Tensor, ceiling: float | None = None, in_place: bool = False) -> Tensor:
    """ReLU whose backward passes positive gradients where the forward is linear (Springenberg 2015)."""
    return _hooked_relu(input, ceiling, in_place, _keep_positive)


def _hooked_relu(
    input: Tensor, ceiling: float | None, in_place: bool, hook: Callable[..., tuple[Tensor, ...] | None]
) -> Tensor:
    """ReLU with a hook on its backward: (gradients, signals) -> other gradients, or None."""
    if in_place and input._is_view():  # of a view, grad_fn is not the ReLU's own node
        return input.copy_(_hooked_relu(input, ceiling, False, hook))
    if ceiling is None:
        output = input.relu_() if in_place else input.relu()
    else:
        output = F.hardtanh(input, 0.0, ceiling, in_place)
    if output.grad_fn is not None:
        output.grad_fn.register_hook(hook)
    return output


def _keep_positive(gradients: tuple[Tensor, ...], _signals: tuple[Tensor, ...]) -> None:
    gradients[0].relu_()  # in place: nothing else holds it yet


def deconvnet_relu(input: Tensor, ceiling: float | None = None, in_place: bool = False) -> Tensor:
    """ReLU whose backward passes positive gradients, whatever the input (Zeiler & Fergus 2014)."""
    if in_place and input._is_view():
        return input.copy_(deconvnet_relu(input, ceiling))
    return _Deconvnet.apply(input, ceiling, in_place)


class _Deconvnet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, ceiling: float | None, in_place: bool) -> Tensor:
        if in_place:
            ctx.mark_dirty(input)
            return input.relu_() if ceiling is None else input.clamp_(0, ceiling)
        return input.relu() if ceiling is None else input.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None, None]:
        return signal.relu(), None, None


class SwitchedRelu:
    """A rule that is chosen after the forward pass: `backward` is set before gradients are taken, any number
    of times.

    With "gradient" they are the ReLU's own, with "guided_backprop" and "deconvnet" as of `guided_relu` and
    `deconvnet_relu`.
    """

    def __init__(self) -> None:
        self.backward = "gradient"

    def __call__(self, input: Tensor, ceiling: float | None = None, in_place: bool = False) -> Tensor:
        return _hooked_relu(input, ceiling, in_place, self._replace)

    def _replace(
        self, gradients: tuple[Tensor, ...], signals: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...] | None:
        if self.backward == "guided_backprop":
            return _keep_positive(gradients, signals)
        return (signals[0].relu(),) if self.backward == "deconvnet" else None


def redirected_relu(input: Tensor, ceiling: float | None = None, in_place: bool = False) -> Tensor:
    """ReLU; back passes the gradient or, where that is zero for a whole image, all of the incoming signal
    that increases inputs, for dead units (Olah 2017). For gradients of what is maximised."""
    output = _Redirected.apply(input, ceiling)
    return input.copy_(output) if in_place else output


class _Redirected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, ceiling: float | None) -> Tensor:
        ctx.save_for_backward(input > 0 if ceiling is None else (input > 0) & (input < ceiling))
        return input.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        (active,) = ctx.saved_tensors
        gradient = signal * active
        blocked = (gradient.flatten(1).abs().amax(1) == 0).view(-1, *[1] * (signal.ndim - 1))
        return torch.where(blocked, signal.clamp_min(0), gradient), None


class NoRule(ValueError):
    """The network has an activation function for which there is no agreed rule, or no ReLU at all."""


class ReluRule(TorchFunctionMode):
    """Within the scope, gradients pass every ReLU and ReLU6 by `rule`; forward values are unchanged.

    The rule is part of the graph: take the gradients inside or outside the scope. A ReLU is relu, relu6,
    hardtanh with floor 0, threshold at 0, or clamp at 0 (without ceiling, or with 6), as function, method or
    module. What is scripted (`torch.jit`) or written as `x * (x > 0)` is not replaced.

    Args:
        rule: the backward rule.
        unsupported: functions that raise NoRule when they are called, by name, with what the message calls
            them; those without an agreed rule (GELU, SiLU, leaky ReLU, ...) unless given.

    Attributes:
        count: the number of ReLUs called so far.
        clamps: how many of them are clamps at 0, whose own gradient passes where the input is 0, too.
    """

    def __init__(self, rule: Rule, unsupported: Mapping[str, str] | None = None):
        super().__init__()
        self.rule, self.count, self.clamps = rule, 0, 0
        self.unsupported = _UNSUPPORTED if unsupported is None else unsupported

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")  # relu_ is in place, F.threshold is named _threshold
        if name in _RELUS:
            relu = _RELUS[name](*args, **kwargs)
            if relu is not None:
                self.count += 1
                self.clamps += name in _CLAMPS
                input, ceiling, in_place = relu
                return self.rule(input, ceiling, in_place or func.__name__.endswith("_"))
        elif name in self.unsupported:
            raise NoRule(
                f"guided backprop and deconvnet are for ReLUs, and the network uses "
                f"{self.unsupported[name]}: use input_gradient, smooth_grad or integrated_gradients"
            )
        return func(*args, **kwargs)

    def require_relus(self) -> None:
        """Raise NoRule if no ReLU was called: the result would be the plain gradient under another name."""
        if not self.count:
            raise NoRule(
                "guided backprop and deconvnet are for ReLUs, and none was met on the way from the images: "
                "use input_gradient, smooth_grad or integrated_gradients"
            )


# Each function's arguments -> (input, ceiling, in place), or None where it is no ReLU.
_Relu = tuple[Tensor, float | None, bool] | None


def _hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> _Relu:
    return (input, float(max_val), inplace) if min_val == 0 else None


def _threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> _Relu:
    return (input, None, inplace) if threshold == 0 and value == 0 else None


def _clamp(input: Tensor, min: Any = None, max: Any = None, **_rest: Any) -> _Relu:
    floor, ceiling = (
        b.item() if isinstance(b, Tensor) and b.ndim == 0 and b.device.type == "cpu" else b
        for b in (min, max)
    )
    if not isinstance(floor, (int, float)) or floor != 0 or _rest.get("out") is not None:
        return None
    if ceiling is None:
        return input, None, False
    return (input, 6.0, False) if isinstance(ceiling, (int, float)) and ceiling == 6 else None


_RELUS: dict[str, Callable[..., _Relu]] = {
    "relu": lambda input, inplace=False: (input, None, inplace),
    "relu6": lambda input, inplace=False: (input, 6.0, inplace),
    "hardtanh": _hardtanh,
    "threshold": _threshold,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp,
}

_CLAMPS = ("clamp", "clip", "clamp_min")

_UNSUPPORTED = {
    "gelu": "GELU",
    "silu": "SiLU",
    "hardswish": "Hardswish",
    "mish": "Mish",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "leaky_relu": "leaky ReLU",
    "prelu": "PReLU",
    "rrelu": "randomised leaky ReLU",
    "softplus": "softplus",
}
