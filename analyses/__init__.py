"""What a network has learned, one technique a file. A new one is a file here, a line below, and a test."""

from registry import Registry

ANALYSES = Registry(
    "analysis",
    {
        "weights": "analyses.weights:Weights",
        "examples": "analyses.examples:Examples",
        "cam": "analyses.cam:ClassMaps",
        "features": "analyses.features:Features",
        "dream": "analyses.dream:Dream",
        "style": "analyses.style:Style",
    },
)
