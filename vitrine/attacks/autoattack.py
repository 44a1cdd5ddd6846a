"""AutoAttack (Croce & Hein 2020): the worst of several attacks, image by image, without anything to tune."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrine.attacks.apgd import APGD
from vitrine.attacks.base import Attack, check_images
from vitrine.attacks.evaluation import Evaluation, fingerprint
from vitrine.attacks.fab import FAB
from vitrine.attacks.folded import folded
from vitrine.attacks.losses import MIN_CLASSES
from vitrine.attacks.model import Model, is_adversarial
from vitrine.attacks.square import Square
from vitrine.core.input_copies import copied_input
from vitrine.core.network_scopes import frozen_weights
from vitrine.core.settings import SettingError, setting

_COMPARED = 32  # images on which the folded network is held against the network


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """Standard: APGD-CE, APGD-T, FAB-T and Square, each on the images that are still robust.

    Rand, for networks that draw random numbers: APGD-CE and APGD-DLR on mean gradients. Adversarial images
    leave the batch, between the attacks and inside of each. Robust images are returned unchanged, and only
    after all steps, targets and queries: nothing is cut short on a guess. With `fold` the search asks a
    double of the network that rounds differently (as another batch size or processor does), Square on a CPU
    only for what a square changes of it, and the network itself whether what it found is adversarial.
    """

    version: str = setting("standard", "rand: for networks that draw numbers", choices=("standard", "rand"))
    steps: int = setting(100, "of each run of APGD and of FAB", least=1)
    targets: int = setting(9, "wrong classes tried by APGD-T and FAB-T", least=1)
    queries: int = setting(5000, "forward passes of Square", least=1)
    draws: int = setting(20, "rand: gradients a step", least=1)
    batch_size: int = setting(256, "images attacked at once", least=1)
    early_stop: bool = setting(True, "adversarial images leave the batch; false: all take all steps of all")
    fold: bool = setting(True, "search with batch normalisation folded into convolutions; successes: without")

    supports_targeted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode != "eval":
            raise SettingError(
                "mode", f"is {self.mode}, expected eval: robustness must not depend on the batch"
            )

    def parts(self) -> dict[str, Attack]:
        """The attacks in order, by name."""
        names = ("norm", "eps", "seed", "precision", "early_stop")
        common = {name: getattr(self, name) for name in names}
        if self.version == "rand":
            return {
                f"apgd-{loss}": APGD(**common, steps=self.steps, loss=loss, draws=self.draws)
                for loss in ("ce", "dlr")
            }
        return {
            "apgd-ce": APGD(**common, steps=self.steps),
            "apgd-t": APGD(**common, steps=self.steps, loss="dlr-targeted", targets=self.targets),
            "fab-t": FAB(**common, steps=self.steps, targets=self.targets),
            "square": Square(**common, queries=self.queries),
        }

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, keys: Tensor | None = None
    ) -> Tensor:
        """Adversarial images, [N, C, H, W]; arguments and errors as of `Attack`."""
        adversarial = images.clone()
        for evaluation in self.run(network, images, labels, keys=keys):
            adversarial = evaluation.adversarial
        return adversarial

    def run(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        state: dict[str, Any] | None = None,
        keys: Tensor | None = None,
    ) -> Iterator[Evaluation]:
        """The evaluation so far, after each batch of each attack; the last is the whole one.

        Args:
            state: an earlier evaluation's `state_dict()`, to go on from; the outcome is that of a run that
                was not interrupted.

        Raises:
            ValueError: invalid arguments, a network that returns NaN, a state of other images or of other
                settings.
        """
        check_images(images, labels, keys)
        if not len(images):
            return
        images = images.detach()
        parts, skipped = self._applicable_parts(network, images, labels)
        identity = f"{fingerprint(images, labels)} {replace(self, batch_size=1)}"
        names, double = list(parts), None
        if self.fold and self.version == "standard":
            full = torch.autocast(images.device.type, enabled=False)
            with frozen_weights(network, images.device), full, copied_input(network, images[:1]):
                double = folded(network, images[:_COMPARED])
        if state is None:
            evaluation = Evaluation.start(images, ["clean", *names], skipped, identity)
            for rows in torch.arange(len(images), device=images.device).split(self.batch_size):
                success = is_adversarial(network, images[rows], labels[rows])
                evaluation.record(rows[success], images[rows[success]], 0)
        else:
            evaluation = Evaluation.from_state_dict(state, images, identity)
        yield evaluation
        for number, name in enumerate(names, start=1):
            if number < evaluation.part:
                continue
            if number > evaluation.part:
                evaluation.part, evaluation.done = number, 0
            pending = evaluation.rows(number, everything=not self.early_stop)[evaluation.done :]
            for rows in pending.split(self.batch_size):
                row_keys = None if keys is None else keys[rows]
                found = parts[name](network, images[rows], labels[rows], keys=row_keys, double=double)
                success = is_adversarial(network, found, labels[rows])
                evaluation.record(rows[success], found[success], number)
                evaluation.done += len(rows)
                yield evaluation

    def _applicable_parts(
        self, network: nn.Module, images: Tensor, labels: Tensor
    ) -> tuple[dict[str, Attack], list[str]]:
        """The parts for as many classes as the network has, and the names of those that need more."""
        with frozen_weights(network, images.device), copied_input(network, images[:1]):
            classes = Model(network).logits(images[:1], labels).shape[1]
        parts = self.parts()
        needed = {name: MIN_CLASSES[part.loss] for name, part in parts.items() if isinstance(part, APGD)}
        skipped = [name for name, least in needed.items() if classes < least]
        if skipped:
            warnings.warn(f"the network has {classes} classes: {', '.join(skipped)} fall away", stacklevel=3)
        return {name: part for name, part in parts.items() if name not in skipped}, skipped
