"""The passes that maps of attribution need, and what they take when they are written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.peak_memory import Peak
from benchmarks.ratio import compare
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
    """The median over some rounds, of all of these images at once: a forward pass without gradients, and by
    what one with a backward pass takes longer; memory in a pass before, which takes it anew and is slower."""

    def both() -> None:
        pixels = images.clone().requires_grad_()
        torch.autograd.grad(network(pixels).amax(1).sum(), pixels)

    def forward() -> None:
        with torch.no_grad():
            network(images)

    with Peak(images.device) as peak:
        both()
    first, second = compare({"forward": forward, "both": both}, rounds, device=images.device)
    return Passes(
        len(images),
        first.median / len(images),
        (second.median - first.median) / len(images),
        peak.memory,
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
