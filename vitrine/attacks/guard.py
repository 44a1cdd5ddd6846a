"""A network under attack is left as it came: modes, parameters, buffers, gradients, random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(network: nn.Module, mode: str, seed: int, device: torch.device) -> Iterator[None]:
    """Within the scope gradients reach images but no parameter, and afterwards everything is as it was.

    Args:
        network: whose submodules' modes, parameters' requires_grad and buffers are as before afterwards.
        mode: "eval"; or "train", where layers that keep running statistics use the batch's own and leave the
            running ones alone. All other layers evaluate in either: dropout is no defence.
        seed: of the random numbers that the network itself may draw; the generators are put back.
        device: where the network is.
    """
    modules = list(network.modules())
    modes = [module.training for module in modules]
    by_batch = [m for m in modules if mode == "train" and getattr(m, "track_running_stats", False)]
    trained = [p for p in network.parameters() if p.requires_grad]
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        for module in modules:
            module.training = False
        for module in by_batch:
            module.training, module.track_running_stats = True, False
        for parameter in trained:
            parameter.requires_grad_(False)  # no weight's gradient is computed, nor kept ready for
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module in by_batch:
            module.track_running_stats = True
        for module, training in zip(modules, modes):
            module.training = training
        for generator, state in zip(generators, states):
            generator.set_state(state)
