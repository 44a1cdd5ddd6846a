"""The attention probabilities of a network, and the gradient of a class's logit with respect to them.

Kernels fuse softmax(Q K^T) V and never hold the probabilities, and `nn.MultiheadAttention` gives them away on
request only. Within `attention_hooks` attention is computed in steps instead, whoever calls it
(`scaled_dot_product_attention`, `nn.MultiheadAttention`, a softmax followed by a product), and the
probabilities are part of the graph. The network is not changed, and other threads and calls outside of the
scope keep their kernels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitrine.analyses.gradients import NoGradient
from vitrine.analyses.target_scores import class_scores, expect_images
from vitrine.core.network_scopes import in_eager_eval_mode


@dataclass(frozen=True, eq=False)
class Attention:
    """What one module's attention looks like on a batch.

    Global attention has `probabilities` [B, heads, queries, keys], attention within windows (Swin, MaxViT)
    [B, windows, heads, queries, keys]: windows stay windows, in the network's own order. Prefix tokens
    (class, distillation, registers) are among queries and keys. `values` is [..., heads, keys, channels], or
    None where it cannot be told.
    """

    module: str  # dotted name; "name:2" is the second call of a module in a forward pass
    probabilities: Tensor
    values: Tensor | None


@dataclass(frozen=True, eq=False)
class AttentionGradients:
    """Attention by module, and of each module d (logit of the target) / d (probabilities)."""

    maps: dict[str, Tensor]  # as in `Attention`, in the order of computation
    gradients: dict[str, Tensor]  # of the same shapes; 0 where the logit does not depend on a map
    logits: Tensor  # [B, K]


@in_eager_eval_mode
def attention_maps(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The attention probabilities of every module that attends, by its name, in the order of computation.

    Args:
        images: [B, C, H, W] in [0, 1].

    Returns:
        [B, heads, queries, keys] or [B, windows, heads, queries, keys], see `Attention`; empty for a network
        without attention. All are kept: for a large network and many images use `attention_hooks`.
    """
    expect_images(images)
    maps = {}
    with torch.no_grad(), attention_hooks(network, lambda a: maps.update({a.module: a.probabilities})):
        network(images.clone())
    return maps


@in_eager_eval_mode
def attention_gradients(network: nn.Module, images: Tensor, targets: Tensor | int) -> AttentionGradients:
    """Attention probabilities A and d s / d A for the logits s of targets (class indices [B], or one).

    One forward and one backward pass; below the first attention nothing is computed backwards, and no
    parameter's gradient.

    Raises:
        NoGradient (a ValueError): the logits let none flow back.
        ValueError: images or targets are not as described.
    """
    expect_images(images)
    maps = {}
    with torch.no_grad():
        with attention_hooks(network, lambda a: maps.update({a.module: a.probabilities}), graph=True):
            logits = network(images.clone())
        targets = torch.as_tensor(targets, device=images.device)
        with torch.enable_grad():  # a no_grad of the network's own has ended with its forward pass
            score = class_scores(logits, targets.expand(len(images)), "logit").sum()
    gradients = [torch.zeros_like(a) for a in maps.values()]
    if score.requires_grad:
        of = torch.autograd.grad(score, list(maps.values()), allow_unused=True)
        gradients = [zero if found is None else found for zero, found in zip(gradients, of)]
    elif maps:
        raise NoGradient("its logits", "attention")
    detached = {name: a.detach() for name, a in maps.items()}
    return AttentionGradients(detached, dict(zip(maps, gradients)), logits.detach())


