"""The choice of layers and units to analyse, for any architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd

from vitrine.analyses.hooks import first_tensor, output_hooks
from vitrine.analyses.layout import layout_of, layouts, probe
from vitrine.core.network_scopes import in_eager_eval_mode


@dataclass(eq=False)
class _Call:
    """A module's first call in a forward pass."""

    name: str
    module: nn.Module
    parent: _Call | None
    size: tuple[int, int] | None = None  # of its output map; None for other outputs
    tokens: bool = False  # whether the output is a token grid
    structured: bool = False  # whether the output is no tensor, but several, or an object that has them
    inside: list[_Call] = field(default_factory=list)  # called by it, in order of completion

    @property
    def is_multi_resolution(self) -> bool:
        """Whether it is a sequence of several resolutions, and so not a layer of one."""
        return isinstance(self.module, nn.Sequential) and len({c.size for c in self.inside if c.size}) > 1

    @property
    def only_contains(self) -> bool:
        """Whether it is no block itself, but what holds blocks or stages of several resolutions."""
        if isinstance(self.module, nn.Sequential):
            return len({child.size for child in self.inside if child.inside}) > 1
        lists = any(isinstance(child, nn.ModuleList) for child in self.module.children())
        return self.structured and lists  # as the encoders of transformers are

    def callers(self, trunk: _Call) -> list[_Call]:
        """The calls between it and the trunk."""
        callers, call = [], self.parent
        while call is not trunk:
            callers.append(call)
            call = call.parent
        return callers


@in_eager_eval_mode
def auto_layers(network: nn.Module, images: Tensor) -> list[str]:
    """The last module at each spatial resolution, shallow to deep, found by one forward pass.

    Stages and blocks are preferred to what they are made of ("layer3", not "layer3.1.relu") and to a layer
    that prepares the next resolution (a norm, an expansion inside the next block). 1 x 1 maps, adaptive pools
    and the head are left out. Token grids count as [B, C, h, w] maps; of a transformer's encoder,
    all of one resolution, the last block is taken. A network without maps gets its last layer.

    Args:
        images: [B, C, H, W], a probe; one image is enough.
    """
    root = _calls(network, images)
    trunk, calls = _trunk(root)
    best: dict[tuple[int, int], tuple[tuple, int, _Call]] = {}
    for order, call in enumerate(calls):
        if (
            call.size is None
            or call.is_multi_resolution
            or isinstance(call.module, _AdaptiveAvgPoolNd | _AdaptiveMaxPoolNd)
        ):
            continue
        callers = [caller for caller in call.callers(trunk) if not caller.only_contains]
        blocks = sum(not isinstance(caller.module, nn.Sequential) for caller in callers)
        if blocks > 1:  # deep inside a block, where a map may be a window or a table
            continue
        rank = (-blocks, bool(call.inside), -len(callers), order)
        if call.size not in best or rank > best[call.size][0]:
            best[call.size] = (rank, order, call)
    if not best:
        return [call.name for call in _flat(root)[:-1] if any(True for _ in call.module.parameters())][-1:]
    return [_last_block(call).name for _, _, call in sorted(best.values(), key=lambda found: found[1])]


@in_eager_eval_mode
def choose_units(
    network: nn.Module, images: Tensor, layers: str | Sequence[str] = "auto", units: int | Sequence[int] = 8
) -> dict[str, tuple[int, ...]]:
    """The layers to analyse, shallow to deep, each with the channels to show.

    Args:
        images: [B, C, H, W], a probe; one image is enough.
        layers: "auto" (see `auto_layers`), or dotted names.
        units: how many evenly spaced channels a layer, or which.

    Raises:
        UnknownName: there is no such layer; with the nearest names.
        ValueError: a layer takes no part in the forward pass or gives no maps, or has no such unit.
    """
    if isinstance(layers, str):
        layers = auto_layers(network, images) if layers == "auto" else [layers]
    layers = list(dict.fromkeys(layers))
    if isinstance(units, int) and units < 1:
        raise ValueError(f"units is {units}, expected at least 1 a layer, or a list of channels")
    layout = layouts(network, images, layers)
    widths: dict[str, int] = {}  # in the order of the forward pass

    def record_width(layer: str, output: Tensor) -> None:
        widths[layer] = layout[layer].maps(output).shape[1]

    with torch.no_grad(), output_hooks(network, layers, record_width, stop=True):
        network(images[:1].clone())
    chosen = {}
    for layer, channels in widths.items():
        if isinstance(units, int):
            count = min(units, channels)
            chosen[layer] = tuple(i * channels // count for i in range(count))
        else:
            invalid = [u for u in units if not 0 <= u < channels]
            if invalid:
                raise ValueError(
                    f"unit {invalid[0]} is asked for, but layer {layer!r} has channels 0 to {channels - 1}"
                )
            chosen[layer] = tuple(dict.fromkeys(int(u) for u in units))
    return chosen


def _calls(network: nn.Module, images: Tensor) -> _Call:
    """The calls of a forward pass as a tree, each module's first call only."""
    root = _Call("", network, None)
    stack, recorded = [root], {network}
    past_normalisation = False  # whether a layer with parameters has run

    def enter(name: str, module: nn.Module, _inputs: object) -> None:
        stack.append(_Call(name, module, stack[-1]))

    def leave(module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal past_normalisation
        call = stack.pop()
        past_normalisation = past_normalisation or any(True for _ in module.parameters(recurse=False))
        if module in recorded:
            return
        recorded.add(module)
        call.parent.inside.append(call)
        call.structured, output = not isinstance(output, Tensor), first_tensor(output)
        if past_normalisation and output is not None and output.ndim in (3, 4):
            layout = layout_of(network, module, images, output)
            if layout is not None:
                height, width = layout.maps(output).shape[-2:]
                call.size, call.tokens = (height, width) if height * width > 1 else None, output.ndim == 3

    handles = []
    for name, module in network.named_modules():
        if module is not network:
            handles.append(module.register_forward_pre_hook(partial(enter, name), prepend=True))
            handles.append(module.register_forward_hook(leave))
    try:
        probe(network, images)
    finally:
        for handle in handles:
            handle.remove()
    return root


def _trunk(root: _Call) -> tuple[_Call, list[_Call]]:
    """The call that contains the stages, and all calls inside it in order of completion but the head's."""
    while True:
        branches = [child for child in root.inside if any(call.size for call in _flat(child))]
        if len(branches) != 1 or not branches[0].inside:
            break
        root = branches[0]  # a wrapper
    head = [c for c in root.inside[-1:] if c.size is None and len(branches) > 1]
    return root, [call for child in root.inside if child not in head for call in _flat(child)]


def _flat(call: _Call) -> list[_Call]:
    return [c for child in call.inside for c in _flat(child)] + [call]


def _last_block(call: _Call) -> _Call:
    """The last of the blocks of a transformer's encoder; any other module itself."""
    for stack in [call, *call.inside] if call.tokens else []:
        like = isinstance(stack.module, nn.Sequential) and len({type(c.module) for c in stack.inside}) == 1
        if like and stack.inside[-1].tokens:
            return stack.inside[-1]
    return call
