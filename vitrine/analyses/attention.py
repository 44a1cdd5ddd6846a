"""Which modules compute attention, found by watching one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def attention_modules(network: nn.Module, images: Tensor) -> tuple[list[str], dict[str, int]]:
    """The modules that compute attention themselves, in order; and the order in which all end.

    Attention is a softmax that is multiplied with a matrix, or PyTorch's own operation: whatever the module
    is called and however it is written.

    Args:
        images: [B, C, H, W]; what is in them does not matter.
    """
    stack, attentions, order = [""], [], {}

    def enter(name: str):
        return lambda *_: stack.append(name)

    def leave(*_: Any) -> None:
        order.setdefault(stack.pop(), len(order))

    handles = []
    for name, module in network.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(enter(name), prepend=True))
            handles.append(module.register_forward_hook(leave, always_call=True))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation for a whole block, attention included
    try:
        with torch.no_grad(), _Attention(lambda: attentions.append(stack[-1])):
            network(images[:1].clone())
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(attentions)), order


class _Attention(TorchDispatchMode):
    """Within the scope, calls `found` when attention is computed."""

    def __init__(self, found: Any):
        super().__init__()
        self.found, self.weights = found, None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("_softmax", "_safe_softmax"):
            self.weights = result if result.ndim > 2 else None
        elif name.startswith("_scaled_dot_product"):
            self.found()
        elif name in ("bmm", "baddbmm") and self.weights is not None:
            storages = [x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)]
            if self.weights.untyped_storage().data_ptr() in storages:
                self.found()
        return result
