"""The network as an attack queries it: logits, gradients of a loss by the pixels, and who is adversarial."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.attacks.losses import Loss, margin
from vitrine.core.input_copies import copied_input
from vitrine.core.network_output import as_logits
from vitrine.core.network_scopes import frozen_weights
from vitrine.core.random_numbers import fold_in

StepCallback = Callable[[Tensor, Tensor], None]  # losses [N] and gradient [N, C, H, W]
Transform = Callable[[Tensor, Tensor], Tensor]  # images [N, C, H, W] and keys [N] to images
Gradient = tuple[Tensor, Tensor, Tensor]  # logits [N, K], losses [N] and gradient [N, C, H, W]
_ROUNDING = 2**-6  # of the largest logit: what bfloat16 may move a margin by (2^-7.4 measured)


@dataclass(frozen=True)
class Views:
    """Random views of each image, over which EOT takes the expectation at every step."""

    transform: Transform
    count: int
    batch_size: int = 256  # views through the network in one pass


@dataclass(eq=False)
class Model:
    """A network within `frozen_weights`, and an attack's goal."""

    network: nn.Module  # in the mode that it is to be attacked in
    targeted: bool = False  # labels are targets: an image is adversarial when it is classified as its label
    bf16: bool = False  # search under bfloat16 autocast; successes are confirmed without
    check: bool = True  # validate what the network returns; without, nothing ever waits for the device
    on_step: StepCallback | None = None  # called at every step
    views: Views | None = None  # gradients are of the mean loss over these; success is the images' own
    steps: int = 0  # so far
    double: nn.Module | None = None  # searched in place of the network, which confirms successes
    nan: Tensor | None = None  # whether any logits since the first were NaN; read once, at the end

    def logits(
        self, images: Tensor, labels: Tensor | None = None, ask: Callable[[Tensor], Any] | None = None
    ) -> Tensor:
        """[N, K] in the precision of the search; labels given are checked against K.

        Args:
            ask: what is called in place of the network that is searched.
        """
        with torch.no_grad(), self._autocast(images):
            output = (ask or self._searched)(images)
        return self._validate(output, labels)

    def full_precision_logits(self, images: Tensor) -> Tensor:
        """[N, K], to judge success by."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self._validate(self.network(images))

    def gradient(
        self, images: Tensor, labels: Tensor, loss: Loss, keys: Tensor, samples: int = 1
    ) -> Gradient:
        """The gradient of each image's loss by its pixels, with logits and losses.

        Args:
            keys: int64 [N], for the random numbers of each image's views.
            samples: passes to take the mean over, for networks that draw random numbers themselves.
        """
        self.steps += 1
        once = self._gradient if self.views is None else self._expected_gradient
        results = [once(images, labels, loss, keys) for _ in range(samples)]
        result = results[0]
        if samples > 1:
            result = tuple(torch.stack(parts).mean(0) for parts in zip(*results))
        if self.on_step is not None:
            self.on_step(result[1], result[2])
        return result

    def is_adversarial(
        self, images: Tensor, logits: Tensor, labels: Tensor, among: Tensor | bool = True
    ) -> Tensor:
        """Which images are misclassified (or, if targeted, classified as their label), bool [N].

        `logits` are the search's; where they were of low precision or a double's, successes are confirmed by
        the network in full precision. Only those `among` which one is looked for, bool [N], are.
        """
        success = self.may_be_adversarial(logits, labels) & among
        if success.any():
            rows = success.nonzero()[:, 0]
            success[rows] = self.confirms(images[rows], labels[rows])
        return success

    def may_be_adversarial(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Which images the network is to be asked about, bool [N]: after a search of low precision, those so
        near the boundary that rounding may hide their success as well."""
        seems = self.seems_adversarial(logits, labels)
        if not self._is_low(logits):
            return seems
        return seems | (self.margin(logits, labels) > -_ROUNDING * logits.abs().amax(1))

    def seems_adversarial(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Which images are adversarial by the search's logits, bool [N]: it goes on from there."""
        return (logits.argmax(1) == labels) == self.targeted

    def confirms(self, images: Tensor, labels: Tensor) -> Tensor:
        """Which of the images that seem adversarial are, bool [N]: all, but for a search of low precision."""
        if self.double is not None or self._is_low(images):
            return self.seems_adversarial(self.full_precision_logits(images), labels)
        return torch.ones_like(labels, dtype=torch.bool)

    def _is_low(self, tensor: Tensor) -> bool:
        """Whether the search is of low precision, on the device of a tensor."""
        return self.bf16 or torch.is_autocast_enabled(tensor.device.type)

    def margin(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The margin beyond the decision boundary, in logits, [N]; above 0 where an image is adversarial."""
        value = margin(logits, labels)
        return -value if self.targeted else value

    def raise_if_nan(self) -> None:
        """Raise ValueError if the network has returned NaN at any time."""
        if self.nan is not None and self.nan:
            raise ValueError("network returned NaN for allowed images, expected finite logits")

    @property
    def _searched(self) -> nn.Module:
        return self.network if self.double is None else self.double

    def _gradient(self, images: Tensor, labels: Tensor, loss: Loss, keys: Tensor) -> Gradient:
        with torch.enable_grad():
            pixels = images.detach().requires_grad_()
            with self._autocast(images):
                output = self._searched(pixels)
            logits = self._validate(output, labels)
            losses = loss(logits, labels)
            if not losses.requires_grad:
                raise ValueError(
                    "network: its logits have no gradient by the images, expected differentiable"
                )
            # of the sum: an image's gradient does not depend on how many others there are
            (gradient,) = torch.autograd.grad(losses.sum(), pixels)
        return logits.detach(), losses.detach(), gradient.contiguous()  # a double's may be channels last

    def _expected_gradient(self, images: Tensor, labels: Tensor, loss: Loss, keys: Tensor) -> Gradient:
        """The same in expectation over views (Athalye 2018); as logits the log of the mean probabilities."""
        views, keys = self.views, fold_in(keys, self.steps)
        probabilities = losses = gradient = 0
        per_pass = max(1, views.batch_size // len(images))
        for first in range(0, views.count, per_pass):
            numbers = range(first, min(first + per_pass, views.count))
            with torch.enable_grad():
                pixels = images.detach().requires_grad_()
                view_keys = torch.cat([fold_in(keys, number) for number in numbers])
                batch = views.transform(pixels.repeat(len(numbers), 1, 1, 1), view_keys)
                with self._autocast(images):
                    output = self._searched(batch)
                repeated = labels.repeat(len(numbers), *[1] * (labels.ndim - 1))
                logits = self._validate(output, repeated)
                value = loss(logits, repeated).view(len(numbers), -1).sum(0) / views.count
                (part,) = torch.autograd.grad(value.sum(), pixels)
            mean = logits.detach().softmax(1).view(len(numbers), len(images), -1).sum(0) / views.count
            probabilities, losses, gradient = probabilities + mean, losses + value.detach(), gradient + part
        return probabilities.log(), losses, gradient

    def _autocast(self, images: Tensor) -> AbstractContextManager:
        return torch.autocast(images.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def _validate(self, output: Any, labels: Tensor | None = None) -> Tensor:
        """The logits in at least float32; NaN after the first batch is only noted (`raise_if_nan`)."""
        logits = as_logits(output)
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
            self.raise_if_nan()
        return logits


def is_adversarial(network: nn.Module, images: Tensor, labels: Tensor, *, targeted: bool = False) -> Tensor:
    """Which images the network misclassifies, bool [N], in eval mode and in full precision.

    Args:
        targeted: labels are targets: which images are classified as their label.
    """
    if not len(images):
        return torch.zeros_like(labels, dtype=torch.bool)
    full = torch.autocast(images.device.type, enabled=False)
    with frozen_weights(network, images.device), full, copied_input(network, images[:1]):
        model = Model(network, targeted=targeted)
        return model.is_adversarial(images, model.logits(images, labels), labels)
