"""`--help`: every setting with its default, meaning and type."""

import dataclasses
from typing import Any

from vitrine import config
from vitrine.config import trainer_arguments
from vitrine.config.declarations import declared, declared_module
from vitrine.core.settings import SettingError, field_type, format_type

HEADER = "Settings: key=default   meaning [type]"


def is_help_asked(arguments: list[str]) -> bool:
    """Whether `-h` or `--help` is among the arguments."""
    return not {"-h", "--help"}.isdisjoint(arguments)


def print_help_if_asked(arguments: list[str], about: str) -> bool:
    """Print help on all settings for `--help`, on one section for `--help SECTION`; False if not asked."""
    if not is_help_asked(arguments):
        return False
    names = [*config.sections(declared), "trainer"]
    wanted = [a for a in arguments if not a.startswith("-")]
    for name in wanted:
        if name not in names:
            raise SettingError(f"--help {name}", f"there is no such section; there are {', '.join(names)}")
    print(f"{about.strip()}\n\n{HEADER}")
    for name in wanted or names:
        print("\n".join(["", *_section_help(name)]))
    return True


def command_help(about: str, schema: type) -> str:
    """The help on a command with the settings `schema`."""
    return "\n".join([about.strip(), "", HEADER, "", *fields_help(schema)])


def print_command_help(module: str) -> None:
    """Print the docstring of a program's module and its `Settings`, without importing what it imports."""
    program = declared_module(module)
    print(command_help(program.__doc__, program.Settings))


def has_settings(module: str) -> bool:
    """Whether a program has `Settings` of its own, for `print_command_help`."""
    return hasattr(declared_module(module), "Settings")


def _section_help(name: str) -> list[str]:
    """The settings of a section with their types, defaults and meanings, one a line."""
    if name == "trainer":
        lines = [
            _line(f"trainer.{key}", format_type(hint), trainer_arguments.default(key), "")
            for key, hint in trainer_arguments.parameters().items()
        ]
        return ["trainer: handed to lightning.Trainer", *lines]
    schema = config.sections(declared)[name]
    describe = fields_help if isinstance(schema, type) else _variants_help
    return [f"{name}:", *describe(schema, name)]


def _variants_help(schema: Any, section: str) -> list[str]:
    """The settings shared by all variants of a section, then those of each variant."""
    names = list(schema.names)
    fields = {name: {f.name: f for f in dataclasses.fields(schema(name))} for name in names}
    shared = [key for key in fields[schema.default] if all(key in fields[name] for name in names)]
    shown = ", ".join(names) + (f"; or {schema.others}" if schema.others else "")
    lines = [_line(f"{section}.name", "str", schema.default, f"one of {shown}")]
    lines += fields_help(schema(schema.default), section, only=[key for key in shared if key != "name"])
    for name in names:
        own = [key for key in fields[name] if key not in shared]
        if own:
            lines += [f"  with {section}.name={name}:", *fields_help(schema(name), section, only=own)]
    return lines


def fields_help(schema: type, path: str = "", only: list[str] | None = None) -> list[str]:
    """One line for each field of a dataclass of settings (or for `only` some), with its key below `path`."""
    lines = []
    for field in dataclasses.fields(schema):
        if only is not None and field.name not in only:
            continue
        key, hint = f"{path}.{field.name}".lstrip("."), field_type(schema, field.name)
        if dataclasses.is_dataclass(hint):
            lines += fields_help(hint, key)
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        choices = field.metadata.get("choices")
        kind = "|".join(map(str, choices)) if choices else format_type(hint)
        lines.append(_line(key, kind, default, field.metadata.get("meaning", "")))
    return lines


def _line(key: str, kind: str, default: Any, meaning: str) -> str:
    value = "null" if default is None else str(default)
    if default is dataclasses.MISSING:
        value = "(needed)"
    value = value.lower() if isinstance(default, bool) else value
    return f"  {key + '=' + value:<44} {meaning}{' ' if meaning else ''}[{kind}]"
