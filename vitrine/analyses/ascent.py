"""Gradient ascent on pictures: many in one batch, each with its own random numbers, as if it were alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor, nn

from vitrine.analyses.first_convolution import FastFirstConvolution
from vitrine.analyses.objectives import Objective, ObjectiveBatch
from vitrine.analyses.parameterization import Pixels
from vitrine.analyses.relu_rules import NoRule, ReluRule, redirected_relu
from vitrine.core.random_numbers import hash_seed

RESCUED = 16  # steps during which a picture without any gradient is helped

View = Callable[[Tensor, int], Tensor]
"""(pictures [N, C, H, W], step) -> the network's input, V views of each, [V N, C, H, W]."""


def picture_generators(objectives: Sequence[Objective], seed: int) -> list[torch.Generator]:
    """A generator for each picture, seeded by the seed, its objective, and the number of earlier pictures of
    the same objective; independent of all else in the call."""
    generators, earlier = [], Counter[str]()
    for name in (objective.name for objective in objectives):
        generators.append(torch.Generator().manual_seed(hash_seed(f"{seed} {earlier[name]} {name}".encode())))
        earlier[name] += 1
    return generators


def ascend(
    network: nn.Module,
    objectives: Sequence[Objective],
    parameterization: Pixels,
    variables: Tensor,
    view: View,
    *,
    at_steps: Collection[int],
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    on_gradient: Callable[[Tensor], None] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yields the requested numbers of steps, each with the pictures [N, C, size, size] after it.

    Gradients are with respect to the variables only; the forward pass ends at the deepest layer needed.

    Args:
        network: in eval mode, by the caller.
        objectives: one a picture.
        parameterization: turns variables into pictures.
        variables: from the parameterization's `initialize` or `invert`; not changed.
        view: gives the network's input at a step: one image for each picture, or as many for each.
        at_steps: numbers of steps; 0 is before the first.
        optimizer: makes one that maximises, from a list of parameters.
        on_gradient: called at each step with the gradient with respect to the pictures.
    """
    batch = ObjectiveBatch(objectives)
    variables = variables.detach().clone().requires_grad_(True)
    ascent = optimizer([variables])
    on_gpu = variables.device.type == "cuda"

    def gradients(step: int, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        pictures = parameterization.pictures(variables)
        # channels last is faster, on CPU and GPU alike
        views = view(pictures, step).contiguous(memory_format=torch.channels_last)
        parts = views.split(len(pictures))
        with torch.autocast(variables.device.type, torch.bfloat16, enabled=on_gpu), FastFirstConvolution():
            if rows is None:
                scores = [batch.scores(network, part) for part in parts]
            else:
                subset = ObjectiveBatch([objectives[row] for row in rows.tolist()])
                scores = [subset.scores(network, part[rows]) for part in parts]
        inputs = [variables, pictures] if on_gradient else [variables]
        return torch.autograd.grad(torch.stack(scores).mean(0).sum(), inputs)

    rescue = True
    for step in range(max(at_steps) + 1):
        if step in at_steps:
            yield step, parameterization.pictures(variables.detach())
            if step == max(at_steps):
                return
        gradient, *picture_gradient = gradients(step)
        if rescue and step < RESCUED:
            dead = (gradient.flatten(1).abs().amax(1) == 0).nonzero()[:, 0]
            if len(dead):
                try:
                    with ReluRule(redirected_relu):
                        gradient[dead] = gradients(step, dead)[0][dead]
                except NoRule:
                    rescue = False
        if on_gradient:
            on_gradient(*picture_gradient)
        variables.grad = gradient
        ascent.step()
