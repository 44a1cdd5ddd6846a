"""The arguments of commands that have settings of their own, as bare `key=value`."""

import copy
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from vitrine import config
from vitrine.cli import COMMANDS
from vitrine.cli.help import is_help_asked, print_command_help
from vitrine.config import recipes
from vitrine.config.declarations import declared_module
from vitrine.core.home import expand_home
from vitrine.core.settings import SettingError, field_type
from vitrine.runs import run_folders


def add_technique_settings(own: type, technique: type, names: Sequence[str]) -> type:
    """The dataclass `own` extended by the settings `names` of a technique, as they are declared there."""
    declared = {field.name: field for field in dataclasses.fields(technique)}
    fields = [(name, field_type(technique, name), copy.copy(declared[name])) for name in names]
    return dataclasses.make_dataclass(own.__name__, fields, bases=(own,), frozen=True)


def run_command(name: str, arguments: list[str]) -> None:
    """Run one of COMMANDS: its `main` on the words among the arguments and its `Settings`; or print its help.

    Words are all but `key=value`; and `model.key=value`, which names a network, and `section.key=value` of
    the other sections that the command hands on (`SECTIONS`).
    """
    COMMANDS.check(name)
    place = f"{__package__}.{name}"
    if is_help_asked(arguments):
        print_command_help(place)
        return
    module = declared_module(place)
    sections = tuple(f"{section}." for section in ("model", *getattr(module, "SECTIONS", ())))
    arguments = [expand_home(a) for a in arguments]
    words = [a for a in arguments if not recipes.is_override(a) or a.startswith(sections)]
    given = [a for a in arguments if a not in words]
    config.parse_settings(module.Settings, given)  # a mistyped one need not wait for the command's imports
    main = COMMANDS[name]
    main(words, config.parse_settings(sys.modules[main.__module__].Settings, given))


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
