"""What a network has learned, one technique a file. A new one is a file here, a line below, and a test."""

import dataclasses

from vitrine.analyses.traits import Traits
from vitrine.core.registry import Registry

ANALYSES = Registry(
    "analysis",
    {
        "weights": "vitrine.analyses.weights:Weights",
        "examples": "vitrine.analyses.examples:Examples",
        "cam": "vitrine.analyses.class_maps:ClassMaps",
        "saliency": "vitrine.analyses.probe_saliency:Saliency",
        "unit_saliency": "vitrine.analyses.unit_saliency:UnitSaliency",
        "localization": "vitrine.analyses.localization:Localization",
        "randomization": "vitrine.analyses.randomization:Randomization",
        "adversarial": "vitrine.analyses.adversarial:Adversarial",
        "robustness": "vitrine.analyses.robustness:Robustness",
        "physical": "vitrine.analyses.physical:Physical",
        "features": "vitrine.analyses.features:Features",
        "dream": "vitrine.analyses.dream:Dream",
        "style": "vitrine.analyses.style:Style",
    },
)


def traits_of(name: str) -> Traits:
    """What the technique of this name declares, with section and title; the defaults where there is none."""
    declared = ANALYSES[name].traits if name in ANALYSES else Traits()
    readable = name.replace("_", " ").capitalize()
    return dataclasses.replace(
        declared, section=declared.section or readable, title=declared.title or readable
    )
