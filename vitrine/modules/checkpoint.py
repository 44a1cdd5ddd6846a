"""From one of our checkpoints back to its network, and nothing else needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vitrine.modules.networks import build
from vitrine.modules.normalize import attach
from vitrine.modules.weights import Weights, WeightsError, fit, of_checkpoint, read


def load_checkpoint(file: str | Path) -> nn.Module:
    """The network of one of our checkpoints, normalisation and class names included, in eval mode.

    Where weights were averaged (EMA), these are the averaged ones. Only tensors and plain containers are
    read, and nothing random is drawn.

    Raises:
        WeightsError: the file is absent, truncated, not one of ours, or asks for code to be run.
    """
    content = read(file)
    if not isinstance(content, Mapping):
        raise WeightsError(file, "is not a checkpoint of this program (no 'vitrine' entry)")
    spec, classes, state = of_checkpoint(file, content)
    with torch.random.fork_rng(devices=[]):  # building draws weights that are overwritten at once
        try:
            network = build(spec)
        except (ValueError, TypeError) as error:
            raise WeightsError(file, f"its network cannot be built: {error}") from error
    channels = int(spec["channels"])
    attach(network, [0.0] * channels, [1.0] * channels)
    fit(network, Weights(str(file), state))
    network.spec, network.classes = spec, classes
    return network.eval()
