"""The network of one of our checkpoints, from the file alone."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vitrine.modules.network_record import attach_record
from vitrine.modules.networks import build_network
from vitrine.modules.normalize import attach
from vitrine.modules.weights import Weights, WeightsError, load_into, parse_checkpoint, read_file


def load_checkpoint(file: str | Path) -> nn.Module:
    """The network of one of our checkpoints, normalisation and class names included, in eval mode.

    Where weights were averaged (EMA), these are the averaged ones. Only tensors and plain containers are
    read, and the global random number generators are not advanced.

    Raises:
        WeightsError: the file is missing, truncated, not one of ours, or would run code.
    """
    content = read_file(file)
    if not isinstance(content, Mapping):
        raise WeightsError(file, "is not a checkpoint of this program (no 'vitrine' entry)")
    spec, classes, state = parse_checkpoint(file, content)
    with torch.random.fork_rng(devices=[]):  # building draws random weights, which are overwritten
        try:
            network = build_network(spec)
        except (ValueError, TypeError) as error:
            raise WeightsError(file, f"its network cannot be built: {error}") from error
    channels = int(spec["channels"])
    attach(network, [0.0] * channels, [1.0] * channels)
    load_into(network, Weights(str(file), state))
    attach_record(network, spec=spec, classes=classes)
    return network.eval()
