"""Images and kernels with their channels innermost in memory, in which most networks are faster on a CPU."""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from vitrine.core import random_state
from vitrine.core.network_output import as_logits
from vitrine.core.network_scopes import eval_mode

_takes: WeakKeyDictionary[nn.Module, dict[torch.Size, bool]] = WeakKeyDictionary()  # by an image's shape


def channels_last(network: nn.Module, images: Tensor) -> Tensor:
    """The images [N, C, H, W] with their channels innermost in memory, if the network takes them so."""
    return _innermost(images) if len(images) and takes_channels_last(network, images[:1]) else images


def arrange_images(network: nn.Module, images: Tensor) -> None:
    """From now on the network gets its images [N, C, H, W] in an order in memory that it takes.

    On a CPU with channels innermost, as are its kernels then: most networks are faster, and values are the
    same up to rounding. In torch's own order where it does not take images of that shape so. On a GPU, where
    float32 is no faster so, as they come.
    """
    memory_format = torch.contiguous_format
    if takes_channels_last(network, images[:1]):
        if images.is_cuda:
            return
        memory_format = torch.channels_last
        arrange_kernels(network)
    network.register_forward_pre_hook(partial(_arrange_input, memory_format), with_kwargs=True)


def arrange_kernels(network: nn.Module) -> None:
    """Put the channels of a network's kernels innermost in memory, in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and "weight" in module._parameters:  # else computed at each pass
            module.weight.data = _innermost(module.weight.data)


def takes_channels_last(network: nn.Module, image: Tensor) -> bool:
    """Whether the network takes images of the shape of `image` [1, C, H, W] with their channels innermost.

    It does not where it views maps as if channels were outermost (`x.view(len(x), -1)`): a pass of it and its
    gradient tell, once a network and shape.
    """
    known, shape = _takes.setdefault(network, {}), image.shape[1:]
    if shape not in known:
        known[shape] = _try_channels_last(network, image)
    return known[shape]


def _arrange_input(memory_format: torch.memory_format, _network: nn.Module, args: Any, kwargs: Any) -> Any:
    def arrange(given: Tensor) -> Tensor:
        return given.contiguous(memory_format=memory_format) if given.ndim == 4 else given

    return tree_map_only(Tensor, arrange, (args, kwargs))


def _innermost(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _try_channels_last(network: nn.Module, image: Tensor) -> bool:
    with torch.inference_mode(False), torch.enable_grad(), eval_mode(network), random_state.seeded(0):
        # two of them: one alone may be viewed as maps without its channels being in the way
        pixels = _innermost(image.detach().repeat(2, 1, 1, 1)).requires_grad_()
        try:
            logits = as_logits(network(pixels.clone()))  # a clone: a network may write into its input
            if logits.requires_grad:
                torch.autograd.grad(logits.sum(), pixels, allow_unused=True)
        except Exception as error:  # any other will be met again where it matters: layers may come before it
            return "view size is not compatible" not in str(error)
    return True
