"""Gradient ascent on pictures: many in one batch, each with its own random numbers, as if it were alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vitrine.analyses.first_convolution import FastFirstConvolution
from vitrine.analyses.gradients import gradient
from vitrine.analyses.objectives import Objective, ObjectiveBatch
from vitrine.analyses.parameterization import Pixels
from vitrine.analyses.relu_rules import ReluRule, redirected_relu
from vitrine.core.memory_format import channels_last
from vitrine.core.random_numbers import hash_seed
from vitrine.core.registry import Registry

PRECISIONS = Registry("precision", {"float32": torch.float32, "bfloat16": torch.bfloat16})

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
    at_steps: Sequence[int],
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    precision: str | None = None,
    on_gradient: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """The pictures after the requested numbers of steps (0: before the first), [steps, N, C, height, width].

    Gradients are with respect to the variables only; the forward pass ends at the deepest layer needed.

    Args:
        network: in eval mode, by the caller.
        variables: from the parameterization's `initialize` or `invert`; not changed.
        view: gives the network's input at a step: one image for each picture, or as many for each.
        optimizer: makes one that maximises, from a list of parameters.
        precision: of the network's arithmetic, as `plain_gradients` takes it.
        on_gradient: called at each step with the gradient with respect to the pictures.
    """
    variables = variables.detach().clone().requires_grad_(True)
    ascent = optimizer([variables])
    found = {0: parameterization.pictures(variables.detach())}
    for step in range(max(at_steps)):
        pictures = parameterization.pictures(variables)
        views = view(pictures, step)
        views_of = views.detach().unflatten(0, (-1, len(objectives)))
        gradient = redirected_gradients(network, objectives, views_of, precision)
        inputs = [variables, pictures] if on_gradient else [variables]
        variables.grad, *picture_gradient = torch.autograd.grad(views, inputs, gradient.flatten(0, 1))
        if on_gradient:
            on_gradient(*picture_gradient)
        ascent.step()
        if step + 1 in at_steps:
            found[step + 1] = parameterization.pictures(variables.detach())
    return torch.stack([found[step] for step in at_steps])


def redirected_gradients(
    network: nn.Module, objectives: Sequence[Objective], views: Tensor, precision: str | None = None
) -> Tensor:
    """`plain_gradients`, but of an objective without any, because ReLUs block it (a dead unit), those
    through redirected ReLUs (Olah 2017)."""
    gradients = plain_gradients(network, objectives, views, precision)
    dead = (gradients.transpose(0, 1).flatten(1) == 0).all(1).nonzero()[:, 0]
    if len(dead):
        with ReluRule(redirected_relu, unsupported={}):
            asleep = [objectives[i] for i in dead.tolist()]
            revived = plain_gradients(network, asleep, views[:, dead], precision)
        gradients[:, dead] = revived
    return gradients


def plain_gradients(
    network: nn.Module, objectives: Sequence[Objective], views: Tensor, precision: str | None = None
) -> Tensor:
    """The gradients of the objectives' means over views by the views [V, N, C, H, W].

    `precision` is that of the network's arithmetic, "float32" or "bfloat16" (autocast). Without one it is
    bfloat16 on a GPU, and float32 on a CPU: few processors have bfloat16, and others emulate it.

    Raises:
        NoGradient (a ValueError): the network lets none flow back.
    """
    batch, device = ObjectiveBatch(objectives), views.device.type
    is_half = device == "cuda" if precision is None else PRECISIONS[precision] is torch.bfloat16
    leaf = channels_last(network, views.flatten(0, 1)).requires_grad_()
    inputs = leaf.clone().split(len(objectives))  # clones: a network may write into its input
    with torch.autocast(device, torch.bfloat16, enabled=is_half), FastFirstConvolution():
        scores = torch.stack([batch.scores(network, images) for images in inputs])
    return gradient(scores.mean(0).sum(), leaf, batch.read).view_as(views)
