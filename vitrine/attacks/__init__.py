"""Adversarial attacks: dataclasses called on (network, images, labels), images in [0, 1]."""

from __future__ import annotations

import importlib
from typing import Any

from vitrine.core.registry import Registry

ATTACKS = Registry(
    "attack",
    {
        "fgsm": "vitrine.attacks.pgd:FGSM",
        "bim": "vitrine.attacks.pgd:BIM",
        "pgd": "vitrine.attacks.pgd:PGD",
        "lbfgs": "vitrine.attacks.lbfgs:LBFGS",
        "apgd": "vitrine.attacks.apgd:APGD",
        "fab": "vitrine.attacks.fab:FAB",
        "square": "vitrine.attacks.square:Square",
        "autoattack": "vitrine.attacks.autoattack:AutoAttack",
        "eot": "vitrine.attacks.eot:EOT",
    },
)

TRANSFORMATIONS = Registry(
    "transformation",
    {
        "rotation": "vitrine.attacks.transformations:Rotation",
        "scale": "vitrine.attacks.transformations:Scale",
        "perspective": "vitrine.attacks.transformations:Perspective",
        "light": "vitrine.attacks.transformations:Light",
        "blur": "vitrine.attacks.transformations:Blur",
        "jpeg": "vitrine.attacks.jpeg:JPEG",
        "print_and_photograph": "vitrine.attacks.photograph:PrintAndPhotograph",
        "physical": "vitrine.attacks.photograph:Physical",
    },
)

# Imported when first asked for: naming an attack's settings must not cost the import of all others.
_LAZY = {
    **{attribute: module for module, attribute in (place.split(":") for place in ATTACKS.places.values())},
    "Attack": "vitrine.attacks.base",
    "TextureAttack": "vitrine.attacks.textures",
    "destruction_rate": "vitrine.attacks.eot",
    "is_adversarial": "vitrine.attacks.model",
    "robustness_curve": "vitrine.attacks.curve",
}

__all__ = ["ATTACKS", "TRANSFORMATIONS", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'vitrine.attacks' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
