"""Small networks trained on chosen images of a small set of signs, and what they make of other images."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import make_key
from vitrine.datamodules.augment import Augment, augment
from vitrine.datamodules.signs import CLASSES, MEAN, STD, SignImages
from vitrine.modules import load_network

SIDE, WIDTHS = 32, (16, 32, 64, 64)
BATCH, EPOCHS, RATE = 64, 30, 0.1
CHECKPOINTS = (6, 12, 18, 24, 30)  # after so many epochs


@dataclass
class Trained:
    """A network after its last epoch, in eval mode, and the weights and learning rates of its checkpoints."""

    network: nn.Module
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def signs(size: int, seed: int) -> SignImages:
    """Signs, as many of each class, held in memory."""
    images = SignImages(seed, size, SIDE)
    images.keep = True
    return images


def as_pixels(split: ImageDataset, indices: Tensor | None = None) -> Tensor:
    """The images, float [N, 3, SIDE, SIDE] in [0, 1]."""
    return split.batch(torch.arange(len(split)) if indices is None else indices)[0].float() / 255


def train(split: ImageDataset, chosen: Tensor, seed: int, keep: bool = False) -> Trained:
    """A convnet trained on the chosen images, a function of them and the seed.

    Args:
        chosen: indices, [n].
        keep: the checkpoints.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_key(seed))
        network = load_network(
            "convnet", classes=len(CLASSES), mean=MEAN, std=STD, options={"widths": WIDTHS}
        )
        order = torch.Generator().manual_seed(make_key(seed, 1))
        optimizer = torch.optim.SGD(
            network.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        batches = len(chosen) // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * batches + 1)
        trained = Trained(network.train())
        for epoch in range(1, EPOCHS + 1):
            shuffled = chosen[torch.randperm(len(chosen), generator=order)]
            for indices in shuffled[: batches * BATCH].split(BATCH):
                images, labels = split.batch(indices)
                images = augment(
                    images, indices, torch.tensor(make_key(seed, 2, epoch)), Augment(crop=2), MEAN
                )
                optimizer.zero_grad()
                F.cross_entropy(network(images), labels).backward()
                optimizer.step()
                schedule.step()
            if keep and epoch in CHECKPOINTS:
                trained.weights.append({k: v.detach().clone() for k, v in network.state_dict().items()})
                trained.rates.append(schedule.get_last_lr()[0])
    network.eval()
    return trained


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """`log p / (1 - p)` of the labels, [N]: what a linear model predicts better than p (Park 2023)."""
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    return logits.gather(1, labels[:, None])[:, 0] - others


def stratified_half(labels: Tensor, seed: int) -> Tensor:
    """Indices of a random half of each class, ascending."""
    draw = torch.Generator().manual_seed(make_key(seed, 3))
    parts = []
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        parts.append(own[torch.randperm(len(own), generator=draw)[: len(own) // 2]])
    return torch.cat(parts).sort().values
