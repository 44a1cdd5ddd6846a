"""The target class and the budget of an attack, as settings and captions name them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vitrine.analyses.base import File, Subject
from vitrine.core.registry import UnknownName

log = logging.getLogger(__name__)


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


def say_nothing_to_attack(subject: Subject, analysis: str, labels: Sequence[int]) -> File:
    """Log that an analysis attacks no probe, as all are of the class that they are to be taken for, and give
    a file that says so in the pictures' place.

    Args:
        analysis: its name.
        labels: of the probes.
    """
    of = "there is none"
    if labels:
        of = f"every one ({len(labels)}) is of {subject.classes[labels[0]]}, the target"
    reason = f"no probe is attacked, as {of}"
    if subject.rank == 0:
        log.log(subject.log_level(analysis), "%s is left out: %s", analysis, reason)
    return File("left-out.txt", f"{reason}\n")
