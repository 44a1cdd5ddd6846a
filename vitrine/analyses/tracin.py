"""How much steps on a training image moved a probe's loss: TracInCP of the last layer (Pruthi 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.analyses.head_features import Features
from vitrine.analyses.head_fit import Targets


def gradient_products(
    features: Features, targets: Targets, weight: Tensor, probes: Tensor, errors: Tensor, cosine: bool
) -> Tensor:
    """The products of the gradients of training images and of probes with respect to the last layer.

    The gradient of an image is `-(target - p) phi'`, so that a product is `<e_i, e> <phi_i, phi>`. An image
    with a positive one speaks for the probe's class: a step on it lowers the probe's loss.

    Args:
        weight: the network's own head, [K, D].
        probes: the probes' features, float64 [m, D].
        errors: `target - p` of each, [m, K].
        cosine: divide by both norms: else images with large gradients come first for every probe.

    Returns:
        [m, N] of the images of this rank, float64; a cosine with a gradient that is 0 is 0.
    """
    products = probes.new_empty(len(probes), len(features))
    for rows, block in features.blocks():
        residuals = targets(rows, block) - (block @ weight.T).softmax(1)
        product = (errors @ residuals.T) * (probes @ block.T)
        if cosine:
            norms = residuals.norm(dim=1) * block.norm(dim=1)
            product /= (errors.norm(dim=1) * probes.norm(dim=1))[:, None].clamp_min(1e-300)
            product /= norms.clamp_min(1e-300)
        products[:, rows] = product
    return products


def cosines(features: Features, probes: Tensor) -> Tensor:
    """The cosine of the features of each probe [m, D] and of each training image of this rank, [m, N]; the 1
    that stands for the bias does not count."""
    width = features.width - features.bias
    near = probes.new_empty(len(probes), len(features))
    own = torch.nn.functional.normalize(probes[:, :width], dim=1)
    for rows, block in features.blocks():
        near[:, rows] = own @ torch.nn.functional.normalize(block[:, :width], dim=1).T
    return near


@dataclass(frozen=True)
class Sums:
    """Products of gradients, each times the learning rate of its checkpoint, summed over checkpoints."""

    values: Tensor  # float32 [m, N], of probes and the training images of all ranks
    steps: list[int]  # of the checkpoints
    rates: list[float]  # their learning rates
    of: Tensor  # int64: what the sums are of; those of anything else are not gone on with

    def state(self) -> dict[str, Tensor]:
        """As tensors by name, for `added`."""
        rates = torch.tensor(self.rates, dtype=torch.float64)
        return {"tracin": self.values, "steps": torch.tensor(self.steps), "rates": rates, "of": self.of}


def added(products: Tensor, rate: float, step: int, of: Tensor, before: Mapping[str, Tensor]) -> Sums:
    """The sums up to this checkpoint.

    Args:
        products: [m, N], of this checkpoint.
        before: `Sums.state` of the checkpoint before; empty, or of something else or of later steps, and the
            sums begin here.
    """
    current = (rate * products).float()
    steps = before["steps"].tolist() if "steps" in before else []
    if not steps or steps[-1] >= step or not torch.equal(before["of"], of):
        return Sums(current, [step], [rate], of)
    return Sums(before["tracin"] + current, [*steps, step], [*before["rates"].tolist(), rate], of)
