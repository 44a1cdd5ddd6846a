"""What an objective is: how one batch becomes a loss."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Objective:
    """A training objective: a dataclass whose fields are its settings, registered in `modules.OBJECTIVES`.

    A subclass has to define `__call__`. The rest is for adversarial training in its variants, so that none of
    them needs a Classifier of its own. Random numbers come from torch's global generators: their states are
    part of a resumable checkpoint.
    """

    replays: int = 1  # optimizer steps on each batch (free adversarial training)
    norm: str = "linf"  # of the budget that it trains against, and that validation measures
    eps: float | None = None  # None where there is no adversary
    soft_targets: bool = False  # labels may be probabilities of the classes, as mixup and cutmix make them

    def prepare(self, train: Any, classes: Sequence[str]) -> None:
        """Called once before training, with the training split and the names of its classes."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss (a scalar to minimise) and the logits [N, K] that training accuracy is computed from.

        Args:
            network: in train mode; takes [0, 1] pixels.
            images: float in [0, 1], [N, C, H, W].
            labels: int64, [N]; with `soft_targets` perhaps probabilities of the classes, float32, [N, K].
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def after_backward(self, network: nn.Module) -> None:
        """Called between the backward pass and the optimizer step."""

    def validate(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Further metrics of a validation batch, each [N], logged as means under "val/<name>".

        Gradients are enabled and the network is in eval mode.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume, as tensors and plain containers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
