"""Train image classifiers in a glass case: at every checkpoint, see what the network has learned.

The names that notebooks and other projects import; each is loaded on first access (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {  # name -> module
    "load_network": "vitrine.modules",
    "load_checkpoint": "vitrine.modules",
    "AnalyzeCheckpoints": "vitrine.callbacks.analyze_checkpoints",
    "look": "vitrine.standalone",
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
    "look",
    "modules",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"vitrine.{name}")
    raise AttributeError(f"module 'vitrine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
