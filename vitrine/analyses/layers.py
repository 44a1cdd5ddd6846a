"""The choice of layers and units to analyse, for any architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd

from vitrine.analyses.call_tree import Call, call_tree
from vitrine.analyses.feed_forward import hidden_layers
from vitrine.analyses.hooks import output_hooks
from vitrine.analyses.layout import layouts
from vitrine.core.network_scopes import in_eager_eval_mode

BLOCKS = 4  # of a transformer that are shown


@in_eager_eval_mode
def auto_layers(network: nn.Module, images: Tensor) -> list[str]:
    """The last module at each spatial resolution, and what transformers' blocks have inside, shallow to deep.

    Of a transformer these are the hidden units of feed-forwards, where Ghiasi 2022 finds pictures: of the
    last block at each resolution, or of four blocks spread over the depth where all stand at one; and the
    last block's residual channels. Where hidden units cannot be told, the blocks take their place.

    Args:
        images: [B, C, H, W], a probe; one image is enough.
    """
    root = call_tree(network, images)
    last = _last_at_each_resolution(root)
    hidden: dict[tuple[int, int], list[Call]] = {call.size: [] for call in last}
    for call in hidden_layers(network, images, root):
        if call.size in hidden:
            hidden[call.size].append(call)
    count = BLOCKS if sum(map(bool, hidden.values())) == 1 else 1
    chosen = []
    for call in last:
        if inside := hidden[call.size]:
            chosen += _spread(inside, count)
        elif call.tokens and not any(hidden.values()) and sum(other.tokens for other in last) == 1:
            chosen += _spread([c for c in call.parent.inside if type(c.module) is type(call.module)], BLOCKS)
        else:
            chosen.append(call)
    order = {call: i for i, call in enumerate(root.flat())}
    return [call.name for call in sorted({*chosen, *last[-1:]}, key=order.get)]


@in_eager_eval_mode
def last_layers(network: nn.Module, images: Tensor) -> list[str]:
    """The last module at each spatial resolution, shallow to deep, found by one forward pass.

    Stages and blocks are preferred to what they are made of ("layer3", not "layer3.1.relu") and to a layer
    that prepares the next resolution (a norm, an expansion inside the next block). 1 x 1 maps, adaptive pools
    and the head are left out. Token grids count as [B, C, h, w] maps; of a transformer's encoder,
    all of one resolution, the last block is taken. A network without maps gets its last layer.

    Args:
        images: [B, C, H, W], a probe; one image is enough.
    """
    return [call.name for call in _last_at_each_resolution(call_tree(network, images))]


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


def _last_at_each_resolution(root: Call) -> list[Call]:
    trunk, calls = _trunk(root)
    best: dict[tuple[int, int], tuple[tuple, int, Call]] = {}
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
        return [call for call in list(root.flat())[:-1] if any(True for _ in call.module.parameters())][-1:]
    return [_last_block(call) for _, _, call in sorted(best.values(), key=lambda found: found[1])]


def _spread(calls: list[Call], count: int) -> list[Call]:
    """So many of the calls, evenly spaced, the last among them."""
    count = min(count, len(calls))
    return [calls[(i + 1) * len(calls) // count - 1] for i in range(count)]


def _trunk(root: Call) -> tuple[Call, list[Call]]:
    """The call that contains the stages, and all calls inside it in order of completion but the head's."""
    while True:
        branches = [child for child in root.inside if any(call.size for call in child.flat())]
        if len(branches) != 1 or not branches[0].inside:
            break
        root = branches[0]  # a wrapper
    head = [c for c in root.inside[-1:] if c.size is None and len(branches) > 1]
    return root, [call for child in root.inside if child not in head for call in child.flat()]


def _last_block(call: Call) -> Call:
    """The last of the blocks of a transformer's encoder; any other module itself."""
    for stack in [call, *call.inside] if call.tokens else []:
        like = isinstance(stack.module, nn.Sequential) and len({type(c.module) for c in stack.inside}) == 1
        if like and stack.inside[-1].tokens:
            return stack.inside[-1]
    return call
