"""Lightning's Trainers, from settings."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from vitrine.callbacks.averaging import ExactEMA
from vitrine.callbacks.bad_batch import SaveBadBatch
from vitrine.callbacks.checkpoints import model_checkpoints
from vitrine.callbacks.lightning_internals import LearningRates
from vitrine.callbacks.resume import ExactResume
from vitrine.callbacks.robust_validation import METRICS, RobustValidation
from vitrine.callbacks.signals import StopBetweenSteps
from vitrine.config.errors import as_setting_error
from vitrine.config.loading import Settings
from vitrine.core.settings import SettingError
from vitrine.runs.checkpoint_io import AtomicCheckpointIO


def build_trainer(
    settings: Settings, last: Sequence[Callback] = (), arguments: Mapping[str, Any] | None = None
) -> Trainer:
    """Lightning's Trainer with all that a run of ours needs but loggers.

    Args:
        last: callbacks to come last.
        arguments: in place of `settings.trainer`.
    """
    callbacks: list[Callback] = [
        ExactResume(),
        StopBetweenSteps(),
        LearningRates("step"),
        SaveBadBatch(settings.folder),
    ]
    _check_replays(settings)
    checkpoint = settings.checkpoint
    robust_validation = RobustValidation(settings.validation, settings.run.seed, settings.objective)
    if robust_validation.count:
        callbacks.append(robust_validation)  # before the averaged weights are swapped out
        if checkpoint.monitor is None:
            checkpoint = dataclasses.replace(checkpoint, monitor="val/robust_accuracy", mode="max")
    elif checkpoint.monitor in [f"val/{name}" for name in METRICS]:
        problem = f"is {checkpoint.monitor}, which nothing measures: give validation.robust_images"
        raise SettingError("checkpoint.monitor", problem)
    if settings.optimizer.ema:
        callbacks.append(ExactEMA(decay=settings.optimizer.ema))
    callbacks += model_checkpoints(settings.folder, checkpoint)
    silence_lightning()
    with as_setting_error("trainer"):
        return Trainer(
            **(settings.trainer if arguments is None else arguments),
            callbacks=[*callbacks, *last],
            logger=False,  # loggers are added once the run's folder exists
            plugins=[AtomicCheckpointIO()],
            default_root_dir=settings.folder,
            use_distributed_sampler=False,
        )


def build_test_trainer(settings: Settings, arguments: Mapping[str, Any]) -> Trainer:
    """Lightning's Trainer for a whole pass over the test split, with nothing of a training.

    Args:
        arguments: of the Trainer of the training, devices and precision among them.
    """
    silence_lightning()
    partial_passes = ("fast_dev_run", "overfit_batches", "limit_test_batches")
    kept = {name: value for name, value in arguments.items() if name not in partial_passes}
    without = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    own = {"use_distributed_sampler": False, "default_root_dir": settings.folder}
    return Trainer(**{**kept, **without, **own})


def _check_replays(settings: Settings) -> None:
    """Raise SettingError if gradients would be accumulated over batches that are replayed."""
    replays = settings.objective.replays
    accumulated = settings.trainer.get("accumulate_grad_batches") or 1
    if replays > 1 and accumulated > 1:
        expected = f"objective.replays={replays}, expected 1: each replay is an optimizer step"
        raise SettingError("trainer.accumulate_grad_batches", f"is {accumulated} beside {expected}")


def silence_lightning() -> None:
    """Silence Lightning's lists of devices, and warnings that a user cannot act on: that metrics of several
    ranks should be synchronised is one, as torchmetrics has synchronised them."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*",
        ".*smaller than the logging interval.*",
        ".*does not have many workers.*",
        ".*sync_dist=True.*",
    ):
        warnings.filterwarnings("ignore", message)
