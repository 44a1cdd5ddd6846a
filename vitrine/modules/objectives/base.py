"""What an objective is: how one batch becomes a loss.

An objective is a dataclass, its fields its settings, registered in `modules.OBJECTIVES`. Only the call is
needed. The rest of the protocol is optional, and Classifier uses what is there, so that adversarial training
in all its kinds needs no Classifier of its own:

    replays: int
        optimizer steps on each batch (free adversarial training); 1 where absent
    after_backward(network)
        between the backward pass and the optimizer step (AWP puts the weights back)
    validate(network, images, labels) -> dict[str, Tensor]
        more to know of a validation batch, each entry [N], logged as means under "val/<name>"; gradients are
        enabled and the network is in eval mode
    state_dict(), load_state_dict(state)
        what must survive a resume, as tensors and plain containers
    norm, eps
        the budget that it trains against, which validation then measures (callbacks.robust_validation)

Random numbers come from torch's global generators: their states are part of a resumable checkpoint.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Objective(Protocol):
    """A training objective."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss (a scalar to minimise) and the logits [N, K] that training accuracy is read from.

        Args:
            network: in train mode; takes [0, 1] pixels.
            images: float in [0, 1], [N, C, H, W].
            labels: int64, [N].
        """
        ...
