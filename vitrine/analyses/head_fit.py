"""The head that a network's features call for: a convex problem, solved to a stationary point.

A network's own head is not stationary, and only at a stationary point do its weights decompose into the
images: from `penalty * W = mean of (target_i - p_i) phi_i` follows `W = sum of alpha_i phi_i` with
`alpha_i = (target_i - p_i) / (penalty * n)`, and so every logit is `sum of alpha_i <phi_i, phi>`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.analyses.head_features import BLOCK, Features
from vitrine.analyses.head_systems import Systems

Targets = Callable[[slice | Tensor, Tensor], Tensor]
"""Rows of an image each and their features [n, D] -> the probabilities [n, K] that a head is to give."""

DUAL_ERROR = 1e-7  # of the weights rebuilt from the duals, as a share of their norm, or of `_LEAST`
KEPT = 2**28  # bytes of probabilities that are kept between products
_LEAST = 1e-3  # of the start's, below which weights and logits are as good as 0: of features that are equal
_WANTED = 1e-8  # of it, where rounding allows
_NEWTON_STEPS = 100
_FLOAT32_STEPS = 30  # of them, within which float32 arrives if it leads there
_NEAR = 1e-2  # error up to which float64 goes on from where float32 leads no further
_DECREASE = 1e-4  # share of the predicted decrease that must come true (Armijo 1966)
_ROUNDING = 1e-10  # share of the value by which a sum over many images may be off


def label_targets(labels: Tensor, classes: int) -> Targets:
    """All probability on the labels [N]."""
    return lambda rows, features: F.one_hot(labels[rows].to(features.device), classes).to(features)


def distilled_targets(weight: Tensor) -> Targets:
    """What a head [K, D] itself says, computed anew for each block."""
    return lambda rows, features: (features @ weight.T).softmax(1)


@dataclass(frozen=True)
class HeadProblem:
    """The cross-entropy to the targets, averaged over the images of all ranks, and a penalty on all weights:
    `mean of CE(target_i, softmax(W phi_i)) + penalty / 2 * |W|^2`, the bias included."""

    features: Features
    targets: Targets
    penalty: float

    def evaluate(self, weight: Tensor) -> tuple[float, Tensor]:
        """The value at weights [K, D], and its gradient."""
        sums = weight.new_zeros(weight.numel() + 1)
        gradient, value = sums[1:].view_as(weight), sums[:1]
        for rows, features in self.features.blocks():
            logits, targets = features @ weight.T, self.targets(rows, features)
            log_total = logits.logsumexp(1, keepdim=True)
            value += (log_total[:, 0] - (targets * logits).sum(1)).sum()
            gradient += ((logits - log_total).exp_() - targets).T @ features
        sums = self.features.total(sums) / self.features.count
        penalty = self.penalty / 2 * weight.square().sum()
        return (sums[0] + penalty).item(), sums[1:].view_as(weight) + self.penalty * weight

    def residuals(self, rows: slice | Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """`target - p` of a block, [n, K]."""
        return self.targets(rows, features) - (features @ weight.T).softmax(1)

    def duals(self, rows: slice | Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """alpha of the images of a block, [n, K]."""
        return 1 / (self.penalty * self.features.count) * self.residuals(rows, features, weight)


class Hessian:
    """The second derivatives of a `HeadProblem` at weights [K, D]; they do not depend on the targets.

    Args:
        dtype: what products are computed in.
    """

    def __init__(self, problem: HeadProblem, weight: Tensor, dtype: torch.dtype = torch.float64):
        self.problem, self.weight = problem, weight.to(dtype)
        self._kept: Tensor | None = None  # [N, K]
        if len(problem.features) * len(weight) * dtype.itemsize <= KEPT:
            kept = self.weight.new_empty(len(problem.features), len(weight))
            for rows, features in problem.features.blocks(dtype):
                kept[rows] = (features @ self.weight.T).softmax(1)
            self._kept = kept

    def to(self, dtype: torch.dtype) -> Hessian:
        """The same in another precision, or in this one."""
        return self if dtype == self.weight.dtype else Hessian(self.problem, self.weight, dtype)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features [n, D] of all images of this rank, in order, and their probabilities [n, K]."""
        for rows, features in self.problem.features.blocks(self.weight.dtype):
            kept = self._kept
            yield features, (features @ self.weight.T).softmax(1) if kept is None else kept[rows]

    def __call__(self, directions: Tensor) -> Tensor:
        """Its product with each of the directions [m, K, D]."""
        count, classes, width = directions.shape
        flat = directions.reshape(-1, width)
        sums = torch.zeros_like(flat)
        together = max(1, BLOCK // (count * classes))
        for features, p in self.blocks():
            for part, own in zip(features.split(together), p[:, None].split(together)):
                change = (part @ flat.T).view(-1, count, classes).mul_(own)
                change.addcmul_(own, change.sum(2, keepdim=True), value=-1)
                sums += change.flatten(1).T @ part
        sums = self.problem.features.total(sums).div_(self.problem.features.count)
        return sums.view_as(directions).add_(directions, alpha=self.problem.penalty)

    def dense(self) -> Tensor:
        """All of it, [K * D, K * D]."""
        classes, width = self.weight.shape
        sums = self.weight.new_zeros(classes, width, classes, width)
        together = max(1, BLOCK // self.weight.numel())
        for features, p in self.blocks():
            for part, own in zip(features.split(together), p.split(together)):
                weighted = own[:, :, None] * part[:, None, :]  # [n, K, D]
                for a in range(classes):
                    sums[a, :, a] += weighted[:, a].T @ part
                    lower = weighted[:, a].T @ weighted[:, : a + 1].flatten(1)
                    sums[a, :, : a + 1] -= lower.view(width, a + 1, width)
        for a in range(classes):
            for b in range(a):
                sums[b, :, a] = sums[a, :, b].T
        sums = self.problem.features.total(sums.view(classes * width, -1)) / self.problem.features.count
        sums.diagonal().add_(self.problem.penalty)
        return sums


def fit_head(problem: HeadProblem, start: Tensor) -> Tensor:
    """The weights [K, D] at which the gradient vanishes, by Newton's method with conjugate gradients.

    Values and gradients are float64; steps are found in float32, as long as they lead on. They do not where
    weights differ by more than it can tell apart, as of small features and a bias: float64 sets out anew.

    Args:
        start: float64 [K, D]; the nearer, the fewer steps.

    Returns:
        weights that their duals rebuild to `DUAL_ERROR`.

    Raises:
        ValueError: no such point is reached: features that are not finite, or a penalty too small for
            float64.
    """
    weight = start - start.mean(0)  # what all classes share changes no probability, and costs a penalty
    value, gradient = problem.evaluate(weight)
    dtype, least = torch.float32, _LEAST * weight.norm()
    for number in range(_NEWTON_STEPS):
        size = weight.norm().clamp_min(1e-30)
        if size < least and _logit_norm(problem, weight) < _LEAST * _logit_norm(problem, start):
            size = least  # the minimum is at 0, where nothing is small beside the weights
        error = gradient.norm() / (problem.penalty * size)
        if not error.isfinite():
            raise ValueError("the head cannot be refitted: its features or weights are not finite")
        if error <= _WANTED:
            return weight
        accuracy = min(0.5, gradient.norm().item() ** 0.5)  # Dembo 1982: superlinear without waste
        accuracy = max(accuracy, _WANTED / 3 / error.item(), 1e-10 if dtype == torch.float64 else 1e-5)
        step = Systems(Hessian(problem, weight, dtype)).solve(-gradient[None], accuracy)[0]
        found = _search(problem, weight, value, gradient, step)
        if error <= DUAL_ERROR and (found is None or found[2].norm() > 0.5 * gradient.norm()):
            return weight
        is_lost = found is None or number >= _FLOAT32_STEPS
        if dtype == torch.float32 and is_lost:
            dtype = torch.float64
            if error > _NEAR:  # downhill, and astray
                weight = start - start.mean(0)
                value, gradient = problem.evaluate(weight)
        elif found is not None:
            weight, value, gradient = found
        else:
            raise ValueError(
                f"the head cannot be refitted beyond an error of {error:.1e}, as rounding is larger than "
                f"what is left to do: raise the penalty, {problem.penalty:g}"
            )
    raise ValueError(f"the head is not refitted after {_NEWTON_STEPS} steps: error {error:.1e}")


def _logit_norm(problem: HeadProblem, weight: Tensor) -> float:
    """Of the logits of all images, less their mean over the classes."""
    centred = weight - weight.mean(0)
    squares = sum(
        ((block @ centred.T).square().sum() for _, block in problem.features.blocks()), torch.zeros(())
    )
    return problem.features.total(squares.double().to(weight.device)).sqrt().item()


def _search(
    problem: HeadProblem, weight: Tensor, value: float, gradient: Tensor, step: Tensor
) -> tuple[Tensor, float, Tensor] | None:
    """Weights along a step that lead on, with value and gradient there; None: there are none."""
    slope, size = (gradient * step).sum().item(), 1.0
    while size >= 1e-10:
        tried = weight + size * step
        tried_value, tried_gradient = problem.evaluate(tried)
        # near the end the value is rounded more coarsely than it falls, and the gradient tells
        is_rounded = tried_value <= value + _ROUNDING * abs(value)
        if tried_value <= value + _DECREASE * size * slope or (
            is_rounded and tried_gradient.norm() < 0.5 * gradient.norm()
        ):
            return tried, tried_value, tried_gradient
        size /= 2
    return None


def answers(features: Features, weight: Tensor) -> Tensor:
    """The class that a head [K, D] says for each image of this rank, int64 [N]."""
    said = torch.empty(len(features), dtype=torch.int64, device=weight.device)
    for rows, block in features.blocks():
        said[rows] = (block @ weight.T).argmax(1)
    return said
