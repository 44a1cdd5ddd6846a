"""A class or function of somebody's own by reference: "package.module:Class" or "path/to/file.py:Class"."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from vitrine.core.home import absolute_path
from vitrine.core.registry import nearest


class BadReference(ValueError):
    """A reference that leads to nothing; the message is one line with the likely intention."""


def is_reference(name: str) -> bool:
    """Whether a name says where code is, rather than being one of a registry."""
    where, colon, _ = name.rpartition(":")
    return bool(colon) and (where.endswith(".py") or "/" not in where)


def absolute_reference(name: str) -> str:
    """A reference to a file with an absolute path, found from any folder; others as they are."""
    where, colon, attribute = name.rpartition(":")
    return f"{absolute_path(where)}{colon}{attribute}" if where.endswith(".py") else name


def check_reference(name: str) -> None:
    """Raise BadReference for what cannot lead anywhere, without importing anything of its own."""
    where, attribute = _split(name)
    if where.endswith(".py"):
        _existing_file(where, attribute)


def resolve(name: str) -> Callable[..., Any]:
    """The class or function that a reference names; its module is imported, once a process.

    The current directory, for a file also its folder, is first in `sys.path` while the module is imported, so
    that it finds what lies beside it; not afterwards.

    Args:
        name: "package.module:Class" or "path/to/file.py:Class"; the attribute may be dotted.

    Raises:
        BadReference: there is no such module, file or attribute, it is not callable, or importing it failed.
    """
    where, attribute = _split(name)
    if where.endswith(".py"):
        module = _import_file(_existing_file(where, attribute))
    else:
        module = _import_module(where)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n, value in vars(found).items() if callable(value) and not n.startswith("_")]
            # what it defines itself comes before what it has imported
            public.sort(key=lambda n: getattr(vars(found)[n], "__module__", None) != module.__name__)
            close = nearest(part, public)
            hint = (
                f"did you mean {' or '.join(close)}?"
                if close
                else f"it has {', '.join(public[:8]) or 'no class'}"
            )
            raise BadReference(f"{where} has no {part!r}; {hint}")
        found = getattr(found, part)
    if not callable(found):
        raise BadReference(f"{name} is of type {type(found).__name__}, expected a class or a function")
    return found


def raised_by(error: BaseException) -> str:
    """An exception of somebody's own code in one line, with the file and line that raised it."""
    message = " ".join(str(error).split())
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({Path(last[0].filename).name}, line {last[0].lineno})" if last else ""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {message}"
    return f"{type(error).__name__}: {message}{place}"


def _split(name: str) -> tuple[str, str]:
    where, _, attribute = name.rpartition(":")
    forms = "expected package.module:Class or path/to/file.py:Class"
    if not where:
        raise BadReference(f"{name!r} names no module; {forms}")
    if not attribute or not all(part.isidentifier() for part in attribute.split(".")):
        raise BadReference(f"{name!r} names no class or function after the colon; {forms}")
    if not where.endswith(".py") and not all(part.isidentifier() for part in where.split(".")):
        raise BadReference(f"{name!r}: {where!r} is neither a module's name nor a file.py; {forms}")
    return where, attribute


def _existing_file(where: str, attribute: str) -> Path:
    file = Path(where).expanduser()
    if file.is_file():
        return file.resolve()
    if not file.parent.is_dir():
        raise BadReference(f"{where}: there is no folder {file.parent} (from {Path.cwd()})")
    beside = sorted(path.name for path in file.parent.glob("*.py"))
    close = nearest(file.name, beside, most=1)
    hint = (
        f"; did you mean {file.with_name(close[0])}:{attribute}?" if close else f" in {file.parent.resolve()}"
    )
    raise BadReference(f"{where}: there is no such file{hint}")


def _import_file(file: Path) -> ModuleType:
    name = f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"  # nobody else's
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as dataclasses and pickle expect
    try:
        with _on_path(Path.cwd(), file.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BadReference(f"importing {file} raised {raised_by(error)}") from error
    except SystemExit as error:
        del sys.modules[name]
        raise BadReference(
            f"importing {file} ended the program: it needs `if __name__ == '__main__':`"
        ) from error
    return module


def _import_module(where: str) -> ModuleType:
    try:
        with _on_path(Path.cwd()):
            return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise BadReference(f"importing {where} raised {raised_by(error)}") from error
        raise BadReference(f"there is no module {error.name!r}{_module_hint(error.name)}") from error
    except Exception as error:
        raise BadReference(f"importing {where} raised {raised_by(error)}") from error


def _module_hint(missing: str) -> str:
    """What a module that does not exist may have been meant to be."""
    parent, _, last = missing.rpartition(".")
    folders = getattr(sys.modules.get(parent), "__path__", []) if parent else [str(Path.cwd()), *sys.path]
    known = [module.name for module in pkgutil.iter_modules(folders)]
    close = nearest(last, known, most=1)
    if close:
        return f"; did you mean {parent + '.' if parent else ''}{close[0]}?"
    return f" in {parent}" if parent else f": neither installed, nor in {Path.cwd()}"


@contextmanager
def _on_path(*folders: Path) -> Iterator[None]:
    """Within the scope these folders are first in `sys.path`, the last before the others."""
    before = list(sys.path)
    sys.path[:] = [*(str(folder) for folder in reversed(folders)), *sys.path]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
