"""Settings as the files that use them declare them, read without importing these files.

They import torch and Lightning, which takes seconds: too long to answer a mistyped setting or `--help`. Of
such a file only those statements are run that a declaration is made of: constants, functions that it calls,
and of a class its fields.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
import sys
from typing import Any

OURS = "vitrine"
WHOLE = ("vitrine.core.registry", "vitrine.core.settings")  # import nothing heavy, and are taken as they are


def declared(place: str) -> Any:
    """What "module:attribute" names; of a dataclass of ours its fields alone, which are those of the class.

    They have types, defaults and the metadata of `core.settings.setting`. Of another class of ours there is
    what it calls `Settings`. What is not ours is imported.
    """
    module, attribute = place.split(":")
    return getattr(declared_module(module), attribute)


def declared_module(name: str) -> Any:
    """A module whose attributes are what `declared` gives, and which has its docstring."""
    ours = _is_ours(name) and importlib.util.find_spec(name).loader.get_source(name)
    return _Module(name) if ours else importlib.import_module(name)


def imported(place: str) -> Any:
    """What "module:attribute" names."""
    module, attribute = place.split(":")
    return getattr(importlib.import_module(module), attribute)


class _Globals(dict):
    """The global names of one of our modules; the statement that binds a name is run when it is asked for."""

    def __init__(self, module: str):
        tree = ast.parse(importlib.util.find_spec(module).loader.get_source(module))
        super().__init__(__name__=module, __builtins__=builtins, __doc__=ast.get_docstring(tree))
        self._statements = {name: statement for statement in tree.body for name in _names_bound(statement)}

    def __missing__(self, name: str) -> Any:  # for functions as well, when they are called
        if name not in self._statements:
            raise KeyError(name)
        statement = self._statements[name]
        if isinstance(statement, ast.ImportFrom) and _is_ours(statement.module):
            alias = next(alias for alias in statement.names if name in (alias.asname, alias.name))
            self[name] = _member(statement.module, alias.name)
        else:
            self._run(self._fields_alone(statement) if isinstance(statement, ast.ClassDef) else statement)
        return super().__getitem__(name)

    def _run(self, statement: ast.stmt) -> None:
        for name in _names_read(statement):  # as Python does not ask __missing__ within a class
            if name in self._statements:
                _ = self[name]
        exec(compile(ast.Module([statement], []), self["__name__"], "exec", dont_inherit=True), self)

    def _fields_alone(self, statement: ast.ClassDef) -> ast.ClassDef:
        """A class without its methods, constants and foreign base classes."""
        decorators = [d for d in statement.decorator_list if _root(d) == "dataclass"]
        body: list[ast.stmt] = []
        for inner in statement.body:
            if isinstance(inner, ast.ClassDef):
                body.append(self._fields_alone(inner))
            elif isinstance(inner, ast.AnnAssign):
                body += [inner] if decorators and _root(inner.annotation) != "ClassVar" else []
            elif isinstance(inner, ast.Assign) and "Settings" in _names_bound(inner):
                body.append(inner)
        bases = [base for base in statement.bases if not self._is_foreign(_root(base))]
        kept = ast.ClassDef(statement.name, bases, [], body or [ast.Pass()], decorators)
        return ast.fix_missing_locations(ast.copy_location(kept, statement))

    def _is_foreign(self, name: str) -> bool:
        statement = self._statements.get(name)
        if not isinstance(statement, (ast.Import, ast.ImportFrom)):
            return False
        modules = (
            [statement.module] if isinstance(statement, ast.ImportFrom) else [a.name for a in statement.names]
        )
        return not any(_is_ours(m) or m.split(".")[0] in sys.stdlib_module_names for m in modules)


_globals = functools.cache(_Globals)


class _Module:
    """One of our modules, as a name that another has imported."""

    def __init__(self, module: str):
        self._module = module

    @property
    def __doc__(self) -> str | None:
        return _globals(self._module)["__doc__"]

    def __getattr__(self, name: str) -> Any:
        try:
            return _globals(self._module)[name]
        except KeyError:
            raise AttributeError(f"module {self._module!r} has no attribute {name!r}") from None


def _member(module: str, name: str) -> Any:
    if module in WHOLE:
        return getattr(importlib.import_module(module), name)
    try:
        return _globals(module)[name]
    except KeyError:
        return _Module(f"{module}.{name}")


def _is_ours(module: str | None) -> bool:
    return module is not None and module.split(".")[0] == OURS


def _names_bound(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [(alias.asname or alias.name).split(".")[0] for alias in names]
        case ast.Assign(targets=targets):
            return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            return [name]
    return []


def _names_read(statement: ast.stmt) -> list[str]:
    """The names that a statement reads when it is run; of a function none."""
    if isinstance(statement, ast.FunctionDef):
        parts: list[ast.AST] = [*statement.decorator_list, *statement.args.defaults]
        parts += [default for default in statement.args.kw_defaults if default]
        # annotations are text in our files; here they would be run
        statement.returns = None
        for argument in ast.walk(statement.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
    elif isinstance(statement, ast.AnnAssign):
        parts = [statement.value]
        statement.annotation = ast.copy_location(ast.Constant(""), statement.annotation)
    else:
        parts = [statement]
    names = [node for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)]
    return [name.id for name in names if isinstance(name.ctx, ast.Load)]


def _root(expression: ast.expr) -> str:
    """`a` of `a`, `a.b`, `a[b]` and `a(b)`."""
    while not isinstance(expression, ast.Name):
        match expression:
            case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Call(func=inner):
                expression = inner
            case _:
                return ""
    return expression.id
