"""The outputs of a network's named layers, as maps [B, C, h, w]."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vitrine.analyses.hooks import output_hooks
from vitrine.analyses.layout import Layout, layouts

LOGITS = ""  # in place of a layer's name: the network's output


def activations(network: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """The maps [B, C, h, w] of the named layers on images [B, C, H, W]; nothing deeper is computed.

    Gradients flow as grad mode and the images ask. A layer used several times gives its first output;
    `LOGITS` are maps [B, K, 1, 1].

    Raises:
        UnknownName: there is no such layer.
        ValueError: a layer was not reached, or its output is no map.
    """
    named = [layer for layer in layers if layer != LOGITS]
    layout = {**layouts(network, images, named), LOGITS: Layout("NC")}
    outputs: dict[str, Tensor] = {}

    def keep(layer: str, output: Tensor) -> Tensor:
        outputs[layer] = output
        return output.clone()  # a following in-place ReLU must not overwrite the output

    with output_hooks(network, named, keep, stop=LOGITS not in layers):
        outputs[LOGITS] = network(images)
    return {layer: layout[layer].maps(outputs[layer]) for layer in layers}
