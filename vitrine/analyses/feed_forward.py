"""The hidden units of a transformer's feed-forward layers, whatever they are called and however written."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from vitrine.analyses.attention import attention_modules
from vitrine.analyses.call_tree import Call


def hidden_layers(network: nn.Module, images: Tensor, root: Call) -> list[Call]:
    """The modules that give the hidden units of feed-forwards, after the activation, shallow to deep; one a
    block. None of networks without attention that have no tokens.

    A feed-forward widens its input and narrows what an activation makes of it, token by token. It counts
    where tokens are a list, or where it is the first after an attention: ConvNeXt's blocks, which have one,
    too, are convolutional.

    Args:
        images: [B, C, H, W]; what is in them does not matter.
        root: the network's `call_tree` on such images.
    """
    narrowing = dict(_feed_forwards(root))
    if not narrowing:
        return []
    attentions = set(attention_modules(network, images)[0])
    hidden, attended = [], False
    for call in root.flat():
        attended = attended or call.name in attentions
        if call not in narrowing:
            continue
        source = narrowing[call]
        if source is not None and (attended or source.tokens):
            hidden.append(source)
        attended = False  # of this attention it was the one, whether or not its hidden units are maps
    return hidden


def _feed_forwards(root: Call) -> Iterator[tuple[Call, Call | None]]:
    """Of each feed-forward the layer that narrows and the call that gives its hidden units, None where they
    are no maps."""
    widened: set[int] = set()  # to how many channels, since the last feed-forward
    for call in root.flat():
        widths = _widths(call.module)
        if widths is None:
            continue
        taken, given = widths
        source = call.source
        gated = 2 * taken  # half of the units open or close the other half
        if given < taken and widened & {taken, gated}:
            readable = source is not None and source.size is not None and source.channels == taken
            yield call, source if readable and _widths(source.module) is None else None
            widened.clear()
        elif given > taken:
            widened.add(given)


def _widths(module: nn.Module) -> tuple[int, int] | None:
    """Channels that a layer takes and gives at each place by itself; None of other modules."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
        return module.in_channels, module.out_channels
    return None
