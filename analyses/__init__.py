"""What a network has learned, one technique a file. A new one is a file here, a line below, and a test."""

from registry import Registry

ANALYSES = Registry(
    "analysis",
    {
        "weights": "analyses.weights:Weights",
        "examples": "analyses.examples:Examples",
        "cam": "analyses.class_maps:ClassMaps",
        "saliency": "analyses.probe_saliency:Saliency",
        "unit_saliency": "analyses.unit_saliency:UnitSaliency",
        "localization": "analyses.localization:Localization",
        "randomization": "analyses.randomization:Randomization",
        "adversarial": "analyses.adversarial:Adversarial",
        "robustness": "analyses.robustness:Robustness",
        "physical": "analyses.physical:Physical",
        "features": "analyses.features:Features",
        "dream": "analyses.dream:Dream",
        "style": "analyses.style:Style",
    },
)
