"""YAML whose scalars keep their text, so that a setting that is text takes `on`, `007` or `1e3` as written.

What a plain word means depends on the setting: `on` is true for a bool and "on" for a text. YAML decides
without knowing the setting; here `convert` decides, which knows its type. Integers are decimal (YAML 1.1
reads 010 as 8 and 1:30 as 90), and floats may be written as 1e-3.
"""

import re
import typing
from dataclasses import dataclass
from typing import Any

import yaml

from vitrine.core.settings import union_members

_INTEGER = re.compile(r"[-+]?\d[\d_]*|0[xob][\da-fA-F_]+", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[-+]?\d+)?|[-+]?\.inf|\.nan", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True)
class Scalar:
    """A value and the text it was written as."""

    text: str
    value: Any  # what YAML reads in it; of no use where there is a `problem`
    problem: str | None = None  # why it is no YAML


class UnreadableText(ValueError):
    """What is not YAML, for a setting that is not text."""


class _Mapping(dict):
    """The mapping that an argument such as `notes=lr: 0.1` is in YAML, with its text."""

    text: str


class _Loader(yaml.SafeLoader):
    """Plain scalars that are not words become `Scalar`s; keys are text, and none comes twice."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if not isinstance(node, yaml.ScalarNode) or node.style is not None:
            return super().construct_object(node, deep)
        ours = node.tag.removeprefix("tag:yaml.org,2002:") in ("int", "float", "timestamp", "value", "str")
        value = _number(node.value) if ours else super().construct_object(node, deep)
        return value if isinstance(value, str) else Scalar(node.value, value)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"key {twice} comes twice", node.start_mark)
        self.flatten_mapping(node)
        return {str(key.value): self.construct_object(value, deep) for key, value in node.value}


def _number(text: str) -> int | float | str:
    digits = text.replace("_", "").lower()
    if _INTEGER.fullmatch(text):
        return int(digits, 10 if digits.lstrip("+-").isdecimal() else 0)
    return float(re.sub(r"\.(?=[in])", "", digits)) if _FLOAT.fullmatch(text) else text


def load(text: str) -> Any:
    """A document as nested dicts and lists of texts and `Scalar`s.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, Loader=_Loader)


def load_argument(text: str) -> Any:
    """The value of `key=value`, likewise; the whole text is kept, even if it is no YAML."""
    text = text.strip()
    try:
        value = load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return Scalar(text, None, " ".join(str(error).split()))
    if isinstance(value, dict):
        value = _Mapping(value)
        value.text = text
        return value
    if isinstance(value, str) and text[0] in ("'", '"'):
        return value
    value = value.value if isinstance(value, Scalar) else value
    if value is None and text.lower() not in ("", "~", "null"):  # a comment, an anchor
        return text
    return Scalar(text, value)


def convert(value: Any, hint: Any) -> Any:
    """`value` as plain containers, scalars as text where `hint` allows text and not what YAML reads in them.

    Raises:
        UnreadableText: it is no YAML, and text is not allowed.
    """
    members = union_members(hint)
    if isinstance(value, Scalar):
        if str in members and (value.problem or not _is_allowed(value.value, members)):
            return value.text
        if value.problem:
            raise UnreadableText(f"{value.text!r} cannot be read: {value.problem}")
        value = value.value
    if isinstance(value, _Mapping) and str in members and not _is_allowed(value, members):
        return value.text
    if isinstance(value, list):
        of = next((typing.get_args(m)[0] for m in members if typing.get_origin(m) is list), Any)
        return [convert(item, of) for item in value]
    if isinstance(value, dict):
        return {key: convert(item, Any) for key, item in value.items()}
    return value


def _is_allowed(value: Any, members: tuple[Any, ...]) -> bool:
    if isinstance(value, str):
        return False  # the text is the same, or has what YAML takes for a comment
    kinds = {typing.get_origin(m) or m for m in members}
    literals = [v for m in members if typing.get_origin(m) is typing.Literal for v in typing.get_args(m)]
    wide = {type(value), float} if type(value) is int else {type(value)}
    return bool(kinds & {*wide, Any, *([dict] if isinstance(value, dict) else [])}) or value in literals
