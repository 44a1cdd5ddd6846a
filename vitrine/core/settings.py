"""Settings as dataclass fields, each declared once: type, default, one line of meaning, range."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any


class SettingError(ValueError):
    """An invalid setting; the message names the key, what came and what was expected."""

    def __init__(self, key: str, problem: str):
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class RunAborted(Exception):
    """A run cannot go on, and its message says why in a line that needs no traceback.

    Attributes:
        weights_unusable: whether the network is no good, so that no checkpoint of it may be written.
    """

    weights_unusable = False


def setting(
    default: Any = dataclasses.MISSING,
    meaning: str = "",
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | Callable[[Any], float | None] | None = None,
    choices: tuple[Any, ...] | None = None,
    renamed_from: str | None = None,
    hint: Any = None,
    advice: str = "",
    before: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field with its meaning and its possible values.

    Args:
        default: the default; lists and dicts are copied for every instance.
        meaning: one line for `--help`, units included.
        least, above, most: the value is >= least, > above, <= most, which may be a function of the settings
            beside it; None is exempt where the type allows it.
        choices: the values allowed, where they are few.
        renamed_from: the key's former name, which recipes and saved settings may still use.
        hint: the type, of a field annotated as Any because OmegaConf has no such type (unions with lists).
        advice: on a value that is too large, with "{value}" in it: what may have been meant.
        before: the value that stands for what was done before this setting existed, for runs saved then.
    """
    metadata = {"meaning": meaning, "least": least, "above": above, "most": most, "choices": choices}
    metadata |= {"renamed_from": renamed_from, "hint": hint, "advice": advice, "before": before}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check(settings: Any, path: str = "") -> None:
    """Raise SettingError for the first field out of its range, nested dataclasses included."""
    for field in dataclasses.fields(settings):
        value, key = getattr(settings, field.name), f"{path}.{field.name}" if path else field.name
        if dataclasses.is_dataclass(value):
            check(value, key)
            continue
        limits = field.metadata
        if value is None or not limits:
            continue
        if limits["choices"] is not None and value not in limits["choices"]:
            raise SettingError(key, f"is {value!r}, expected one of {', '.join(map(str, limits['choices']))}")
        for name, bad, words in (
            ("least", lambda v, bound: not v >= bound, "at least"),
            ("above", lambda v, bound: not v > bound, "more than"),
            ("most", lambda v, bound: not v <= bound, "at most"),
        ):
            bound = limits[name](settings) if callable(limits[name]) else limits[name]
            if bound is not None and isinstance(value, (int, float)) and bad(value, bound):
                advice = limits["advice"].format(value=value) if name == "most" else ""
                problem = f"is {value}, expected {words} {bound}"
                raise SettingError(key, f"{problem}; {advice}" if advice else problem)


def field_type(schema: type, name: str) -> Any:
    """The type of a setting of a dataclass."""
    field = next(f for f in dataclasses.fields(schema) if f.name == name)
    return field.metadata.get("hint") or typing.get_type_hints(schema)[name]


def renamed(owner: type, key: str) -> str | None:
    """The field of a dataclass whose former name is `key`; None if there is none."""
    return next((f.name for f in dataclasses.fields(owner) if f.metadata.get("renamed_from") == key), None)


def union_members(hint: Any) -> tuple[Any, ...]:
    """The members of a union type, or the type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def format_type(hint: Any) -> str:
    """A type as a person would write it in a recipe; types that no recipe can hold are left out."""
    words = []
    for member in union_members(hint):
        kind = typing.get_origin(member) or member
        if kind is typing.Literal:
            words += [str(value) for value in typing.get_args(member)]
        elif member is type(None):
            words.append("null")
        elif kind in (list, dict):
            words.append(str(member) if typing.get_args(member) else kind.__name__)
        elif kind in (int, float, str, bool):
            words.append(kind.__name__)
    return " or ".join(dict.fromkeys(words)) or "any"
