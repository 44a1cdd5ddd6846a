"""Gradient ascent on pictures: many in one batch, each with its own random numbers, as if it were alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor, nn

from vitrine.analyses.first_convolution import FastFirstConvolution
from vitrine.analyses.objectives import Objective, ObjectiveBatch
from vitrine.analyses.parameterization import Pixels
from vitrine.analyses.relu_rules import NoRule, ReluRule, redirected
from vitrine.core.random_numbers import hash_seed

RESCUED = 16  # steps during which a picture without any gradient is helped

View = Callable[[Tensor, int], Tensor]
"""(pictures [N, C, H, W], step) -> what the network is shown in their place, [V N, C, H, W]."""


def generators(objectives: Sequence[Objective], seed: int) -> list[torch.Generator]:
    """A generator for each picture: its numbers depend on the seed, on its objective, and on how many
    pictures of the same objective come before it; on nothing else in the call."""
    made, met = [], Counter[str]()
    for name in (objective.name for objective in objectives):
        made.append(torch.Generator().manual_seed(hash_seed(f"{seed} {met[name]} {name}".encode())))
        met[name] += 1
    return made


def ascend(
    network: nn.Module,
    objectives: Sequence[Objective],
    parameterization: Pixels,
    variables: Tensor,
    view: View,
    *,
    at: Collection[int],
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    watch: Callable[[Tensor], None] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """The numbers of steps asked for, each with the pictures [N, C, size, size] after so many.

    Gradients are taken with respect to the variables only, and of the network only what the objectives need
    is run.

    Args:
        network: held still by the caller.
        objectives: one a picture.
        parameterization: turns variables into pictures.
        variables: as the parameterization's `start` or `invert` gives them; not changed.
        view: what the network is shown at a step: as many images as there are pictures, or a multiple of
            that.
        at: numbers of steps; 0 is before the first.
        optimizer: makes one that maximises, from a list of parameters.
        watch: called at each step with the gradient with respect to the pictures.
    """
    batch = ObjectiveBatch(objectives)
    variables = variables.detach().clone().requires_grad_(True)
    climber = optimizer([variables])
    on_gpu = variables.device.type == "cuda"

    def gradients(step: int, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        pictures = parameterization.pictures(variables)
        # channels last is the faster order in memory, on CPU and GPU alike
        shown = view(pictures, step).contiguous(memory_format=torch.channels_last)
        parts = shown.split(len(pictures))
        with torch.autocast(variables.device.type, torch.bfloat16, enabled=on_gpu), FastFirstConvolution():
            if rows is None:
                scores = [batch.scores(network, part) for part in parts]
            else:
                subset = ObjectiveBatch([objectives[row] for row in rows.tolist()])
                scores = [subset.scores(network, part[rows]) for part in parts]
        wanted = [variables, pictures] if watch else [variables]
        return torch.autograd.grad(torch.stack(scores).mean(0).sum(), wanted)

    rescue = True
    for step in range(max(at) + 1):
        if step in at:
            yield step, parameterization.pictures(variables.detach())
            if step == max(at):
                return
        gradient, *on_pictures = gradients(step)
        if rescue and step < RESCUED:
            dead = (gradient.flatten(1).abs().amax(1) == 0).nonzero()[:, 0]
            if len(dead):
                try:
                    with ReluRule(redirected):
                        gradient[dead] = gradients(step, dead)[0][dead]
                except NoRule:
                    rescue = False
        if watch:
            watch(*on_pictures)
        variables.grad = gradient
        climber.step()
