"""The passes that maps of attribution need, and what they take when they are written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.peak_memory import Peak
from vitrine.analyses.base import Probes
from vitrine.analyses.probe_saliency import Saliency
from vitrine.analyses.target_scores import true_and_predicted


@dataclass(frozen=True)
class Passes:
    """Seconds an image of a forward and of a backward pass to the pixels; bytes of both of a batch."""

    images: int
    forward: float
    backward: float
    memory: int


def passes_by_hand(network: nn.Module, images: Tensor, rounds: int = 2) -> Passes:
    """The median over some rounds, after another one, in batches of all of these images."""
    forward, backward, memory = [], [], []
    for _ in range(rounds + 1):
        pixels = images.clone().requires_grad_()
        with Peak(images.device) as both:
            with Peak(images.device) as first:
                score = network(pixels).amax(1).sum()
            torch.autograd.grad(score, pixels)
        forward.append(first.seconds / len(images))
        backward.append((both.seconds - first.seconds) / len(images))
        memory.append(max(first.memory, both.memory))
    return Passes(
        len(images),
        *(torch.tensor(of[1:]).median().item() for of in (forward, backward)),
        int(torch.tensor(memory[1:]).median()),
    )


def passes_needed(saliency: Saliency, images: int, maps: int, size: Sequence[int]) -> tuple[int, int]:
    """Images of forward passes, and of backward passes to the pixels, that a row of all default maps needs.

    An image has one forward pass for gradient, guided backprop and deconvnet, and one for each noisy copy,
    point of a path and occluding square; each of its maps a backward pass; guided Grad-CAM is a product.
    """
    patch = max(1, round(saliency.patch * min(size)))
    squares = 1
    for side in size:
        squares *= len({*range(0, side - patch + 1, max(1, patch // 2)), side - patch})
    forward = images * (1 + saliency.copies + saliency.steps + squares)
    return forward, maps * (3 + saliency.copies + saliency.steps)


def count_maps(network: nn.Module, probes: Probes, count: int) -> int:
    """Of the first probes: a map of the true class each, and of the predicted one where it is another."""
    rows, _, _ = true_and_predicted(network, probes.images[:count], probes.labels[:count])
    return len(rows)
