"""Integrated gradients (Sundararajan 2017): at points that are the same for all, or where a path needs them.

On the straight path from a baseline to the image the score rises by the integral of its slope, so that what a
rule of quadrature misses in each part of the path is known: the score's rise over it, less the rule's sum.
Where a tolerance is given, the path begins as two panels of Simpson's rule; those that miss most are halved,
their points kept, until all together miss little or points run out. Few points then make the sum complete,
also of a network of ReLUs, whose gradients jump; but the map itself is nearer to that of many points by
Gauss's rule with all points (`benchmarks/completeness.py`), which is therefore the usual one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from vitrine.analyses.gradients import gradient
from vitrine.analyses.target_scores import (
    class_scores,
    copy_batches,
    expect,
    expect_images,
    expect_indices,
    gradients_of_copies,
)
from vitrine.core.network_scopes import in_eager_eval_mode

FEWEST = 5  # points of two panels
SIMPSON = (1 / 6, 2 / 3, 1 / 6)  # weights of a panel's start, middle and end


@in_eager_eval_mode
def integrated_gradients(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    of: str = "logit",
    *,
    baseline: float | Tensor = 0.5,
    steps: int = 50,
    tolerance: float | None = None,
    batch_size: int = 64,
) -> Tensor:
    """The image minus the baseline, times the mean gradient on the straight path between them (Sundararajan
    2017); it sums to score(image) - score(baseline). [N, C, H, W]; with targets [T, N], several of each
    image, [T, N, C, H, W].

    Args:
        network, images, targets, of: as in `saliency`.
        baseline: a pixel value (mid-grey unless given; 0 is black), or images that broadcast to `images`.
        steps: points of the path: those of Gauss-Legendre quadrature; with a tolerance at most so many.
        tolerance: a path gets more points while its panels miss more than this share of the score's rise.
        batch_size: images a pass (without a tolerance, at least one copy of the batch).

    Raises:
        ValueError: an argument is not as above.
    """
    expect_images(images)
    fewest = 1 if tolerance is None else FEWEST
    expect(steps >= fewest, "steps", steps, f"at least {fewest} point{'s' * (fewest > 1)}")
    expect(tolerance is None or tolerance >= 0, "tolerance", tolerance, "at least 0, or None")
    way, of_each = images - baseline, targets if targets.ndim == 2 else targets[None]
    for own in of_each:
        expect_indices(own, "targets", len(images))
    if tolerance is None:
        found = _by_gauss(network, images, way, of_each, of, steps, batch_size)
    else:
        few = max(1, batch_size // 5)  # images at once, as the gradients at all their points are kept
        parts = zip(images.split(few), way.split(few), of_each.split(few, 1))
        found = torch.cat([_by_panels(network, *part, of, steps, tolerance, batch_size) for part in parts], 1)
    return way * (found if targets.ndim == 2 else found[0])


def _by_gauss(
    network: nn.Module, images: Tensor, way: Tensor, targets: Tensor, of: str, steps: int, batch_size: int
) -> Tensor:
    """The mean gradients [T, N, C, H, W] on the ways to images [N, C, H, W], of targets [T, N]."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    share = torch.from_numpy((nodes + 1) / 2).to(images)[:, None, None, None, None]
    weight = torch.from_numpy(weights / 2).to(images)
    total = images.new_zeros(*targets.shape[:-1], *images.shape)
    for points in copy_batches(steps, len(images), batch_size):
        between = images - (1 - share[points]) * way
        for point, found in zip(points, gradients_of_copies(network, between, targets, of)):
            total += weight[point] * found  # one by one: the sum does not depend on the batch size
    return total


