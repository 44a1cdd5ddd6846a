"""A logit as a sum over training images: representer points (Yeh 2018), exact at a refitted head."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.analyses.head_fit import HeadProblem

TOP = 0.01  # of the images, whose share of all duals is told


@dataclass(frozen=True)
class Representers:
    """What the training images of this rank add to logits of probes, by their duals alpha."""

    values: Tensor  # [m, N], `alpha_i <phi_i, phi>` of one class of each probe; the sum over all is its logit
    sizes: Tensor  # [N], half the sum of |alpha_i| over classes: `total variation(target, p) / (penalty n)`


def representers(problem: HeadProblem, weight: Tensor, probes: Tensor, classes: Tensor) -> Representers:
    """The parts of the logits of `classes` (int64 [m]) of probes with features [m, D] at the refitted weights
    [K, D]; duals are computed anew for each block and never kept."""
    values = probes.new_empty(len(probes), len(problem.features))
    sizes = probes.new_empty(len(problem.features))
    for rows, features in problem.features.blocks():
        duals = problem.duals(rows, features, weight)
        values[:, rows] = duals[:, classes].T * (probes @ features.T)
        sizes[rows] = duals.abs().sum(1) / 2
    return Representers(values, sizes)


def share_of_top(sizes: Tensor) -> float:
    """The share of all duals that the largest hundredth of the images [N] holds."""
    top = sizes.topk(math.ceil(TOP * len(sizes))).values
    return (top.sum() / sizes.sum().clamp_min(1e-300)).item()


def evenness(sizes: Tensor) -> float:
    """The entropy of the duals' sizes [N], as a share of the largest: 1 where all images count alike."""
    if len(sizes) < 2:
        return 1.0
    shares = sizes / sizes.sum().clamp_min(1e-300)
    return (-torch.xlogy(shares, shares).sum() / math.log(len(sizes))).item()
