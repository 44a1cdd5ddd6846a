"""The calls of a network's modules in one forward pass, as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vitrine.analyses.hooks import first_tensor
from vitrine.analyses.layout import layout_of, probe

_PASSING = (nn.Dropout, nn.Identity)  # in eval mode


@dataclass(eq=False)
class Call:
    """A module's first call in a forward pass."""

    name: str
    module: nn.Module
    parent: Call | None
    size: tuple[int, int] | None = None  # of its output map; None for other outputs
    channels: int = 0  # of its output map
    tokens: bool = False  # whether the output is a token grid
    structured: bool = False  # whether the output is no tensor, but several, or an object that has them
    source: Call | None = None  # the innermost call that gave what it takes, unless something came between
    inside: list[Call] = field(default_factory=list)  # called by it, in order of completion

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

    def callers(self, trunk: Call) -> list[Call]:
        """The calls between it and the trunk."""
        callers, call = [], self.parent
        while call is not trunk:
            callers.append(call)
            call = call.parent
        return callers

    def flat(self) -> Iterator[Call]:
        """All calls inside it and itself, in order of completion."""
        for child in self.inside:
            yield from child.flat()
        yield self


def call_tree(network: nn.Module, images: Tensor) -> Call:
    """The calls of a forward pass as a tree, each module's first call only.

    Args:
        images: [B, C, H, W]; what is in them does not matter.
    """
    root = Call("", network, None)
    stack, recorded = [root], {network}
    given = WeakTensorKeyDictionary()  # a tensor -> the call that gave it
    past_normalisation = False  # whether a layer with parameters has run

    def enter(name: str, module: nn.Module, inputs: tuple) -> None:
        read = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        source = None if read is None else given.get(read)
        stack.append(Call(name, module, stack[-1], source=source))

    def leave(module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal past_normalisation
        call = stack.pop()
        past_normalisation = past_normalisation or any(True for _ in module.parameters(recurse=False))
        if module in recorded:
            return
        recorded.add(module)
        call.parent.inside.append(call)
        call.structured, output = not isinstance(output, Tensor), first_tensor(output)
        if output is not None and not call.inside and not (isinstance(module, _PASSING) and output in given):
            given[output] = call
        if past_normalisation and output is not None and output.ndim in (3, 4):
            layout = layout_of(network, module, images, output)
            if layout is not None:
                call.channels, height, width = layout.maps(output).shape[1:]
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
