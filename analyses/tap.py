"""Reading what a network computes on the way: the outputs of named modules, as [B, C, h, w] maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from registry import UnknownName


class _Reached(Exception):
    """Every layer asked for has been computed: what lies deeper need not be."""


def module_at(network: nn.Module, layer: str) -> nn.Module:
    """The submodule under a dotted name; UnknownName with the nearest names where there is none."""
    modules = dict(network.named_modules())
    if not layer or layer not in modules:
        raise UnknownName("layer", layer, [name for name in modules if name])
    return modules[layer]


def as_maps(output: Tensor) -> Tensor:
    """A module's output as [B, C, h, w].

    Token grids [B, T, C] lose their class token, where they have one; channels-last maps [B, h, w, C] (Swin) are
    turned; vectors [B, C] become 1 x 1 maps.

    Raises:
        ValueError: the output is no map, token grid or vector.
    """
    if output.ndim == 4:
        _, a, b, c = output.shape
        return output.permute(0, 3, 1, 2) if a == b != c else output
    if output.ndim == 3:
        tokens = output.shape[1]
        side = math.isqrt(tokens)
        if side * side != tokens:  # a class token stands first
            side = math.isqrt(tokens - 1)
            output = output[:, 1:]
        if side * side == output.shape[1]:
            return output.transpose(1, 2).unflatten(2, (side, side))
    if output.ndim == 2:
        return output[:, :, None, None]
    raise ValueError(f"an output of shape {tuple(output.shape)} is no map [B, C, h, w], token grid or vector")


@contextmanager
def tapped(
    network: nn.Module, layers: Sequence[str], see: Callable[[str, Tensor], Tensor | None], stop: bool = False
) -> Iterator[None]:
    """Within the scope, `see(layer, output)` is called with the raw output of each named module as it is computed.

    What `see` returns, unless None, takes the output's place. With `stop`, the scope ends (one forward pass, then)
    as soon as every layer has been seen.
    """
    seen: set[str] = set()

    def hook(layer: str):
        def on_forward(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
            replaced = see(layer, output)
            seen.add(layer)
            if stop and len(seen) == len(set(layers)):
                raise _Reached
            return replaced

        return on_forward

    handles = [module_at(network, layer).register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()


def forward_to(network: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """The maps [B, C, h, w] of the named layers on images [B, C, H, W]; nothing deeper is computed.

    Gradients flow as grad mode and the images ask. A layer used several times in a pass gives its first output.

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
    return {layer: as_maps(outputs[layer]) for layer in layers}
