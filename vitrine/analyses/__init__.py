"""What a network has learned, one technique a file. A new one is a file here, a line below, and a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vitrine.analyses.traits import Traits
from vitrine.core.registry import Registry

if TYPE_CHECKING:
    from vitrine.analyses.base import Analysis

ANALYSES = Registry(
    "analysis",
    {
        "confusion": "vitrine.analyses.confusion:Confusion",
        "weights": "vitrine.analyses.weights:Weights",
        "examples": "vitrine.analyses.examples:Examples",
        "unit_names": "vitrine.analyses.unit_names:UnitNames",
        "cam": "vitrine.analyses.class_maps:ClassMaps",
        "attention": "vitrine.analyses.attention_pictures:AttentionPictures",
        "outlier_tokens": "vitrine.analyses.outlier_tokens:OutlierTokens",
        "saliency": "vitrine.analyses.probe_saliency:Saliency",
        "relevance": "vitrine.analyses.probe_relevance:ProbeRelevance",
        "samples": "vitrine.analyses.samples:Samples",
        "unit_saliency": "vitrine.analyses.unit_saliency:UnitSaliency",
        "localization": "vitrine.analyses.localization:Localization",
        "truth": "vitrine.analyses.truth:Truth",
        "shortcut": "vitrine.analyses.shortcut:Shortcut",
        "randomization": "vitrine.analyses.randomization:Randomization",
        "adversarial": "vitrine.analyses.adversarial:Adversarial",
        "robustness": "vitrine.analyses.robustness:Robustness",
        "physical": "vitrine.analyses.physical:Physical",
        "adversarial_object": "vitrine.analyses.adversarial_object:AdversarialObject",
        "concepts": "vitrine.analyses.concepts:Concepts",
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


def choose_analyses(chosen: Sequence[str] | Mapping[str, Analysis] | None = None) -> dict[str, Analysis]:
    """Techniques by name: those named, with their default settings; those given; or those of the default run.

    Raises:
        UnknownName: a name that is no technique's; with the nearest.
    """
    if isinstance(chosen, Mapping):
        for name in chosen:
            ANALYSES.check(name)
        return {name: dataclasses.replace(analysis, enabled=True) for name, analysis in chosen.items()}
    if isinstance(chosen, str):
        chosen = [chosen]
    if chosen is not None:
        return {name: ANALYSES[name](enabled=True) for name in chosen}
    default = {name: ANALYSES[name]() for name in ANALYSES}
    return {name: analysis for name, analysis in default.items() if analysis.enabled}
