"""A network as an attack sees it: logits, the gradient of a loss by the pixels, and who has fallen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrine.attacks.losses import Loss, margin
from vitrine.core.network_scopes import frozen_weights
from vitrine.core.random_numbers import fold_in

Watch = Callable[[Tensor, Tensor], None]
Transformation = Callable[[Tensor, Tensor], Tensor]  # images and keys to images


@dataclass(frozen=True)
class Views:
    """What EOT sees of an image: `draws` transformations of it at every step."""

    transformation: Transformation
    draws: int
    at_once: int = 256  # images through the network in one pass


class Victim:
    """Answers an attack's questions about a network; within `frozen_weights`.

    Args:
        network: in the mode that it is to be attacked in.
        targeted: labels are targets: an image falls when it is taken for its label.
        bf16: search under bfloat16 autocast; falls are confirmed without.
        check: look at what the network returns. Without, nothing ever waits for the device.
        watch: called with the losses [N] and the gradient [N, C, H, W] of every step.
        views: gradients are of the mean loss over transformed images; verdicts are on the images themselves.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        targeted: bool = False,
        bf16: bool = False,
        check: bool = True,
        watch: Watch | None = None,
        views: Views | None = None,
    ):
        self.network, self.targeted, self.bf16 = network, targeted, bf16
        self.check, self.watch, self.views = check, watch, views
        self.steps = 0
        self.nan: Tensor | None = None  # whether logits were NaN since the first, known at the end

    def logits(self, images: Tensor) -> Tensor:
        """[N, K] in full precision, for verdicts."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self._seen(self.network(images))

    def guess(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, K] in the precision of the search; labels given are checked against K."""
        with torch.no_grad(), self._precision(images):
            logits = self.network(images)
        return self._seen(logits, labels)

    def gradient(
        self, images: Tensor, labels: Tensor, loss: Loss, keys: Tensor, draws: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [N, K], losses [N] and the gradient of each image's loss by its pixels, [N, C, H, W].

        Args:
            keys: int64 [N], what each image's transformations are drawn from.
            draws: passes to take the mean over, for networks that draw random numbers themselves.
        """
        self.steps += 1
        ask = self._gradient if self.views is None else self._expected_gradient
        answers = [ask(images, labels, loss, keys) for _ in range(draws)]
        if draws == 1:
            answer = answers[0]
        else:
            answer = tuple(torch.stack(parts).mean(0) for parts in zip(*answers))
        if self.watch is not None:
            self.watch(answer[1], answer[2])
        return answer

    def fallen(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Which images are taken for another class (or, if targeted, for their label), bool [N].

        `logits` are the search's; where they were of low precision, falls are confirmed in full.
        """
        fallen = (logits.argmax(1) == labels) == self.targeted
        low = self.bf16 or torch.is_autocast_enabled(images.device.type)
        if low and fallen.any():
            rows = fallen.nonzero()[:, 0]
            sure = self.logits(images[rows])
            fallen[rows] = (sure.argmax(1) == labels[rows]) == self.targeted
        return fallen

    def margin(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How far beyond the boundary an image is, in logits, [N]; above 0 where it has fallen."""
        value = margin(logits, labels)
        return -value if self.targeted else value

    def conclude(self) -> None:
        """Raise ValueError if the network returned NaN at any time."""
        if self.nan is not None and self.nan:
            raise ValueError("network returned NaN for allowed images, expected finite logits")

    def _gradient(
        self, images: Tensor, labels: Tensor, loss: Loss, keys: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            pixels = images.detach().requires_grad_()
            with self._precision(images):
                logits = self.network(pixels)
            logits = self._seen(logits, labels)
            losses = loss(logits, labels)
            if not losses.requires_grad:
                raise ValueError(
                    "network: its logits have no gradient by the images, expected differentiable"
                )
            # of the sum: an image's gradient does not depend on how many others there are
            (gradient,) = torch.autograd.grad(losses.sum(), pixels)
        return logits.detach(), losses.detach(), gradient

    def _expected_gradient(
        self, images: Tensor, labels: Tensor, loss: Loss, keys: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same over this step's transformations (Athalye 2018); the logits: log of the mean chances."""
        views, keys = self.views, fold_in(keys, self.steps)
        chances = losses = gradient = 0
        at_once = max(1, views.at_once // len(images))
        for first in range(0, views.draws, at_once):
            draws = range(first, min(first + at_once, views.draws))
            with torch.enable_grad():
                pixels = images.detach().requires_grad_()
                own = torch.cat([fold_in(keys, draw) for draw in draws])
                seen = views.transformation(pixels.repeat(len(draws), 1, 1, 1), own)
                with self._precision(images):
                    logits = self.network(seen)
                again = labels.repeat(len(draws), *[1] * (labels.ndim - 1))
                logits = self._seen(logits, again)
                value = loss(logits, again).view(len(draws), -1).sum(0) / views.draws
                (part,) = torch.autograd.grad(value.sum(), pixels)
            mean = logits.detach().softmax(1).view(len(draws), len(images), -1).sum(0) / views.draws
            chances, losses, gradient = chances + mean, losses + value.detach(), gradient + part
        return chances.log(), losses, gradient

    def _precision(self, images: Tensor) -> AbstractContextManager:
        return torch.autocast(images.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def _seen(self, logits: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if not self.check:
            return logits
        if self.nan is not None:
            self.nan |= logits.detach().isnan().any()
            return logits
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError(
                f"network returned {list(logits.shape)}, expected logits [N, at least 2 classes]"
            )
        if labels is not None:
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= logits.shape[1]:
                raise ValueError(
                    f"labels lie between {low} and {high}, expected 0 to {logits.shape[1] - 1}: "
                    f"the network has {logits.shape[1]} classes"
                )
            self.nan = logits.detach().isnan().any()
            self.conclude()
        return logits


def is_adversarial(network: nn.Module, images: Tensor, labels: Tensor, *, targeted: bool = False) -> Tensor:
    """Which images the network takes for another class than their label, bool [N], in eval mode and in full
    precision; if targeted, which it takes for their label."""
    if not len(images):
        return torch.zeros_like(labels, dtype=torch.bool)
    with frozen_weights(network, images.device), torch.autocast(images.device.type, enabled=False):
        victim = Victim(network, targeted=targeted)
        return victim.fallen(images, victim.guess(images, labels), labels)
