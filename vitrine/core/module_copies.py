"""Copies of modules, and their weights, whatever else they keep."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def copy_module(module: _Module, left_out: Iterable[Any] = ()) -> _Module:
    """A deep copy. Tensors that a module keeps with their history (activations, weights that the older
    `weight_norm` and `spectral_norm` compute), which torch does not copy, are copied as values.

    Args:
        left_out: objects in place of which the copy has None.
    """
    memo: dict[int, Any] = {id(value): None for value in left_out}
    kept = (tensor for inner in module.modules() for tensor in _tensors(vars(inner)))
    memo |= {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf}
    return copy.deepcopy(module, memo)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's state_dict without what modules add of any other type (`get_extra_state`)."""
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _tensors(value: Any, depth: int = 4) -> Iterator[Tensor]:
    """The tensors in containers, and in containers within."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple, set)) and depth:
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(inner, depth - 1)
