"""How deep in a network each of its parameters is, counted in blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

from vitrine.modules.surgery import head_layer

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def parameter_depths(network: nn.Module) -> dict[str, int]:
    """The depth of each named parameter: 0 for the first block, the number of blocks before it for the head.

    Blocks come in the order in which they are defined. Containers are opened, and so are modules that hold
    several blocks of one class in containers (a stage, the body of a network), and the network itself. What
    holds vectors alone (a normalisation) belongs to the block before it; parameters that an opened module
    holds itself (class token, positions) to the first block; the head is the block that holds the last layer,
    and comes last. Of vision transformers and residual networks these are timm's groups, and BEiT's.
    """
    blocks: list[list[str]] = []
    embeddings: list[str] = []
    for prefix, module, opened in _blocks("", network):
        own = module.named_parameters(recurse=not opened)
        named = {f"{prefix}.{name}" if prefix else name: parameter for name, parameter in own}
        if opened:
            embeddings += named
        elif blocks and all(parameter.ndim <= 1 for parameter in named.values()):
            blocks[-1] += named
        elif named:
            blocks.append(list(named))
    try:
        head = head_layer(network, None)
    except ValueError:
        head = ""
    blocks.sort(key=lambda names: f"{head}.weight" in names)  # stable: the head's comes last
    depths = {name: depth for depth, names in enumerate(blocks) for name in names}
    return depths | dict.fromkeys(embeddings, 0)


def _blocks(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Blocks below a module, and the opened modules above them (True), each with its dotted name."""
    opened = not prefix or isinstance(module, _CONTAINERS) or _holds_blocks(module)
    yield prefix, module, opened
    if opened:
        for name, child in module.named_children():
            yield from _blocks(f"{prefix}.{name}" if prefix else name, child)


def _holds_blocks(module: nn.Module) -> bool:
    """Whether containers within a module hold two blocks of one class. What has a single weight, such as a
    convolution with its normalisation, is a layer and no block."""
    classes = Counter(
        type(child)
        for container in module.modules()
        if isinstance(container, _CONTAINERS)
        for child in container.children()
        if not isinstance(child, _CONTAINERS) and sum(p.ndim > 1 for p in child.parameters()) > 1
    )
    return any(count > 1 for count in classes.values())
