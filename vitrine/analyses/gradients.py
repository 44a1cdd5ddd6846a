"""Gradients by an image or a layer, and what is said where a network lets none flow back."""

from __future__ import annotations

import torch
from torch import Tensor


class NoGradient(ValueError):
    """No gradient flows back through the network: under torch.no_grad(), or from a detached tensor."""

    def __init__(self, of: str, by: str = "the image"):
        super().__init__(
            f"the network computes {of} under torch.no_grad(), or from a detached tensor or a constant, so "
            f"that no gradient flows back to {by}"
        )


def gradient(score: Tensor, by: Tensor, of: str = "its logits", retain_graph: bool = False) -> Tensor:
    """The gradient of a score by images that it was computed from.

    Args:
        of: what the score is of, in words.

    Raises:
        NoGradient: nothing flows back.
    """
    if not score.requires_grad:  # autograd would speak of an element 0 that has no grad_fn
        raise NoGradient(of)
    (found,) = torch.autograd.grad(score, by, retain_graph=retain_graph, allow_unused=True)
    if found is None:
        raise NoGradient(of)
    return found
