"""The arguments of commands that have settings of their own, as bare `key=value`."""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path

from vitrine.config import recipes
from vitrine.core.settings import SettingError
from vitrine.runs import run_folders


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


def find_runs(command: str, words: Sequence[str], least: int = 1) -> list[Path]:
    """The folders of the runs that `words` name, each once.

    Raises:
        SettingError: of `command`, there are fewer than `least`; a word names no run.
    """
    folders = list(dict.fromkeys(run_folders.find_run(word) for word in words))
    if len(folders) < least:
        known = run_folders.describe_runs(str(folders[0].parent) if folders else "runs")
        came = f"{len(folders)} run{'s' if len(folders) != 1 else ''} came"
        raise SettingError(command, f"{came}, expected at least {least}; {known}")
    return folders
