"""Networks that write into their input (`x.sub_(mean)`) get copies, so that callers keep their images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from vitrine.core import random_state
from vitrine.core.network_scopes import eval_mode

_writes: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@contextmanager
def copied_input(network: nn.Module, images: Tensor) -> Iterator[None]:
    """Within the scope callers keep their images, as after `copy_input_if_written`."""
    handle = copy_input_if_written(network, images)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def copy_input_if_written(network: nn.Module, images: Tensor) -> RemovableHandle | None:
    """From now on a network that writes into its input gets copies; others as before, without their cost.

    Args:
        images: [N, C, H, W], on the network's device, left as they are: whether it writes, a pass of them
            tells, once a network.

    Returns:
        What ends it; None where there is nothing to end.
    """
    if _copy_input in network._forward_pre_hooks.values():
        return None
    if network not in _writes:
        _writes[network] = _writes_into(network, images)
    if not _writes[network]:
        return None
    return network.register_forward_pre_hook(_copy_input, prepend=True, with_kwargs=True)


def _writes_into(network: nn.Module, images: Tensor) -> bool:
    with torch.inference_mode(False), torch.no_grad(), eval_mode(network), random_state.seeded(0):
        given = images.detach().clone()
        before = given._version
        network(given)
    return given._version != before


def _copy_input(_network: nn.Module, args: Any, kwargs: Any) -> Any:
    # a proxy where the network is traced: else what is traced would write into its input
    return tree_map_only((Tensor, fx.Proxy), lambda given: given.clone(), (args, kwargs))
