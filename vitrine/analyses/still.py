"""A network held still while it is looked at: evaluated eagerly, and left as it was found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from vitrine.analyses.tap import evaluating


@contextmanager
def held_still(network: nn.Module, device: torch.device | str = "cpu") -> Iterator[nn.Module]:
    """Within the scope the network is in eval mode and runs eagerly, and gradients can be taken, whatever the
    caller is in: training mode (every submodule's mode is put back), `no_grad`, `inference_mode`, autocast or
    `torch.compile`.

    Batch normalisation thus uses its running statistics, and an image's map does not depend on its batch.

    Args:
        network: yielded as it is, or taken out of `torch.compile`'s wrapper.
        device: where the images are; autocast is off there.
    """
    network = getattr(network, "_orig_mod", network)
    with ExitStack() as scope:
        scope.enter_context(torch.inference_mode(False))
        scope.enter_context(torch.enable_grad())
        scope.enter_context(torch.autocast(torch.device(device).type, enabled=False))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and it takes long to import
            scope.enter_context(torch.compiler.set_stance("force_eager"))
        if any(module.training for module in network.modules()):  # else spare two walks through it
            scope.enter_context(evaluating(network))
        yield network
