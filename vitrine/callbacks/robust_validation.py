"""Robust accuracy at the end of every validation, whatever the objective, and an alarm when it collapses."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from vitrine import attacks
from vitrine.analyses.base import as_float
from vitrine.attacks.threat import NORMS
from vitrine.core.network_scopes import frozen_weights
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import setting

log = logging.getLogger(__name__)

_BATCH = 128
METRICS = ("clean_accuracy_subset", "robust_accuracy", "robust_gap", "fgsm_minus_pgd", "robust_alarm")


@dataclass
class ValidationSettings:
    """How a network under training is attacked, on a fixed part of the validation images."""

    robust_images: int | None = setting(
        None, "validation images to attack at every validation; null: 256 in adversarial training", least=0
    )
    norm: str | None = setting(
        None, "norm of the perturbation; null: the objective's, or linf", choices=tuple(NORMS)
    )
    eps: float | None = setting(
        None, "largest perturbation, of [0, 1] pixels; null: the objective's, or 8/255", least=0
    )
    steps: int = setting(10, "steps of PGD", least=1)
    alarm: float = setting(0.2, "drop of robust accuracy below its best that is a collapse", above=0, most=1)


class RobustValidation(Callback):
    """Attacks the same validation images at every validation, from the same random points, and logs

        val/clean_accuracy_subset   of these images as they are
        val/robust_accuracy         under PGD: recognised as they are, and attacked too
        val/robust_gap              the former less the latter
        val/fgsm_minus_pgd          accuracy under FGSM less that under PGD: rises first where training
                                    overfits to the attack's steps
        val/robust_alarm            1 where robust accuracy lies more than `alarm` below its best so far

    With averaged weights (EMA) these are attacked: list this callback before the one that averages. Several
    ranks divide the images. Nothing of the run changes by it.

    Args:
        settings: how; what is None is filled in from the objective.
        seed: which images.
        objective: whose `eps` and `norm` count where the settings have none.
    """

    def __init__(self, settings: ValidationSettings, seed: int = 0, objective: Any = None):
        images = settings.robust_images
        eps = getattr(objective, "eps", None)
        self.count = (0 if eps is None else 256) if images is None else images
        budget = {
            "norm": settings.norm or getattr(objective, "norm", "linf"),
            "eps": settings.eps if settings.eps is not None else 8 / 255 if eps is None else eps,
        }
        self.settings, self.seed, self.budget = settings, seed, budget
        self.best = 0.0
        self.alarmed = False
        self._subset: tuple[Tensor, Tensor, Tensor] | None = None  # images, labels, indices

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if trainer.sanity_checking or not self.count:
            return
        values = self.measure(trainer, pl_module)
        fell = values["robust_accuracy"] < self.best - self.settings.alarm
        if fell and not self.alarmed:
            log.warning(
                "robust accuracy collapsed at step %d: %.1f %%, its best was %.1f %% (FGSM less PGD: %.1f "
                "points); unless checkpoint.monitor is another metric, best.ckpt is of before",
                trainer.global_step,
                100 * values["robust_accuracy"],
                100 * self.best,
                100 * values["fgsm_minus_pgd"],
            )
        if trainer.state.fn == "fit":
            self.best, self.alarmed = max(self.best, values["robust_accuracy"]), fell
        values["robust_alarm"] = float(fell)
        pl_module.log_dict({f"val/{name}": values[name] for name in METRICS})

    def measure(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> dict[str, float]:
        """The metrics but the alarm, by their names without val/."""
        if self._subset is None:
            self._subset = subset(trainer.datamodule.val, self.count, self.seed)
        search = "bf16-mixed" if trainer.precision == "bf16-mixed" else "32-true"
        own = [part[trainer.global_rank :: trainer.world_size] for part in self._subset]
        found = recognised(
            module.network, *own, self.settings.steps, module.device, precision=search, **self.budget
        )
        return shares(trainer.strategy.reduce(found, reduce_op="sum"))

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "alarmed": self.alarmed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.alarmed = state_dict["best"], state_dict["alarmed"]


def subset(split: Any, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (as stored), labels and indices of `count` images drawn from a split, in the split's order."""
    drawn = permutation(len(split), seed)[:count]
    indices = drawn.sort().values
    return *split.batch(indices), indices


def recognised(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    indices: Tensor,
    steps: int,
    device: torch.device,
    **attack: Any,
) -> Tensor:
    """How many images there are, and a network recognises as they are, under FGSM and under PGD: int64 [4].

    Args:
        images: uint8, or float in [0, 1], [N, C, H, W].
        indices: int64 [N], what random starting points are drawn from.
        attack: norm, eps and precision.
    """
    attacked = {"fgsm": attacks.FGSM(**attack), "pgd": attacks.PGD(steps=steps, **attack)}
    right = {"clean": 0, "fgsm": 0, "pgd": 0}
    for rows in torch.arange(len(images)).split(_BATCH):
        pixels = as_float(images[rows].to(device))
        truth, keys = labels[rows].to(device), indices[rows].to(device)
        stands = _recognised(network, pixels, truth)
        right["clean"] += int(stands.sum())
        for name, attack_of in attacked.items():
            worst = attack_of(network, pixels[stands], truth[stands], keys=keys[stands])
            right[name] += int(_recognised(network, worst, truth[stands]).sum())
    return torch.tensor([len(images), *right.values()], device=device)


def shares(recognised: Tensor) -> dict[str, float]:
    """Accuracy on images as they are, under PGD, and by how much FGSM's exceeds that."""
    images, *right = recognised.tolist()
    clean, fgsm, pgd = (number / images for number in right)
    return {
        "clean_accuracy_subset": clean,
        "robust_accuracy": pgd,
        "robust_gap": clean - pgd,
        "fgsm_minus_pgd": fgsm - pgd,
    }


def _recognised(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is taken for its label, bool [N], in eval mode and full precision."""
    if not len(images):
        return torch.zeros_like(labels, dtype=torch.bool)
    full = torch.autocast(images.device.type, enabled=False)
    with frozen_weights(network, images.device), full, torch.no_grad():
        return network(images).argmax(1) == labels
