"""The arguments of commands that have settings of their own, as bare `key=value`."""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Sequence

from vitrine.config import recipes


def add_technique_settings(own: type, technique: type, names: Sequence[str]) -> type:
    """The dataclass `own` extended by the settings `names` of a technique, as they are declared there."""
    hints = typing.get_type_hints(technique)
    declared = {field.name: field for field in dataclasses.fields(technique)}
    fields = [(name, hints[name], copy.copy(declared[name])) for name in names]
    return dataclasses.make_dataclass(own.__name__, fields, bases=(own,), frozen=True)


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Arguments as (words that are no settings, `model.key=value`, other `key=value`)."""
    words = [a for a in arguments if not recipes.is_override(a)]
    model = [a for a in arguments if a not in words and a.startswith("model.")]
    return words, model, [a for a in arguments if a not in words and a not in model]
