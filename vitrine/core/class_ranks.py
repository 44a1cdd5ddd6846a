"""The places of images among those of their class."""

import torch
from torch import Tensor


def ranks_in_class(labels: Tensor, order: Tensor) -> Tensor:
    """How many images of its own class come before each image in an order, int64 [N].

    Args:
        labels: int64 [N].
        order: the indices of all images, int64 [N].
    """
    by_class = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(order)
    ranks[by_class] = torch.arange(len(order)) - starts[labels[by_class]]
    return ranks
