"""The target class and the budget of an attack, as settings and captions name them."""

from __future__ import annotations

from collections.abc import Sequence

from vitrine.core.registry import UnknownName


def class_index(name: str, classes: Sequence[str]) -> int:
    """The index of a class, given its name, or its index where no class has that name.

    Raises:
        UnknownName: there is no such class; with the nearest names.
    """
    if name in classes:
        return list(classes).index(name)
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    raise UnknownName("class", name, classes)


def format_budget(norm: str, eps: float) -> str:
    """A perturbation budget as text: "Linf 8/255", "L2 0.5"."""
    return f"Linf {eps * 255:.3g}/255" if norm == "linf" else f"L2 {eps:.3g}"
