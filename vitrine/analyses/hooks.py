"""Named modules of a network, and hooks on what they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from vitrine.core.network_scopes import eval_mode
from vitrine.core.registry import UnknownName


class _AllReached(Exception):
    """All requested layers have been computed."""


def module_at(network: nn.Module, layer: str) -> nn.Module:
    """The submodule under a dotted name; UnknownName with the nearest names where there is none."""
    return modules_at(network, [layer])[layer]


def modules_at(network: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    """The submodules under dotted names; UnknownName with the nearest names for the first that is none."""
    modules = dict(network.named_modules(remove_duplicate=False))  # a shared module answers to all its names
    for layer in layers:
        if not layer or layer not in modules:
            raise UnknownName("layer", layer, [name for name in modules if name])
    return {layer: modules[layer] for layer in layers}


def input_channels(network: nn.Module, size: Sequence[int]) -> int:
    """How many channels the images [B, C, H, W] have that a network takes; `size` is H, W.

    As many as the first convolution or dense layer that images of so many channels reach; where none is
    reached (images of that size may not be taken), as the first has.
    """
    parameter = next(network.parameters(), torch.zeros(()))
    tried = []
    for layer, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            channels = module.in_channels
        elif isinstance(module, nn.Linear) and module.in_features % math.prod(size) == 0:
            channels = module.in_features // math.prod(size)
        else:
            continue
        tried.append(channels)
        with suppress(RuntimeError, ValueError, AssertionError), eval_mode(network), torch.no_grad():
            with output_hooks(network, [layer], lambda *_: None, stop=True):
                network(parameter.new_zeros(1, channels, *size))
            return channels
    if tried:
        return tried[0]
    raise ValueError(
        f"no convolution or dense layer of the network takes images of {size[0]} x {size[1]} pixels"
    )


def first_tensor(output: object) -> Tensor | None:
    """A module's output, the first in a tuple or list of outputs; None where that is no tensor."""
    if type(output) in (tuple, list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


@contextmanager
def output_hooks(
    network: nn.Module,
    layers: Sequence[str],
    on_output: Callable[[str, Tensor], Tensor | None],
    stop: bool = False,
) -> Iterator[None]:
    """Within the scope, in which one forward pass runs, `on_output(layer, output)` is called with the raw
    output of each named module's first call, the first tensor of one that gives a tuple.

    What it returns, unless None, takes the output's place. With `stop` the scope, and so the pass, ends as
    soon as every layer was reached.

    Raises:
        UnknownName: there is no such layer.
        ValueError: a layer gives no tensor, or was not reached.
    """
    reached: set[str] = set()

    def hook(layer: str):
        def on_forward(_module: nn.Module, _inputs: object, output: object) -> object:
            if layer in reached:
                return None
            first = first_tensor(output)
            if first is None:
                raise ValueError(f"layer {layer!r} gives a {type(output).__name__}, expected a tensor")
            reached.add(layer)
            replacement = on_output(layer, first)
            if stop and len(reached) == len(wanted):
                raise _AllReached
            if replacement is None or first is output:
                return replacement
            return type(output)((replacement, *output[1:]))

        return on_forward

    wanted = modules_at(network, layers)
    handles = [module.register_forward_hook(hook(layer)) for layer, module in wanted.items()]
    try:
        yield
    except _AllReached:
        return
    finally:
        for handle in handles:
            handle.remove()
    for layer in wanted:
        if layer not in reached:
            raise ValueError(f"layer {layer!r} takes no part in the forward pass")
