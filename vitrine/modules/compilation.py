"""A network compiled by torch, with steps that can be repeated to the bit."""

import torch
from torch import nn

_GRAPHS = 256  # of one function: modes, sizes of batches, and an attack's passes, multiply


def compile_network(network: nn.Module) -> None:
    """Compile a network in place: each kind of pass and each size of batch gets a graph of its own.

    Left to itself torch takes a size for a variable once it has seen two, and gives up at the ninth graph:
    what came before a step would decide which graph it takes, and graphs may round differently, so that a
    run that is resumed might not be what it was.
    """
    import torch._dynamo.config

    torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)
    network.compile(dynamic=False)


def try_compiling() -> None:
    """Compile and run a line of arithmetic, so that what is missing here (a C++ compiler, say) is raised."""
    torch.compile(lambda numbers: numbers * 2 + 1, dynamic=False)(torch.ones(8))
