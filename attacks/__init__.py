"""Adversarial attacks: dataclasses called on (network, images, labels), images in [0, 1]."""

from __future__ import annotations

import importlib
from typing import Any

from registry import Registry

ATTACKS = Registry(
    "attack",
    {
        "fgsm": "attacks.fgsm:FGSM",
        "bim": "attacks.pgd:BIM",
        "pgd": "attacks.pgd:PGD",
        "lbfgs": "attacks.lbfgs:LBFGS",
        "apgd": "attacks.apgd:APGD",
        "fab": "attacks.fab:FAB",
        "square": "attacks.square:Square",
        "autoattack": "attacks.autoattack:AutoAttack",
        "eot": "attacks.eot:EOT",
    },
)

TRANSFORMATIONS = Registry(
    "transformation",
    {
        "rotation": "attacks.transformations:Rotation",
        "scale": "attacks.transformations:Scale",
        "perspective": "attacks.transformations:Perspective",
        "light": "attacks.transformations:Light",
        "blur": "attacks.transformations:Blur",
        "jpeg": "attacks.jpeg:JPEG",
        "print_and_photograph": "attacks.photograph:PrintAndPhotograph",
        "physical": "attacks.photograph:Physical",
    },
)

# Imported when first asked for: naming an attack's settings must not cost the import of all others.
_LAZY = {
    "Attack": "attacks.base",
    "FGSM": "attacks.fgsm",
    "BIM": "attacks.pgd",
    "PGD": "attacks.pgd",
    "LBFGS": "attacks.lbfgs",
    "APGD": "attacks.apgd",
    "FAB": "attacks.fab",
    "Square": "attacks.square",
    "AutoAttack": "attacks.autoattack",
    "EOT": "attacks.eot",
    "destruction_rate": "attacks.eot",
    "fooled": "attacks.victim",
    "nested": "attacks.budgets",
}

__all__ = [
    "APGD",
    "ATTACKS",
    "BIM",
    "EOT",
    "FAB",
    "FGSM",
    "LBFGS",
    "PGD",
    "TRANSFORMATIONS",
    "Attack",
    "AutoAttack",
    "Square",
    "destruction_rate",
    "fooled",
    "nested",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'attacks' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
