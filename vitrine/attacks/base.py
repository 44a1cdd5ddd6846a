"""What every attack is: settings, called on (network, images, labels), that returns adversarial images."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrine.attacks import threat
from vitrine.attacks.model import Model, StepCallback, Views
from vitrine.core import settings
from vitrine.core.input_copies import copied_input
from vitrine.core.network_scopes import frozen_weights, outside_inference_mode
from vitrine.core.random_numbers import content_keys, fold_in
from vitrine.core.settings import SettingError, setting


@dataclass(frozen=True, kw_only=True)
class Attack:
    """The threat model, and the mode and precision of the network under attack; subclasses search.

    An image's result depends on its pixels, its label, the settings and the weights, and on nothing else: not
    on the images beside it (in `mode="train"` it must), nor on any global generator. Its random numbers are
    a function of its key, which is a hash of its pixels unless keys are given.
    """

    norm: str = setting("linf", "norm of the perturbation", choices=tuple(threat.NORMS))
    eps: float | None = threat.eps_setting(8 / 255, "largest perturbation, of [0, 1] pixels", least=0)
    targeted: bool = setting(False, "labels are targets: the classes that images are to be classified as")
    seed: int = setting(0, "of the random numbers", least=0, most=2**63 - 1)
    mode: str = setting(
        "eval",
        "train: batch normalisation by the batch, running statistics unchanged",
        choices=("eval", "train"),
    )
    precision: str = setting(
        "32-true",
        "of the search; inherit leaves the caller's autocast on. Successes are confirmed in full",
        choices=("32-true", "bf16-mixed", "inherit"),
    )

    minimizes_norm: ClassVar[bool] = False  # searches for the smallest perturbation: eps may be null
    supports_targeted: ClassVar[bool] = True
    supports_eot: ClassVar[bool] = False  # follows gradients of one loss, which EOT may average
    early_stop: ClassVar[bool] = False  # a setting of the attacks of several steps

    def __post_init__(self) -> None:
        settings.check(self)
        if self.eps is None and not self.minimizes_norm:
            raise SettingError("eps", "is null, expected a number: this attack needs a bound")
        if self.targeted and not self.supports_targeted:
            raise SettingError("targeted", f"is true, but {type(self).__name__} has no targeted form")

    def __call__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        keys: Tensor | None = None,
        check: bool = True,
        on_step: StepCallback | None = None,
        views: Views | None = None,
        double: nn.Module | None = None,
        **options: Any,
    ) -> Tensor:
        """Adversarial images, [N, C, H, W], within eps of `images` and in [0, 1].

        The network's modes, parameters, buffers, `.grad` and requires_grad are unchanged afterwards.

        Args:
            network: takes [0, 1] pixels and returns logits [N, K], or an output with `logits`.
            images: float32 or float64 in [0, 1], [N, C, H, W].
            labels: int64 [N]; the true classes, or the targets if targeted.
            keys: int64 [N], one for each image's random numbers (say, its index in the data set).
            check: false within training: arguments and results are not validated (which would wait for the
                device), so no image leaves the batch early.
            on_step: called with losses [N] and gradient [N, C, H, W] at every step.
            views: of EOT.
            double: a faster network with the same logits up to rounding (`folded`), in eval mode, which is
                searched in place of `network`; that confirms successes.
            options: what the attack's `search` takes beyond these.

        Raises:
            ValueError: invalid arguments, or a network that returns NaN.
        """
        if check:
            check_images(images, labels, keys)
        if not len(images):
            return images.clone()
        device = images.device
        full = nullcontext() if self.precision == "inherit" else torch.autocast(device.type, enabled=False)
        # in training a pass more would be dear, and the network gets copies already
        own = copied_input(network, images[:1]) if check else nullcontext()
        with frozen_weights(network, device, self.mode, self.seed), full, own:
            images, labels = map(outside_inference_mode, (images.detach(), labels))
            keys = fold_in(content_keys(images) if keys is None else keys, self.seed)
            low = self.precision == "bf16-mixed"
            model = Model(network, self.targeted, low, check, on_step, views, double=double)
            adversarial = self.search(model, images, labels, keys, **options)
        if check:
            model.raise_if_nan()
            self.verify(images, adversarial)
        return adversarial

    def search(self, model: Model, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """Adversarial images, [N, C, H, W]."""
        raise NotImplementedError

    def stops_early(self, model: Model) -> bool:
        """Whether images that are adversarial already leave the batch, which takes a look at each step."""
        return self.early_stop and model.check and self.mode == "eval"

    def verify(self, images: Tensor, adversarial: Tensor) -> None:
        """Raise RuntimeError if an adversarial image is not allowed: the attack's own fault."""
        outside = threat.violations(images, adversarial, self.norm, self.eps)
        if outside.any():
            raise RuntimeError(
                f"{type(self).__name__} left [0, 1] or the {self.norm} ball of {self.eps} "
                f"in {int(outside.sum())} images"
            )


def check_images(images: Tensor, labels: Tensor, keys: Tensor | None = None) -> None:
    """Raise ValueError unless images are float [N, C, H, W] in [0, 1], and labels and keys int64 [N]."""
    if images.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"images are {images.dtype}, expected float32 or float64 in [0, 1]")
    if images.ndim != 4:
        raise ValueError(f"images are {list(images.shape)}, expected [N, C, H, W]")
    for name, values in (("labels", labels), ("keys", keys)):
        if values is None:
            continue
        if values.dtype != torch.int64 or values.shape != images.shape[:1]:
            raise ValueError(
                f"{name} are {values.dtype} {list(values.shape)}, expected int64 [{len(images)}]"
            )
    if len(images):
        low, high = torch.aminmax(images.detach())
        if not (low >= 0 and high <= 1):  # so that NaN fails
            raise ValueError(f"images lie between {low:.4g} and {high:.4g}, expected [0, 1]")
