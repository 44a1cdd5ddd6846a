"""The network of one of our checkpoints, from the file alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrine.core.references import is_reference
from vitrine.modules.network_names import is_foreign
from vitrine.modules.network_record import attach_record
from vitrine.modules.networks import build_network
from vitrine.modules.normalize import attach
from vitrine.modules.weights import Weights, WeightsError, load_into, parse_checkpoint, read_file


class ReferenceNeeded(WeightsError):
    """A checkpoint of a network by reference, and nobody but the checkpoint named it."""


def load_checkpoint(file: str | Path, network: str | None = None) -> nn.Module:
    """The network of one of our checkpoints, normalisation and class names included, in eval mode.

    Where weights were averaged (EMA), these are the averaged ones. Only tensors and plain containers are
    read, and the global random number generators are not advanced.

    Args:
        network: for checkpoints of a network by reference, the reference, as `load_network` takes it: what a
            checkpoint alone names is not imported. Others need none.

    Raises:
        WeightsError: the file is missing, truncated, not one of ours, or would run code.
        ReferenceNeeded: it is of a network by reference, and none was given.
    """
    content = read_file(file)
    if not isinstance(content, Mapping):
        raise WeightsError(file, "is not a checkpoint of this program (no 'vitrine' entry)")
    spec, classes, state = parse_checkpoint(file, content)
    if is_reference(str(spec["name"])):
        if network is None:
            call = f"load_checkpoint(file, network={str(spec['name'])!r})"
            problem = "holds a network of your own, whose code is not run because a checkpoint names it"
            raise ReferenceNeeded(file, f"{problem}: name it yourself, {call}")
        spec["name"] = network
    with torch.random.fork_rng(devices=[]):  # building draws random weights, which are overwritten
        try:
            found = build_network(spec)
        except (ValueError, TypeError) as error:
            raise WeightsError(file, f"its network cannot be built: {error}") from error
    if is_foreign(spec["name"]):
        attach_record(found, mean=spec.get("mean"), std=spec.get("std"))
    else:
        channels = int(spec["channels"])
        attach(found, [0.0] * channels, [1.0] * channels)
    load_into(found, Weights(str(file), state))
    return attach_record(found, spec=spec, classes=classes, learning_rate=learning_rate(content)).eval()


def learning_rate(checkpoint: Mapping[str, Any]) -> float | None:
    """The learning rate of the first parameter group of the first optimizer in a checkpoint's content; None
    where it holds no optimizer."""
    states = checkpoint.get("optimizer_states") or ()
    groups = states[0].get("param_groups", ()) if states and isinstance(states[0], Mapping) else ()
    rate = groups[0].get("lr") if groups else None
    return None if rate is None else float(rate)
