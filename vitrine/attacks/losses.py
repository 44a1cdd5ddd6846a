"""The losses that attacks maximise, per image: logits [N, K] and labels [N] to [N]."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

MIN_CLASSES = {"ce": 2, "margin": 2, "dlr": 3, "dlr-targeted": 4}


def check_class_count(logits: Tensor, loss: str) -> None:
    """Raise ValueError where logits [N, K] have fewer classes than a loss compares."""
    classes, least = logits.shape[1], MIN_CLASSES[loss]
    if classes < least:
        raise ValueError(f"network has {classes} classes, the loss {loss} needs {least}")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(label)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit less the label's: above 0 where the label is not predicted."""
    return largest_other(logits, labels) - logits.gather(1, labels[:, None])[:, 0]


def largest_other(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit but the label's, [N]."""
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, -(z_y - max_{i != y} z_i) / (z_1 - z_3) (Croce & Hein 2020)."""
    check_class_count(logits, "dlr")
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return margin(logits, labels) / (first - third + 1e-12)


def logit_difference(targets: Tensor) -> Loss:
    """z_target - z_label for these targets [N]: 0 on the boundary between the two.

    Of several views of the N images, logits are [views N, K], one view of all images after the other.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        own = targets.repeat(len(logits) // len(targets))
        return (logits.gather(1, own[:, None]) - logits.gather(1, labels[:, None]))[:, 0]

    return loss


def targeted_dlr(targets: Tensor) -> Loss:
    """Targeted DLR, -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2) (Croce & Hein 2020), for these targets [N]."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        check_class_count(logits, "dlr-targeted")
        top = logits.topk(4, dim=1).values
        difference = logit_difference(targets)(logits, labels)
        return difference / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)

    return loss


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}


def get_loss(name: str, targeted: bool) -> Loss:
    """A loss by name; if targeted, labels are targets and the loss is negated."""
    loss = LOSSES[name]
    return (lambda logits, labels: -loss(logits, labels)) if targeted else loss
