"""A network of somebody's own, by reference: its constructor and its attributes obey no rule of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from vitrine.core.own_code import check_arguments, named_parameters
from vitrine.core.references import raised_by, resolve

CLASS_COUNTS = ("num_classes", "n_classes", "classes", "num_labels")
CHANNELS = ("channels", "in_chans", "in_channels")


def build_own(name: str, classes: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
    """The network that a class or a function of somebody's own gives.

    It is called with `options` and, where it has such parameters and they are not among the options, with the
    number of classes (`CLASS_COUNTS`) and the channels of images (`CHANNELS`); with nothing else.

    Args:
        name: see `references.resolve`.

    Raises:
        BadReference: it cannot be found or imported.
        ValueError: it does not take these options, raises, or gives no nn.Module.
    """
    target = resolve(name)
    arguments = dict(options)
    parameters = named_parameters(target)
    for value, spellings in ((classes, CLASS_COUNTS), (channels, CHANNELS)):
        spelling = next((s for s in spellings if s in parameters), None)
        if spelling is not None and not any(s in arguments for s in spellings):
            arguments[spelling] = value
    check_arguments(name, target, arguments, "model.options")
    try:
        network = target(**arguments)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ValueError(f"{name}({given}) raised {raised_by(error)}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name} gave a {type(network).__name__}, expected a torch.nn.Module")
    _separate_elements(network)
    return network


def takes_class_count(name: str) -> bool:
    """Whether the class or function has a parameter for the number of classes."""
    return any(spelling in named_parameters(resolve(name)) for spelling in CLASS_COUNTS)


def _separate_elements(network: nn.Module) -> None:
    """Give elements of a tensor that are one in memory, of an expanded one, a place each: else no state_dict
    can be loaded into it."""
    for tensor in (*network.parameters(), *network.buffers()):
        if is_lazy(tensor) or tensor.layout is not torch.strided:
            continue
        if any(n > 1 and step == 0 for n, step in zip(tensor.shape, tensor.stride())):
            tensor.data = tensor.data.contiguous()
