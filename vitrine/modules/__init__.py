"""Networks by name, training objectives, the LightningModule, and networks from checkpoints."""

import importlib
from typing import Any

from vitrine.core.registry import Registry

_ONE_LABEL = (
    "an image has one class here, in training, metrics and analyses; train one network a label, each on two "
    "classes (with the label, without it), or give images of several labels classes of their own"
)
OBJECTIVES = Registry(
    "objective",
    {
        "standard": "vitrine.modules.objectives.standard:Standard",
        "pgd": "vitrine.modules.objectives.pgd:PGD",
        "fast": "vitrine.modules.objectives.fast:Fast",
        "free": "vitrine.modules.objectives.free:Free",
        "trades": "vitrine.modules.objectives.trades:TRADES",
        "mart": "vitrine.modules.objectives.mart:MART",
    },
    refused=dict.fromkeys(("multilabel", "multi_label", "multi-label", "bce"), _ONE_LABEL),
)

# Imported when first used: naming a setting must not import torchvision or lightning.
_LAZY = {
    "NETWORKS": "vitrine.modules.network_names",
    "load_network": "vitrine.modules.loading",
    "record_of": "vitrine.modules.network_record",
    "load_checkpoint": "vitrine.modules.checkpoint",
    "Classifier": "vitrine.modules.classifier",
    "OptimizerSettings": "vitrine.modules.optimizers",
}

__all__ = [
    "NETWORKS",
    "OBJECTIVES",
    "Classifier",
    "OptimizerSettings",
    "load_checkpoint",
    "load_network",
    "record_of",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'modules' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
