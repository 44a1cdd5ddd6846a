"""Assignment of a value to a typed tree of settings, with the conversions that recipes expect."""

import dataclasses
import logging
import re
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vitrine.config.yaml_text import Scalar, UnreadableText, convert
from vitrine.core.home import expand_home
from vitrine.core.settings import SettingError, field_type, format_type, renamed, union_members

log = logging.getLogger(__name__)

FRACTION = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")


def writable_tree(schema: type) -> DictConfig:
    """A tree of the defaults of a dataclass that can be written to even if the dataclass is frozen."""
    return _make_writable(OmegaConf.structured(schema))


@contextmanager
def silence_renames() -> Iterator[None]:
    """Within the scope nobody is told what a setting is called now."""
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


def assign(
    node: DictConfig, key: str, value: Any, unknown: Callable[[str], SettingError], path: str = ""
) -> None:
    """Assign `value` to `key`; a dict is assigned to the settings below it.

    Args:
        node: typed by a dataclass.
        unknown: makes the error for a dotted key that does not exist.
        path: the dotted name of `key`, if it differs.

    Raises:
        SettingError: there is no such key, or it cannot have the value.
    """
    path, owner = path or key, OmegaConf.get_type(node)
    if key not in node:
        new = renamed(owner, key) if dataclasses.is_dataclass(owner) else None
        if new is None:
            raise unknown(path)
        old, key, path = path, new, path.removesuffix(key) + new
        log.warning("the setting %s is called %s now", old, path)
    child = node._get_node(key)
    if isinstance(child, DictConfig) and dataclasses.is_dataclass(OmegaConf.get_type(child)):
        value = value.value if isinstance(value, Scalar) else value
        if value is None:
            return
        if not isinstance(value, dict):
            below = ", ".join(map(str, child))
            raise SettingError(path, f"is {value!r}, expected settings below it: {below}")
        for inner, v in value.items():
            assign(child, str(inner), v, unknown, f"{path}.{inner}")
        return
    hint = field_type(owner, key) if dataclasses.is_dataclass(owner) else Any
    try:
        value = _to_float(convert(value, hint), hint, path)
        value = expand_home(value) if isinstance(value, str) else value
    except UnreadableText as error:
        raise SettingError(path, str(error)) from None
    try:
        if hint in (str, str | None) and isinstance(value, (dict, list)):
            raise TypeError
        with warnings.catch_warnings():  # a number for a text, 1 for true: converted as recipes expect
            warnings.simplefilter("ignore", FutureWarning)
            node[key] = value
    except (OmegaConfBaseException, TypeError, ValueError):
        field = {f.name: f for f in dataclasses.fields(owner)}.get(key)
        meaning = f" ({field.metadata['meaning']})" if field and field.metadata.get("meaning") else ""
        raise SettingError(path, f"is {value!r}, expected {format_type(hint)}{meaning}") from None


def _to_float(value: Any, hint: Any, path: str) -> Any:
    """1, "8/255", or a list of them as float where that is expected; other values unchanged."""
    for kind in union_members(hint):
        if typing.get_origin(kind) is list and isinstance(value, list):
            return [_to_float(item, typing.get_args(kind)[0], path) for item in value]
    if float not in union_members(hint) or isinstance(value, bool):
        return value
    if isinstance(value, str) and (ratio := FRACTION.fullmatch(value)):
        if float(ratio[2]) == 0:
            raise SettingError(path, f"is {value!r}, a division by zero")
        return float(ratio[1]) / float(ratio[2])
    try:
        return float(value) if isinstance(value, int) and int not in union_members(hint) else value
    except OverflowError:
        raise SettingError(path, f"is {value}, more than a number here can hold") from None


def _make_writable(node: DictConfig) -> DictConfig:
    OmegaConf.set_readonly(node, False)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            _make_writable(child)
    return node
