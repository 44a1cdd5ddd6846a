"""Train image classifiers in a glass case: at every checkpoint, see what the network has learned.

What a notebook or another project uses; each is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

_HOME = {
    "load_network": "vitrine.modules",
    "load_checkpoint": "vitrine.modules",
    "AnalyzeCheckpoints": "vitrine.callbacks.analyze_checkpoints",
}
_ROOMS = ("analyses", "attacks", "callbacks", "datamodules", "modules")

__all__ = [
    "AnalyzeCheckpoints",
    "analyses",
    "attacks",
    "callbacks",
    "datamodules",
    "load_checkpoint",
    "load_network",
    "modules",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"vitrine.{name}")
    if name == "__version__":
        return importlib.metadata.version("vitrine")
    raise AttributeError(f"module 'vitrine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__, "__version__"]
