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
from vitrine.attacks.threat import NORMS, eps_setting
from vitrine.core.network_scopes import frozen_weights
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import setting
from vitrine.modules.objectives.base import Objective

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
    eps: float | None = eps_setting(
        None, "largest perturbation, of [0, 1] pixels; null: the objective's, or 8/255", least=0
    )
    steps: int = setting(10, "steps of PGD", least=1)
    alarm: float = setting(0.2, "drop of robust accuracy below its best that is a collapse", above=0, most=1)


class RobustValidation(Callback):
    """Attacks the same validation images at every validation, from the same random points, and logs

        val/clean_accuracy_subset   accuracy on these images without an attack
        val/robust_accuracy         under PGD: classified correctly both without and with the attack
        val/robust_gap              the former less the latter
        val/fgsm_minus_pgd          accuracy under FGSM less that under PGD: the first to rise where training
                                    overfits to the attack's steps
        val/robust_alarm            1 where robust accuracy lies more than `alarm` below its best so far

    With averaged weights (EMA) these are attacked: list this callback before the one that averages. Several
    ranks divide the images. Training is not affected.

    Args:
        settings: of the attack; None is filled in from the objective.
        seed: of the choice of images.
        objective: the one that is trained.
    """

    def __init__(self, settings: ValidationSettings, seed: int = 0, objective: Objective | None = None):
        objective = objective or Objective()
        default_count = 0 if objective.eps is None else 256
        self.count = default_count if settings.robust_images is None else settings.robust_images
        default_eps = 8 / 255 if objective.eps is None else objective.eps
        self.settings, self.seed = settings, seed
        self.budget = {
            "norm": settings.norm or objective.norm,
            "eps": default_eps if settings.eps is None else settings.eps,
        }
        self.best = 0.0
        self.alarmed = False
        self._subset: tuple[Tensor, Tensor, Tensor] | None = None  # images, labels, indices

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if trainer.sanity_checking or not self.count:
            return
        values = self.compute_metrics(trainer, pl_module)
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

    def compute_metrics(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> dict[str, float]:
        """The metrics without the alarm, by their names without val/."""
        if self._subset is None:
            self._subset = random_subset(trainer.datamodule.val, self.count, self.seed)
        precision = "bf16-mixed" if trainer.precision == "bf16-mixed" else "32-true"
        own = [part[trainer.global_rank :: trainer.world_size] for part in self._subset]
        counts = count_correct(
            module.network, *own, self.settings.steps, module.device, precision=precision, **self.budget
        )
        return accuracies(trainer.strategy.reduce(counts, reduce_op="sum"))

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "alarmed": self.alarmed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.alarmed = state_dict["best"], state_dict["alarmed"]


def random_subset(split: Any, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (as stored), labels and indices of `count` random images of a split, in the split's order."""
    indices = permutation(len(split), seed)[:count].sort().values
    return *split.batch(indices), indices


def count_correct(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    indices: Tensor,
    steps: int,
    device: torch.device,
    **attack: Any,
) -> Tensor:
    """The number of images, and how many are classified correctly without an attack, and also under FGSM, and
    under PGD: int64 [4].

    Args:
        images: uint8, or float in [0, 1], [N, C, H, W].
        indices: int64 [N], keys of the random starting points.
        attack: norm, eps and precision.
    """
    methods = {"fgsm": attacks.FGSM(**attack), "pgd": attacks.PGD(steps=steps, **attack)}
    counts = {"clean": 0, "fgsm": 0, "pgd": 0}
    for rows in torch.arange(len(images)).split(_BATCH):
        pixels = as_float(images[rows].to(device))
        targets, keys = labels[rows].to(device), indices[rows].to(device)
        correct = _is_correct(network, pixels, targets)
        counts["clean"] += int(correct.sum())
        for name, method in methods.items():
            adversarial = method(network, pixels[correct], targets[correct], keys=keys[correct])
            counts[name] += int(_is_correct(network, adversarial, targets[correct]).sum())
    return torch.tensor([len(images), *counts.values()], device=device)


def accuracies(counts: Tensor) -> dict[str, float]:
    """The metrics without the alarm, from the result of `count_correct`."""
    images, *correct = counts.tolist()
    clean, fgsm, pgd = (number / images for number in correct)
    return {
        "clean_accuracy_subset": clean,
        "robust_accuracy": pgd,
        "robust_gap": clean - pgd,
        "fgsm_minus_pgd": fgsm - pgd,
    }


def _is_correct(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified correctly, bool [N], in eval mode and full precision."""
    if not len(images):
        return torch.zeros_like(labels, dtype=torch.bool)
    full = torch.autocast(images.device.type, enabled=False)
    with frozen_weights(network, images.device), full, torch.no_grad():
        return network(images).argmax(1) == labels
