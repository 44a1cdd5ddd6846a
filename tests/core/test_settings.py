from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from vitrine.core.settings import SettingError, check, format_type, setting


@dataclass
class Inner:
    share: float = setting(0.5, "a share", least=0, most=1)


@dataclass
class Outer:
    count: int = setting(1, "how many", above=0)
    colour: str = setting("red", "which", choices=("red", "blue"))
    limit: int | None = setting(None, "at most this many", least=1)
    names: list[str] = setting(["a"], "names")
    inner: Inner = field(default_factory=Inner)


def test_defaults_pass():
    check(Outer())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Outer(count=0), r"^top\.count: is 0, expected more than 0$"),
        (Outer(count=float("nan")), r"^top\.count: is nan, expected more than 0$"),
        (Outer(colour="green"), r"^top\.colour: is 'green', expected one of red, blue$"),
        (Outer(limit=0), r"^top\.limit: is 0, expected at least 1$"),
        (Outer(inner=Inner(share=1.5)), r"^top\.inner\.share: is 1\.5, expected at most 1$"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_whole_key(made, message):
    with pytest.raises(SettingError, match=message):
        check(made, "top")


def test_mutable_defaults_are_copied():
    one, other = Outer(), Outer()
    one.names.append("b")
    assert other.names == ["a"]


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "int"),
        (str | None, "str or null"),
        (list[int], "list[int]"),
        (Literal["a", 16] | None, "a or 16 or null"),
        (Any, "any"),
    ],
)
def test_types_in_words(hint, words):
    assert format_type(hint) == words
