"""What an attack drives up, per image: logits [N, K] and labels [N] in, [N] out."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

FEWEST_CLASSES = {"ce": 2, "margin": 2, "dlr": 3, "dlr-targeted": 4}


def enough_classes(logits: Tensor, loss: str) -> None:
    """Raise ValueError where logits [N, K] have fewer classes than a loss compares."""
    classes, fewest = logits.shape[1], FEWEST_CLASSES[loss]
    if classes < fewest:
        raise ValueError(f"network has {classes} classes, the loss {loss} needs {fewest}")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(label)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max of the other logits less the label's: above 0 where the label is not predicted."""
    own = logits.gather(1, labels[:, None])
    return (best_other(logits, labels) - own)[:, 0]


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, -(z_y - max_{i != y} z_i) / (z_1 - z_3) (Croce & Hein 2020)."""
    enough_classes(logits, "dlr")
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return margin(logits, labels) / (first - third + 1e-12)


def dlr_towards(targets: Tensor) -> Loss:
    """Targeted DLR, -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2) (Croce & Hein 2020), for these targets."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        enough_classes(logits, "dlr-targeted")
        top = logits.topk(4, dim=1).values
        difference = (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]
        return difference / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)

    return loss


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}


def of(name: str, targeted: bool) -> Loss:
    """A loss by name; if targeted, labels are targets and the loss is turned round."""
    loss = LOSSES[name]
    return (lambda logits, labels: -loss(logits, labels)) if targeted else loss


def best_other(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit but the label's, [N, 1]."""
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)
