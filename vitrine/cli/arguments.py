"""A command's own settings: bare `key=value`, some of them those of the technique that it is about."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from vitrine.cli.command_line import fields_help
from vitrine.config import recipes


def add_technique_settings(own: type, technique: type, names: Sequence[str]) -> type:
    """The dataclass of settings `own` with some of a technique's, as they are declared there."""
    hints = typing.get_type_hints(technique)
    declared = {field.name: field for field in dataclasses.fields(technique)}
    fields = [(name, hints[name], _copy_field(declared[name])) for name in names]
    return dataclasses.make_dataclass(own.__name__, fields, bases=(own,), frozen=True)


def print_command_help_if_asked(arguments: list[str], about: str, schema: type) -> bool:
    """Whether help was asked for, in which case it is printed."""
    if not {"-h", "--help"} & set(arguments):
        return False
    print("\n".join([about.strip(), "", "Settings: key=default   meaning [type]", "", *fields_help(schema)]))
    return True


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Arguments as words that are no settings, `model.key=value`, and the rest of `key=value`."""
    words = [a for a in arguments if not recipes.is_override(a)]
    model = [a for a in arguments if a not in words and a.startswith("model.")]
    return words, model, [a for a in arguments if a not in words and a not in model]


def _copy_field(field: dataclasses.Field) -> Any:
    """The same declaration for another dataclass."""
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory, metadata=field.metadata)
    return dataclasses.field(default=field.default, metadata=field.metadata)
