"""The arguments that somebody's class or function takes, checked before it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from vitrine.core.registry import nearest


def named_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that can be given by name."""
    signature = _signature(target)
    if signature is None:
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in signature.parameters.items() if p.kind in named}


def check_arguments(name: str, target: Callable[..., Any], arguments: Mapping[str, Any], key: str) -> None:
    """Raise ValueError for an option that the target does not have, or one that it needs.

    Args:
        name: of the target, for messages.
        key: the setting that gives options, such as "model.options".
    """
    signature = _signature(target)
    if signature is None:
        return
    parameters = named_parameters(target)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for option in arguments:
        if option not in parameters and not takes_any:
            close = nearest(option, parameters)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            known = ", ".join(parameters) or "none"
            raise ValueError(f"{option}: {name} has no such option; {hint}Its options: {known}")
    for option, parameter in signature.parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise ValueError(
                f"{name} takes {option!r} by position alone: a function that takes it by name serves"
            )
        if option in parameters and option not in arguments and parameter.default is parameter.empty:
            raise ValueError(f"{option}: {name} needs one; give {key}={{{option}: ...}}")


def _signature(target: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(target)
    except (ValueError, TypeError):  # of a C extension, or a broken one
        return None