@contextmanager
def attention_hooks(
    network: nn.Module, on_attention: Callable[[Attention], object], graph: bool = False
) -> Iterator[None]:
    """Within the scope every forward pass calls `on_attention` whenever a module has computed attention.

    Nothing is kept here, so that memory does not grow with blocks and heads. Attention that mixes images of a
    batch, or is written in neither way known here, is not seen.

    Args:
        graph: gradients with respect to the probabilities can be taken, even if neither images nor parameters
            require any: from the first attention to the end of the caller's `no_grad` a graph is recorded.
    """
    stack, calls, batch = [""], Counter(), [0]

    def begin(_module: nn.Module, args: Any, kwargs: Any) -> None:
        calls.clear()
        batch[:] = [len(next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)))]

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: stack.append(name)

    def leave(*_: Any) -> None:
        stack.pop()

    def found(probabilities: Tensor, values: Tensor | None) -> None:
        calls[stack[-1]] += 1
        count = calls[stack[-1]]
        name = stack[-1] if count == 1 else f"{stack[-1]}:{count}"
        on_attention(Attention(name, probabilities, values))

    def by_image(weights: Tensor) -> tuple[Tensor | None, bool]:
        module = network.get_submodule(stack[-1])
        heads = next((n for key in ("num_heads", "heads") if (n := getattr(module, key, None))), None)
        return _by_image(weights, batch[0], heads)

    handles = [network.register_forward_pre_hook(begin, with_kwargs=True, prepend=True)]
    for name, module in network.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(enter(name), prepend=True))
            handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        with _InSteps(found, by_image, graph):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _InSteps(TorchFunctionMode):
    """Within the scope attention is computed in steps, and `found(probabilities, values)` is called.

    Args:
        by_image: probabilities as `_by_image` gives them.
    """

    def __init__(
        self,
        found: Callable[[Tensor, Tensor | None], None],
        by_image: Callable[[Tensor], tuple[Tensor | None, bool]],
        graph: bool,
    ):
        super().__init__()
        self.found, self.by_image, self.graph = found, by_image, graph
        # the last softmax's result: as `by_image` gives it, and as the network has it
        self.last: tuple[Tensor, Tensor] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name == "scaled_dot_product_attention":
            return self._attend(*args, **kwargs)
        if name == "multi_head_attention_forward":
            with self:
                return _multi_head_attention(*args, **kwargs)
        result = func(*args, **kwargs)
        if name == "softmax" and _is_over_last(result, *args[1:2], **kwargs):
            result = self._expose(result)
        elif self.last is not None and name in _PRODUCTS:
            operands = [x for x in _flat(args) if isinstance(x, Tensor)]
            if any(_share_memory(x, self.last[1]) for x in operands):
                self._report(next((x for x in operands if not _share_memory(x, self.last[1])), None))
        elif self.last is not None and name in _PASSING and _share_memory(args[0], self.last[1]):
            self.last = self.last[0], result
        return result

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """`scaled_dot_product_attention` as its documentation defines it."""
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        scores = (query * scale) @ key.mT
        if is_causal:
            attn_mask = torch.ones_like(scores, dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = self._expose(scores.softmax(-1))
        self._report(value)
        return F.dropout(weights, dropout_p) @ value

    def _expose(self, weights: Tensor) -> Tensor:
        """The same probabilities, computed from those that `found` gets."""
        self.last = None
        if weights.ndim < 3 or not weights.is_floating_point():
            return weights
        if self.graph and not weights.requires_grad:
            torch.set_grad_enabled(True)
            weights = weights.detach().requires_grad_().clone()  # the network may write into it
        exposed, axes_swapped = self.by_image(weights)
        if exposed is None:
            return weights
        # what the network goes on with comes from what is exposed, which so has a gradient
        weights = (exposed.transpose(1, 2) if axes_swapped else exposed).reshape(weights.shape)
        self.last = exposed, weights
        return weights

    def _report(self, values: Tensor | None) -> None:
        if self.last is None:
            return
        probabilities, self.last = self.last[0], None
        shape = (*probabilities.shape[:-2], probabilities.shape[-1])
        fits = values is not None and values.shape[:-1].numel() == math.prod(shape)
        self.found(probabilities, values.reshape(*shape, -1) if fits else None)


_PRODUCTS = ("matmul", "rmatmul", "bmm", "baddbmm", "einsum")
_PASSING = ("dropout", "to", "type", "type_as", "float", "half", "bfloat16", "contiguous", "clone")

# The function itself would hand a call within a mode to the mode, which then sees nothing of what it does.
_multi_head_attention = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


def _by_image(weights: Tensor, batch: int, heads: int | None) -> tuple[Tensor | None, bool]:
    """Probabilities [..., queries, keys] as [B, heads, queries, keys] or [B, windows, heads, queries, keys],
    a view, and whether heads and windows have changed places; None where images of the batch are mixed."""
    if batch == 0 or weights.shape[0] % batch:
        return None, False
    if weights.ndim == 3:
        return weights.unflatten(0, (batch, -1)), False
    if weights.ndim == 5 and weights.shape[1] == heads != weights.shape[2]:  # as Hiera has them
        return weights.transpose(1, 2), True
    weights = weights.reshape(batch, -1, *weights.shape[-3:])
    return weights[:, 0] if weights.shape[1] == 1 else weights, False


def _is_over_last(result: Tensor, dim: int | None = None, **_: Any) -> bool:
    return dim is not None and dim % result.ndim == result.ndim - 1


def _share_memory(x: Any, y: Tensor) -> bool:
    same = isinstance(x, Tensor) and x.dtype == y.dtype and x.device == y.device
    return same and x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def _flat(args: Any) -> list[Any]:
    return [x for arg in args for x in (arg if isinstance(arg, (list, tuple)) else [arg])]
