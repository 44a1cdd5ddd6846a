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
    first, second = compare({"forward": forward, "both": both}, rounds, warmup=0, device=images.device)
    return Passes(
        len(images),
        first.median / len(images),
        (second.median - first.median) / len(images),
        peak.memory,
    )


@dataclass(frozen=True)
class Needed:
    """Images of forward passes without and with gradients, and of backward passes to the pixels."""

    plain: int
    graphs: int
    backward: int

    def run(self, network: nn.Module, images: Tensor) -> None:
        """These passes, in batches of as many as `images` are."""
        several, rest = divmod(self.backward - self.graphs, len(images))  # of further maps of an image
        sizes = _split(self.graphs - rest, len(images))
        repeats = [1 + several] + [1] * (len(sizes) - 1)
        if rest:
            sizes, repeats = [*sizes, rest], [*repeats, 2]
        for size, repeat in zip(sizes, repeats):
            pixels = images[:size].clone().requires_grad_()
            score = network(pixels).amax(1).sum()
            for left in reversed(range(repeat)):
                torch.autograd.grad(score, pixels, retain_graph=left > 0)
        with torch.no_grad():
            for size in _split(self.plain, len(images)):
                network(images[:size])


def _split(count: int, size: int) -> list[int]:
    return [min(size, count - start) for start in range(0, count, size)]


def passes_needed(
    network: nn.Module, saliency: Saliency, images: int, maps: int, size: Sequence[int]
) -> Needed:
    """The passes that a row of all default maps needs, with all points that the paths may have.

    An image has one forward pass for gradient, guided backprop and deconvnet, and one for each noisy copy,
    point of a path and occluding square; each of its maps a backward pass; guided Grad-CAM is a product. A
    network without ReLUs has neither guided backprop nor deconvnet.
    """
    rules = 3 if any(isinstance(module, nn.ReLU | nn.ReLU6) for module in network.modules()) else 1
    patch = max(1, round(saliency.patch * min(size)))
    squares = 1
    for side in size:
        squares *= len({*range(0, side - patch + 1, max(1, patch // 2)), side - patch})
    graphs = images * (1 + saliency.copies + saliency.steps)
    return Needed(images * squares, graphs, maps * (rules + saliency.copies + saliency.steps))


def count_maps(network: nn.Module, probes: Probes, count: int) -> int:
    """Of the first probes: a map of the true class each, and of the predicted one where it is another."""
    rows, _, _ = true_and_predicted(network, probes.images[:count], probes.labels[:count])
    return len(rows)
