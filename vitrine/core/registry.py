"""Objects by name, imported when asked for; unknown names are answered with the nearest known ones."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any


class UnknownName(ValueError):
    """A name that is not known; the message has its kind, the nearest names and the known ones."""

    def __init__(self, kind: str, name: object, known: Iterable[str]):
        self.kind, self.name, self.known = kind, name, list(known)
        self.nearest = nearest(str(name), self.known)
        if self.nearest:
            hint = f"did you mean {' or '.join(self.nearest)}?"
            if len(self.known) <= 40:
                hint += f" Known: {', '.join(self.known)}"
        else:
            hint = f"known: {', '.join(self.known[:40])}{', ...' if len(self.known) > 40 else ''}"
        super().__init__(f"unknown {kind} {name!r}: {hint}")


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names closest to a mistyped one, best first: by spelling, then by a shared part."""
    known = list(known)
    by_case = {k.lower(): k for k in known}
    close = [by_case[k] for k in difflib.get_close_matches(name.lower(), list(by_case), n=most, cutoff=0.6)]
    if close:
        return close
    part = name.lower()
    return [k for k in known if len(part) > 2 and (part in k.lower() or k.lower() in part)][:most]


class Registry:
    """Names to objects, each imported when it is asked for, so that looking at the names costs nothing.

    Args:
        kind: of objects, for messages ("data set", "analysis").
        places: name -> "module:attribute", or the thing itself.
        refused: names that are asked for and that there is nothing of on purpose -> what to do instead.
    """

    def __init__(self, kind: str, places: dict[str, Any], refused: dict[str, str] | None = None):
        self.kind, self.places, self.refused = kind, places, refused or {}

    def register(self, name: str, place: Any) -> None:
        """Add a thing, or the "module:attribute" that it is imported from, under a new name.

        Raises:
            ValueError: the name is taken.
        """
        if name in self.places:
            raise ValueError(f"{self.kind} {name!r} is registered already, as {self.places[name]!r}")
        self.places[name] = place

    def check(self, name: str) -> None:
        """Raise UnknownName unless the name is known, and ValueError if it is refused."""
        if name in self.refused:
            raise ValueError(f"{self.kind} {name!r} is not supported: {self.refused[name]}")
        if name not in self:
            raise UnknownName(self.kind, name, self)

    def __getitem__(self, name: str) -> Any:
        self.check(name)
        place = self.places[name]
        if not isinstance(place, str):
            return place
        module, attribute = place.split(":")
        return getattr(importlib.import_module(module), attribute)

    def name_of(self, thing: Any) -> str:
        """The name under which a class or function is registered; UnknownName if it is not."""
        place = f"{thing.__module__}:{thing.__qualname__}"
        for name, known in self.places.items():
            if known is thing or known == place:
                return name
        raise UnknownName(self.kind, place, self)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __len__(self) -> int:
        return len(self.places)
