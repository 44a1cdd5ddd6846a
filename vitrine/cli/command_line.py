"""What the programs say: their help, and one message with exit status 2 for wrong input."""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
import typing
from collections.abc import Callable
from typing import Any

from vitrine import config
from vitrine.config import trainer_arguments
from vitrine.core.settings import RunAborted, SettingError, format_type

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_cli(main: Callable[[list[str]], None], arguments: list[str] | None = None) -> None:
    """Run a program's main on `arguments`, `sys.argv[1:]` unless given.

    Wrong input ends the process with exit status 2 and one message on stderr; what no program can go on
    without (`settings.RunAborted`, room on the disk) with 1 and one message.
    """
    try:
        main(sys.argv[1:] if arguments is None else arguments)
    except SettingError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except RunAborted as error:
        words = [str(error), *getattr(error, "__notes__", [])]
        print(f"stopped: {one_line('; '.join(words))}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes there
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        where = f" for {error.filename}" if error.filename else ""
        print(
            f"stopped: {error.strerror}{where}: nothing is half-written; make room and go on with "
            "run.resume=true",
            file=sys.stderr,
        )
        raise SystemExit(1) from None


def one_line(text: str, most: int = 1500) -> str:
    """A message as it can be shown: what cannot be printed escaped, the middle of what is long left out."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= most else f"{text[: most - 300]} ... {text[-300:]}"


def print_help_if_asked(arguments: list[str], about: str) -> bool:
    """Whether help was asked for, in which case it is printed: `--help`, or `--help SECTION` for a part."""
    if not {"-h", "--help"} & set(arguments):
        return False
    wanted = [a for a in arguments if not a.startswith("-")]
    names = [*config.sections(), "trainer"]
    for name in wanted:
        if name not in names:
            raise SettingError(f"--help {name}", f"there is no such section; there are {', '.join(names)}")
    print(about.strip() + "\n\nSettings: key=default   meaning [type]")
    for name in wanted or [None]:
        print("\n" + settings_help(name))
    return True


def settings_help(section: str | None = None) -> str:
    """Every setting of a section (all of them unless given) with its type, default and meaning."""
    lines: list[str] = []
    for name, schema in config.sections().items():
        if section in (None, name):
            lines += ["", f"{name}:"]
            if isinstance(schema, type):
                lines += fields_help(schema, name)
            else:
                lines += _variants(schema, name)
    if section in (None, "trainer"):
        lines += ["", "trainer: handed to lightning.Trainer"]
        for name, hint in trainer_arguments.parameters().items():
            default = trainer_arguments.default(name)
            lines.append(_line(f"trainer.{name}", format_type(hint), default, ""))
    return "\n".join(lines[1:])


def _variants(schema: Any, section: str) -> list[str]:
    """What all variants share once, then each one's own."""
    names = list(schema.names)
    fields = {name: {f.name: f for f in dataclasses.fields(schema(name))} for name in names}
    shared = [key for key in fields[schema.default] if all(key in fields[name] for name in names)]
    shown = ", ".join(names)
    lines = [_line(f"{section}.name", "str", schema.default, f"one of {shown}")]
    lines += fields_help(schema(schema.default), section, only=[key for key in shared if key != "name"])
    for name in names:
        own = [key for key in fields[name] if key not in shared]
        if own:
            lines += [f"  with {section}.name={name}:", *fields_help(schema(name), section, only=own)]
    return lines


def fields_help(schema: type, path: str = "", only: list[str] | None = None) -> list[str]:
    """A line for each field of a dataclass of settings (for `only` some), its key below `path`."""
    lines = []
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        if only is not None and field.name not in only:
            continue
        key, hint = f"{path}.{field.name}".lstrip("."), hints[field.name]
        if dataclasses.is_dataclass(hint):
            lines += fields_help(hint, key)
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        choices = field.metadata.get("choices")
        kind = "|".join(map(str, choices)) if choices else format_type(hint)
        lines.append(_line(key, kind, default, field.metadata.get("meaning", "")))
    return lines


def _line(key: str, kind: str, default: Any, meaning: str) -> str:
    if default is dataclasses.MISSING:
        value = "(needed)"
    elif default is None:
        value = "null"
    else:
        value = str(default).lower() if isinstance(default, bool) else str(default)
    return f"  {key + '=' + value:<44} {meaning}{' ' if meaning else ''}[{kind}]"
