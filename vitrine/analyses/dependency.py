"""The smallest of the numbers that each element of a network's tensors depends on.

Give every pixel a number (its row, say), and let every operation return, in place of its result, the minimum
of what each element of the result depends on: a convolution the minimum over its window, a sum the minimum of
its terms. What only rearranges elements (slices, concatenations, channel shuffles, shifted windows) runs as
it is. An operation without a rule counts as mixing all its arguments, so that no number is ever too large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

INDEPENDENT = float("inf")  # the minimum of what depends on no pixel: parameters, constants, padding


class DependencyMinimum(TorchDispatchMode):
    """Within the scope, the elements of every floating-point tensor computed from `numbers` are minima.

    Args:
        numbers: of the pixels, float32, [N, C, H, W].

    Attributes:
        floor: the minimum of what indices and Python's numbers depend on, and so all that is computed later.
    """

    def __init__(self, numbers: Tensor):
        super().__init__()
        self.floor = INDEPENDENT
        # dependent tensor -> its minima where it does not hold them itself: a comparison's result is a mask
        self._dependent = WeakTensorKeyDictionary({numbers: None})

    def minima(self, tensor: Tensor) -> Tensor:
        """The minima of a tensor's elements, of its shape."""
        if tensor not in self._dependent:
            return torch.full((), INDEPENDENT, device=tensor.device).expand(tensor.shape)
        minima = self._dependent[tensor]
        return tensor if minima is None else minima

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if not any(t in self._dependent for t in tensors):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        name = name.removesuffix("_") if func._schema.is_mutable else name
        if name in REARRANGING:
            return self._rearrange(func, name, args, kwargs)
        minima = None
        if name in RULES and not func._schema.is_mutable:
            minima = RULES[name](**_bind(func, *tree_map_only(Tensor, self.minima, (args, kwargs))))
        elif name in ELEMENTWISE or torch.Tag.pointwise in func.tags:
            minima = reduce(torch.minimum, map(self.minima, tensors)).clone()
        if minima is None:
            return self._mix(func, tensors[1:] if name in FILLING else tensors, args, kwargs)
        if func._schema.is_mutable:
            return self._write(_written(func, args, kwargs)[0], minima)
        if name not in RULES:
            scalars = tree_map_only(Tensor, lambda t: torch.zeros((), dtype=t.dtype), (args, kwargs))
            dtype = func(*scalars[0], **scalars[1]).dtype
            if not dtype.is_floating_point:
                mask = torch.zeros(minima.shape, dtype=dtype, device=minima.device)
                self._dependent[mask] = minima
                return mask
        self._dependent[minima] = None
        outputs = [minima if str(output.type) == "Tensor" else 0 for output in func._schema.returns]
        return tuple(outputs) if len(outputs) > 1 else minima

    def _rearrange(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """An operation that moves minima as it moves values."""

        def values(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point():
                return self.minima(tensor)
            self.floor = min(self.floor, self.minima(tensor).min().item())
            return tensor  # an index

        written = _written(func, args, kwargs)[0] if func._schema.is_mutable else None
        args, kwargs = tree_map_only(Tensor, lambda t: t if t is written else values(t), (args, kwargs))
        if name == "constant_pad_nd":
            args = (*args[:2], INDEPENDENT)
        if written is not None:
            func(*args, **kwargs)
            return self._mark(written)
        return tree_map_only(Tensor, self._mark, func(*args, **kwargs))

    def _mix(self, func: Any, inputs: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        """An operation each of whose results may depend on all inputs."""
        least = min((self.minima(t).min().item() for t in inputs if t.numel()), default=INDEPENDENT)
        if func._schema.is_mutable:
            written = [self._write(t, torch.tensor(least)) for t in _written(func, args, kwargs)]
            return written[0] if len(written) == 1 else tuple(written)
        args, kwargs = tree_map_only(Tensor, torch.zeros_like, (args, kwargs))  # kernels may crash on others
        result = func(*args, **kwargs)
        for output in tree_leaves(result):
            if isinstance(output, Tensor) and output.is_floating_point():
                self._mark(output.fill_(least))
            else:
                self.floor = min(self.floor, least)
        return result

    def _write(self, target: Tensor, minima: Tensor) -> Tensor:
        if target.is_floating_point():
            return self._mark(target.copy_(minima))
        self._dependent[target] = minima.to(target.device).expand(target.shape)
        return target

    def _mark(self, tensor: Tensor) -> Tensor:
        """Note that a tensor's elements are minima, and those of the memory that it is a view of."""
        for part in (tensor, tensor._base):
            if part is not None and part.is_floating_point():
                self._dependent[part] = None
        return tensor


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes to: the first argument of one in place, `out` of others."""
    given = _bind(func, args, kwargs)
    names = (p.name for p in func._schema.arguments if p.alias_info is not None and p.alias_info.is_write)
    return [tensor for name in names for tensor in tree_leaves(given[name]) if isinstance(tensor, Tensor)]


def _bind(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of an operation by name, defaults included."""
    parameters = func._schema.arguments
    given = {p.name: value for p, value in zip(parameters, args)}
    return {p.name: p.default_value for p in parameters} | given | kwargs


def _convolution(
    input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Tensor | None:  # fmt: skip
    if transposed or input.ndim != 4:
        return None
    input = input.unflatten(1, (groups, -1)).amin(2)
    pads = [p for p in (padding[-1], padding[0]) for _ in range(2)]
    windows = -F.max_pool2d(-F.pad(input, pads, value=INDEPENDENT), weight.shape[2:], stride, 0, dilation)
    return windows.repeat_interleave(len(weight) // groups, 1)


def _max_pool(
    self: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1, ceil_mode: bool = False,
    **_: Any,
) -> Tensor:  # fmt: skip
    return -F.max_pool2d(-self, kernel_size, stride or None, padding, dilation, ceil_mode)


def _adaptive_pool(self: Tensor, output_size: Any) -> Tensor:
    return -F.adaptive_max_pool2d(-self, output_size)  # an average's cells are the same


def _reduction(self: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    return self.amin([dim] if isinstance(dim, int) else list(dim or range(self.ndim)), keepdim)


def _normalization(input: Tensor, dims: Any) -> Tensor:
    """Every element depends on all elements along some dimensions."""
    return input.amin(list(dims), keepdim=True).expand_as(input).clone() if dims else input.clone()


def _batch_norm(input: Tensor, training: bool = False, **_: Any) -> Tensor:
    return _normalization(input, [d for d in range(input.ndim) if d != 1] if training else [])


def _product(rows: Tensor, columns: Tensor, added: Tensor | None = None) -> Tensor:
    result = torch.minimum(rows.amin(-1, keepdim=True), columns.amin(-2, keepdim=True))
    return result if added is None else torch.minimum(result, added)


def _attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    return _product(torch.minimum(query.amin(-1, True), key.amin((-2, -1), True)), value)


def _rules(names: str, rule: Any = None) -> dict[str, Any]:
    return dict.fromkeys(names.split(), rule)


RULES: Mapping[str, Callable[..., Tensor | None]] = {
    "convolution": _convolution,
    "_softmax": lambda self, dim, **_: _normalization(self, [dim]),
    "native_layer_norm": lambda input, normalized_shape, **_: _normalization(
        input, range(-len(normalized_shape), 0)
    ),
    "native_group_norm": lambda input, **_: _normalization(input, range(1, input.ndim)),
    "addmm": lambda self, mat1, mat2, **_: _product(mat1, mat2, self),
    "baddbmm": lambda self, batch1, batch2, **_: _product(batch1, batch2, self),
    **_rules("mm bmm", lambda self, mat2, **_: _product(self, mat2)),
    **_rules("max_pool2d max_pool2d_with_indices avg_pool2d", _max_pool),
    **_rules("_adaptive_avg_pool2d adaptive_max_pool2d", _adaptive_pool),
    **_rules("mean sum amax amin max min var std prod logsumexp linalg_vector_norm", _reduction),
    **_rules(
        "native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm",
        _batch_norm,
    ),
    **_rules(
        """_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
        _scaled_dot_product_attention_math""",
        _attention,
    ),
}
ELEMENTWISE = _rules("hardswish _prelu_kernel _to_copy native_dropout")  # not tagged pointwise
FILLING = _rules(  # they use the shape of their first argument alone
    "fill zero new_zeros new_ones new_full new_empty zeros_like ones_like full_like empty_like"
)
REARRANGING = _rules(
    """view _unsafe_view _reshape_alias reshape permute transpose t squeeze unsqueeze expand repeat slice
    select split split_with_sizes unbind cat stack roll flip index index_select gather copy constant_pad_nd
    reflection_pad2d replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    unfold alias detach clone upsample_nearest2d"""
)