def _by_panels(
    network: nn.Module,
    images: Tensor,
    way: Tensor,
    targets: Tensor,
    of: str,
    steps: int,
    tolerance: float,
    batch_size: int,
) -> Tensor:
    """The mean gradients [T, N, C, H, W] on the ways to few images [N, C, H, W], of targets [T, N]."""
    paths = [[_Path() for _ in own] for own in targets]
    points = [(i, at, range(len(targets))) for i in range(len(images)) for at in (0.0, 0.25, 0.5, 0.75, 1.0)]
    while points:
        for start in range(0, len(points), batch_size):
            _evaluate(network, images, way, targets, of, paths, points[start : start + batch_size])
        points = []
        for i in range(len(images)):
            new = [own[i].halve_panels(steps, tolerance) for own in paths]
            for at in sorted(set().union(*new)):
                points.append((i, at, [t for t, wanted in enumerate(new) if at in wanted]))
    return torch.stack([torch.stack([path.mean_gradient() for path in own]) for own in paths])


def _evaluate(
    network: nn.Module,
    images: Tensor,
    way: Tensor,
    targets: Tensor,
    of: str,
    paths: list[list[_Path]],
    points: Sequence[tuple[int, float, Sequence[int]]],
) -> None:
    """Add points of images' ways, each of some of the classes, to their paths: one forward pass."""
    rows = torch.tensor([i for i, _, _ in points], device=images.device)
    left = torch.tensor([1 - at for _, at, _ in points]).to(images)[:, None, None, None]
    pixels = (images[rows] - left * way[rows]).requires_grad_()
    logits = network(pixels.clone())
    wanted = [t for t in range(len(targets)) if any(t in classes for _, _, classes in points)]
    for t in wanted:
        scores = class_scores(logits, targets[t][rows], of)
        gradients = gradient(scores.sum(), pixels, retain_graph=t != wanted[-1])
        slopes = (gradients * way[rows]).flatten(1).double().sum(1).tolist()
        for (i, at, classes), score, slope, found in zip(points, scores.tolist(), slopes, gradients):
            if t in classes:
                path = paths[t][i]
                path.scores[at], path.slopes[at], path.gradients[at] = score, slope, found


@dataclass
class _Path:
    """Of one class of an image: the panels of its path, and what is known at their points, by share of the
    way."""

    panels: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.5), (0.5, 1.0)])
    scores: dict[float, float] = field(default_factory=dict)
    slopes: dict[float, float] = field(default_factory=dict)
    gradients: dict[float, Tensor] = field(default_factory=dict)

    def halve_panels(self, steps: int, tolerance: float) -> list[float]:
        """Halve the panels that miss more than their share of what all may, the worst first, as far as there
        are points left; the points that this adds."""
        missed = {panel: self._missed(panel) for panel in self.panels}
        allowed = tolerance * abs(self.scores[1.0] - self.scores[0.0])
        if sum(missed.values()) <= allowed:
            return []
        off = [panel for panel in missed if missed[panel] > allowed / len(missed)]
        added = []
        for panel in sorted(off, key=lambda p: (-missed[p], p))[: (steps - len(self.scores)) // 2]:
            low, middle, high = _points(panel)
            self.panels.remove(panel)
            self.panels += [(low, middle), (middle, high)]
            added += [(low + middle) / 2, (middle + high) / 2]
        return added

    def mean_gradient(self) -> Tensor:
        weights = dict.fromkeys(sorted(self.gradients), 0.0)
        for panel in self.panels:
            for at, weight in zip(_points(panel), SIMPSON):
                weights[at] += (panel[1] - panel[0]) * weight
        return sum(weight * self.gradients[at] for at, weight in weights.items())

    def _missed(self, panel: tuple[float, float]) -> float:
        """By how much the score's rise over a panel differs from what the rule says."""
        low, high = panel
        slope = sum(weight * self.slopes[at] for at, weight in zip(_points(panel), SIMPSON))
        return abs(self.scores[high] - self.scores[low] - (high - low) * slope)


def _points(panel: tuple[float, float]) -> tuple[float, float, float]:
    low, high = panel
    return low, (low + high) / 2, high
