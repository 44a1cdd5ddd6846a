"""Pictures optimised for objectives in batches: what all kinds of feature visualization share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from vitrine.analyses.activations import activations
from vitrine.analyses.ascent import View, ascend, picture_generators
from vitrine.analyses.base import Progress
from vitrine.analyses.hooks import input_channels
from vitrine.analyses.objectives import Objective, ObjectiveBatch, diversity_groups
from vitrine.analyses.parameterization import Pixels, imagenet_colours
from vitrine.analyses.picture_size import Size, sides, size_text

BATCH_PIXELS = {"cpu": 8 * 128**2, "cuda": 128 * 224**2}  # larger batches fall out of a CPU's cache


def optimize_pictures(
    network: nn.Module,
    objectives: Sequence[Objective],
    parameters: Pixels,
    view: Callable[[list[torch.Generator]], View],
    at_steps: Sequence[int],
    seed: int,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    warm_start: Tensor | None,
    batch_size: int | None,
    progress: Progress,
    precision: str | None = None,
    on_gradient: Callable[[list[int], Tensor], None] | None = None,
) -> Tensor:
    """Pictures [len(at_steps), N, C, height, width], optimised batch by batch."""
    if warm_start is not None and len(warm_start) != len(objectives):
        raise ValueError(
            f"warm_start has {len(warm_start)} pictures, expected one for each of {len(objectives)}"
        )
    _check(network, objectives, parameters)
    generators = picture_generators(objectives, seed)
    colours, size = parameters.colours, parameters.size
    shape = len(at_steps), len(objectives), len(colours), *parameters.sides
    result = torch.empty(shape, device=colours.device)
    batches = _batches(objectives, batch_size or default_batch_size(size, colours.device))
    for members in progress(batches, "features", len(batches)):
        own = [generators[i] for i in members]
        if warm_start is None:
            variables = parameters.initialize(own)
        else:
            variables = parameters.invert(warm_start[members])
        result[:, members] = ascend(
            network,
            [objectives[i] for i in members],
            parameters,
            variables,
            view(own),
            at_steps=at_steps,
            optimizer=optimizer,
            precision=precision,
            on_gradient=partial(on_gradient, members) if on_gradient else None,
        )
    return result


def _batches(objectives: Sequence[Objective], batch_size: int) -> list[list[int]]:
    """The objectives' numbers in batches of at most batch_size, unless a diversity group alone is larger."""
    batches: list[list[int]] = []
    for group in diversity_groups(objectives):
        if batches and len(batches[-1]) + len(group) <= batch_size:
            batches[-1] += group
        else:
            batches.append(group)
    return batches


def default_batch_size(size: Size, device: torch.device) -> int:
    """The number of pictures of a size that a device processes efficiently."""
    pixels = BATCH_PIXELS.get(device.type, BATCH_PIXELS["cpu"])
    return max(1, min(256, pixels // math.prod(sides(size))))


def _check(network: nn.Module, objectives: Sequence[Objective], parameters: Pixels) -> None:
    """Raise for what is wrong with a call before the work begins, by one forward pass."""
    terms = [Objective(((1.0, term),)) for objective in objectives for _, term in objective.terms]
    batch, size, colours = ObjectiveBatch(terms), size_text(parameters.size), parameters.colours
    grey = torch.full((1, len(colours), *parameters.sides), 0.5, device=colours.device)
    with torch.no_grad():
        try:
            maps = activations(network, grey, batch.layers)
        except (RuntimeError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"size is {size}, and the network does not take images of that size: {reason}"
            ) from error
        batch.scores_from_maps({layer: m.expand(len(terms), -1, -1, -1) for layer, m in maps.items()})


def device_of(network: nn.Module) -> torch.device:
    tensors = (*network.parameters(), *network.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def colours_for(network: nn.Module, size: Size, colours: Tensor | None, warm_start: Tensor | None) -> Tensor:
    """The given colour directions, or those of ImageNet or of grey images, by the network's channels."""
    if colours is None:
        channels = input_channels(network, sides(size)) if warm_start is None else warm_start.shape[1]
        if channels not in (1, 3):
            raise ValueError(
                f"colours are needed: the network takes {channels} channels, which are not grey or RGB"
            )
        colours = imagenet_colours() if channels == 3 else torch.ones(1, 1)
    return colours.to(device_of(network), torch.float32)
