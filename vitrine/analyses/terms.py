"""The terms of an attack as a person says them: the class to be reached, and the budget."""

from __future__ import annotations

from collections.abc import Sequence

from vitrine.core.registry import UnknownName


def class_index(wanted: str, classes: Sequence[str]) -> int:
    """The index of a class given by its name, or by its index where no class is called that.

    Raises:
        UnknownName: there is no such class; tells the nearest names.
    """
    if wanted in classes:
        return list(classes).index(wanted)
    if wanted.isdecimal() and int(wanted) < len(classes):
        return int(wanted)
    raise UnknownName("class", wanted, classes)


def budget(norm: str, eps: float) -> str:
    """A budget in words: "Linf 8/255", "L2 0.5"."""
    return f"Linf {eps * 255:.3g}/255" if norm == "linf" else f"L2 {eps:.3g}"
