"""Networks that end in global average pooling and one linear layer, as class activation maps need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vitrine.analyses.head import last_linear
from vitrine.analyses.layout import infer_layout, probe
from vitrine.core.network_scopes import in_eager_eval_mode


class NoPooledHead(ValueError):
    """The network does not end in global average pooling and one linear layer; says why."""

    def __init__(self, reason: str):
        super().__init__(
            "class activation maps need a network that ends in global average pooling and one linear layer, "
            f"and in this one {reason}; grad_cam works for any network"
        )


@dataclass(frozen=True)
class PooledHead:
    """logits = mean over space of `maps` @ weight.T + bias."""

    maps: Tensor  # [N, C, h, w], the maps that are averaged
    weight: Tensor  # [K, C]
    logits: Tensor  # [N, K]


@in_eager_eval_mode
def pooled_head(network: nn.Module, images: Tensor) -> PooledHead:
    """The head of a network that ends in global average pooling and a linear or 1 x 1 convolutional layer.

    Found by observing one forward pass, whether the pooling is a module, a function or a mean, before or
    after the linear layer; and checked against the logits on these images.

    Raises:
        NoPooledHead: the logits are no such function of any maps.
    """
    averages = _SpatialAverages()
    with averages:
        last = last_linear(network, images)
    if last is None:
        raise NoPooledHead("it has no linear layer")
    weight, logits = last.weight, last.logits
    if weight.shape[0] != logits.shape[1]:
        raise NoPooledHead(
            f"its last linear layer has {weight.shape[0]} outputs for {logits.shape[1]} classes"
        )
    over_space = last.inputs.ndim == 4 and last.inputs.shape[-2:].numel() > 1
    maps = last.inputs if over_space else averages.averaged
    if maps is None:
        raise NoPooledHead("nothing in it is averaged over space")
    if maps.ndim == 3:
        maps = _token_maps(network, images, maps)
    if maps.shape[1] != weight.shape[1]:
        raise NoPooledHead(
            f"{maps.shape[1]} channels are averaged, but the linear layer takes {weight.shape[1]} inputs"
        )
    expected = maps.mean((2, 3)) @ weight.T + (0 if last.bias is None else last.bias)
    if (expected - logits).abs().max() > last.tolerance * logits.abs().max():
        raise NoPooledHead("something nonlinear stands between the average over space and the logits")
    return PooledHead(maps, weight, logits)


def _token_maps(network: nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    """Averaged tokens [N, C, T] as maps [N, C, h, w]."""
    with _SpatialAverages() as averages:
        probe(network, images)
    layout = infer_layout(averages.averaged)
    if layout is None or layout.axes != "NCT" or layout.grid[0] * layout.grid[1] != tokens.shape[2]:
        raise NoPooledHead("what is averaged is more than a grid of tokens")  # a class token, too
    return layout.maps(tokens)


class _SpatialAverages(TorchDispatchMode):
    """Within the scope, records the last tensor that is averaged over all positions."""

    averaged: Tensor | None = None  # maps [N, C, h, w], or tokens [N, C, T]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mean", "_adaptive_avg_pool2d", "avg_pool2d") and args[0].numel() > result.numel():
            x = args[0]
            over = {2, 3}
            if name == "mean" and len(args) > 1 and args[1]:
                over = {dimension % x.ndim for dimension in args[1]}
            kept = [axis for axis in range(1, x.ndim) if axis not in over]
            if x.ndim in (3, 4) and len(kept) == 1 and result.numel() == x.shape[0] * x.shape[kept[0]]:
                x = x.movedim(kept[0], 1)
                self.averaged = x.flatten(2) if 1 in x.shape[2:] else x  # [N, C, 1, T]: tokens, too
        return result
