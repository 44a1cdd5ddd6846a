"""What is trained: networks by name, objectives, the LightningModule, and the way back from a checkpoint."""

from __future__ import annotations

import importlib
from typing import Any

from registry import Registry

OBJECTIVES = Registry(
    "objective",
    {
        "standard": "modules.objectives.standard:Standard",
        "pgd": "modules.objectives.pgd:PGD",
        "fast": "modules.objectives.fast:Fast",
        "free": "modules.objectives.free:Free",
        "trades": "modules.objectives.trades:TRADES",
        "mart": "modules.objectives.mart:MART",
    },
)

# Imported when first asked for: naming a setting must not cost an import of torchvision or lightning.
_LAZY = {
    "NETWORKS": "modules.networks",
    "load_network": "modules.loading",
    "load_checkpoint": "modules.checkpoint",
    "Classifier": "modules.classifier",
    "OptimizerSettings": "modules.optimizers",
}

__all__ = ["NETWORKS", "OBJECTIVES", "Classifier", "OptimizerSettings", "load_checkpoint", "load_network"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'modules' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
