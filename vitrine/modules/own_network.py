"""A network of somebody's own, by reference: its constructor and its attributes obey no rule of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from vitrine.core.registry import nearest
from vitrine.modules.references import raised_by, resolve

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
    parameters = _parameters(target)
    for value, spellings in ((classes, CLASS_COUNTS), (channels, CHANNELS)):
        spelling = next((s for s in spellings if s in parameters), None)
        if spelling is not None and not any(s in arguments for s in spellings):
            arguments[spelling] = value
    _check_arguments(name, target, arguments)
    try:
        network = target(**arguments)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ValueError(f"{name}({given}) raised {raised_by(error)}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name} gave a {type(network).__name__}, expected a torch.nn.Module")
    return network


def takes_class_count(name: str) -> bool:
    """Whether the class or function has a parameter for the number of classes."""
    return any(spelling in _parameters(resolve(name)) for spelling in CLASS_COUNTS)


def _signature(target: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(target)
    except (ValueError, TypeError):  # of a C extension, or a broken one
        return None


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that can be given by name."""
    signature = _signature(target)
    if signature is None:
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in signature.parameters.items() if p.kind in named}


def _check_arguments(name: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that the target does not have, or one that it needs."""
    signature = _signature(target)
    if signature is None:
        return
    parameters = _parameters(target)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for key in arguments:
        if key not in parameters and not takes_any:
            close = nearest(key, parameters)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise ValueError(
                f"{key}: {name} has no such option; {hint}Its options: {', '.join(parameters) or 'none'}"
            )
    for key, parameter in signature.parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise ValueError(
                f"{name} takes {key!r} by position alone: a function that takes it by name serves"
            )
        if key in parameters and key not in arguments and parameter.default is parameter.empty:
            raise ValueError(f"{key}: {name} needs one; give model.options={{{key}: ...}}")
