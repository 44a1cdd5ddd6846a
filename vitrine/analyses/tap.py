"""Reading what a network computes on the way: the outputs of named modules, as [B, C, h, w] maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from vitrine.core.registry import UnknownName


class _Reached(Exception):
    """Every layer asked for has been computed: what lies deeper need not be."""


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
    """How many channels a network's images [B, C, H, W] have, as its first layer tells; `size` is H, W."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
        if isinstance(module, nn.Linear) and module.in_features % math.prod(size) == 0:
            return module.in_features // math.prod(size)
    raise ValueError(
        f"no convolution or dense layer of the network takes images of {size[0]} x {size[1]} pixels"
    )


def turns_maps(network: nn.Module) -> bool:
    """Whether maps inside the network may be channels-last, [B, h, w, C]: only where a layer norm works
    on them."""
    return any(isinstance(m, nn.LayerNorm) and len(m.normalized_shape) == 1 for m in network.modules())


def as_maps(output: Tensor, turned: bool = True) -> Tensor:
    """A module's output as [B, C, h, w].

    Token grids [B, T, C] lose their class token, where they have one; channels-last maps [B, h, w, C] (Swin)
    are turned; vectors [B, C] become 1 x 1 maps.

    Args:
        turned: whether channels-last maps are possible (`turns_maps`); they are told by being square.

    Raises:
        ValueError: the output is no map, token grid or vector.
    """
    if output.ndim == 4:
        _, a, b, c = output.shape
        return output.permute(0, 3, 1, 2) if turned and a == b != c else output
    if output.ndim == 3:
        tokens = output.shape[1]
        side = math.isqrt(tokens)
        if side * side != tokens:  # a class token stands first
            side = math.isqrt(tokens - 1)
        if tokens - side * side in (0, 1):
            return output[:, tokens - side * side :].transpose(1, 2).unflatten(2, (side, side))
    if output.ndim == 2:
        return output[:, :, None, None]
    raise ValueError(f"an output of shape {tuple(output.shape)} is no map [B, C, h, w], token grid or vector")


@contextmanager
def tapped(
    network: nn.Module, layers: Sequence[str], see: Callable[[str, Tensor], Tensor | None], stop: bool = False
) -> Iterator[None]:
    """Within the scope, `see(layer, output)` is called with each named module's raw output.

    What `see` returns, unless None, takes the output's place. With `stop`, the scope ends (one forward pass,
    then) as soon as every layer has been seen.
    """
    seen: set[str] = set()

    def hook(layer: str):
        def on_forward(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
            if not isinstance(output, Tensor):
                raise ValueError(f"layer {layer!r} gives a {type(output).__name__}, expected a tensor")
            replaced = see(layer, output)
            seen.add(layer)
            if stop and len(seen) == len(wanted):
                raise _Reached
            return replaced

        return on_forward

    wanted = modules_at(network, layers)
    handles = [module.register_forward_hook(hook(layer)) for layer, module in wanted.items()]
    try:
        yield
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()


def forward_to(network: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """The maps [B, C, h, w] of the named layers on images [B, C, H, W]; nothing deeper is computed.

    Gradients flow as grad mode and the images ask. A layer used several times gives its first output.

    Raises:
        UnknownName: there is no such layer.
        ValueError: a layer was not reached, or its output is no map.
    """
    outputs: dict[str, Tensor] = {}

    def keep(layer: str, output: Tensor) -> Tensor | None:
        if layer in outputs:
            return None
        outputs[layer] = output
        return output.clone()  # an in-place ReLU that follows must not write into what is kept

    with tapped(network, layers, keep, stop=True):
        network(images)
    missing = [layer for layer in layers if layer not in outputs]
    if missing:
        raise ValueError(f"layer {missing[0]!r} takes no part in the forward pass")
    turned = turns_maps(network)
    return {layer: as_maps(outputs[layer], turned) for layer in layers}
