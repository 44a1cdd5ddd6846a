"""Where results go besides the disk: the protocol, and the sections they are shown under."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from analyses.base import Figure, Scalar

Results = Mapping[str, tuple[Sequence[Figure], Sequence[Scalar]]]  # by analysis

# A dashboard read from the top tells a story; a technique that is not named here has a section of its own.
SECTIONS = {
    "weights": "Weights",
    "examples": "Examples",
    "cam": "Class maps",
    "saliency": "Saliency",
    "unit_saliency": "Features",
    "features": "Features",
    "dream": "Features",
    "style": "Features",
    "adversarial": "Adversarial",
    "robustness": "Robustness",
}

INDEX = re.compile(r"index-\d+")  # values that are places in a data set: for programs, not for people


class Sink(Protocol):
    """Takes the results of one checkpoint at a time. Never raises: one that fails says why and goes on."""

    def log(self, step: int, results: Results, folder: Path) -> None:
        """Show what the analyses yielded at `step`; `folder` is the step's directory, whole by now."""
        ...

    def close(self) -> None:
        """Everything was logged."""
        ...


def section(name: str) -> str:
    """The section an analysis is shown under: "Class maps" for "cam"."""
    return SECTIONS.get(name, name.replace("_", " ").capitalize())
