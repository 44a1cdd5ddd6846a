"""Checks before a run writes anything: of what would otherwise fail at the first step, or an epoch later."""

import logging
import math
from collections.abc import Collection

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.functional import one_hot

from vitrine.callbacks.checkpoints import CheckpointSettings
from vitrine.callbacks.robust_validation import METRICS, RobustValidation
from vitrine.config.errors import as_setting_error
from vitrine.config.loading import Settings
from vitrine.core import random_state
from vitrine.core.module_copies import copy_module
from vitrine.core.network_output import NO_LOGITS
from vitrine.core.registry import nearest
from vitrine.core.settings import SettingError
from vitrine.datamodules.base import ImageDataModule
from vitrine.modules.classifier import Classifier
from vitrine.modules.compilation import try_compiling
from vitrine.modules.optimizers import lr_factor
from vitrine.modules.validation_metrics import is_of_class
from vitrine.reporting.wandb_run import check_login
from vitrine.runs.held_out import NO_TEST_SPLIT

log = logging.getLogger(__name__)

LOWER_IS_BETTER = ("val/loss", "val/ece", "val/robust_gap", "val/robust_alarm")


def check_run(settings: Settings, data: ImageDataModule, module: Classifier, trainer: Trainer) -> None:
    """Check a run that is about to start, its data set up, and try one step of it with a copy.

    Raises:
        SettingError: a setting with which training cannot start, or cannot end an epoch.
    """
    if settings.run.test and not data.has_test:
        raise SettingError("run.test", f"is true, but {NO_TEST_SPLIT}")
    batches, batch_size = data.epoch_size(train=True, world_size=trainer.world_size)
    val_batches, _ = data.epoch_size(train=False, world_size=trainer.world_size)
    _check_limits(settings, trainer, batches, val_batches)
    metrics = _try_batch(module, data, trainer, batch_size)
    if settings.model.compile:
        _check_compiler()
    if any(isinstance(callback, RobustValidation) for callback in trainer.callbacks):
        metrics += [f"val/{name}" for name in METRICS]
    validates = bool(trainer.limit_val_batches) and len(data.val) > 0
    first = _first_validation(trainer, _limited(batches, trainer.limit_train_batches))
    _check_monitor(settings.checkpoint, metrics, trainer, first if validates else (math.inf, math.inf))
    if trainer.is_global_zero:
        check_login(settings.folder, settings.logging.wandb)


def _check_limits(settings: Settings, trainer: Trainer, batches: int, val_batches: int) -> None:
    """Raise SettingError for limits of the trainer that do not fit an epoch, or validation, of so many
    batches."""
    limit = trainer.limit_train_batches
    if (used := _limited(batches, limit)) < 1:
        raise SettingError("trainer.limit_train_batches", f"is {limit}, which leaves no batch of {batches}")
    limit = trainer.limit_val_batches
    if val_batches and limit and _limited(val_batches, limit) < 1:
        problem = f"is {limit}, which leaves no batch of {val_batches}, expected 0 or at least"
        raise SettingError("trainer.limit_val_batches", f"{problem} {1 / val_batches:.2g}")
    interval = trainer.val_check_interval
    if not interval:
        raise SettingError("trainer.val_check_interval", f"is {interval}, expected more than 0")
    every_epoch = trainer.check_val_every_n_epoch is not None and trainer.limit_val_batches
    if every_epoch and type(interval) is int and interval > used:
        problem = f"is {interval}, more than the {used} batches of an epoch"
        raise SettingError("trainer.val_check_interval", f"{problem}, expected at most as many")
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        with as_setting_error("optimizer"):
            lr_factor(settings.optimizer, math.inf)


def _limited(batches: int, limit: int | float) -> int:
    """How many of so many batches Lightning takes: a number of them, or a share."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def _validated_labels(data: ImageDataModule, trainer: Trainer) -> Tensor:
    """The labels of the images that a validation sees, on all ranks."""
    batches, batch_size = data.epoch_size(train=False, world_size=trainer.world_size)
    used = _limited(batches, trainer.limit_val_batches)
    if used in (0, batches):
        return data.val.labels
    how = {"train": False, "world_size": trainer.world_size}
    samplers = [data.sampler(data.val, batch_size, rank=rank, **how) for rank in range(trainer.world_size)]
    return data.val.labels[torch.cat([batch for each in samplers for batch in each.batches(0)[:used]])]


def _first_validation(trainer: Trainer, batches: int) -> tuple[float, int]:
    """After how many epochs and optimizer steps, of epochs of so many batches, the first validation comes."""
    interval, every = trainer.val_check_interval, trainer.check_val_every_n_epoch
    if not isinstance(interval, (int, float)):  # a time
        return 0, 0
    of_epoch = max(1, int(batches * interval)) if isinstance(interval, float) else interval
    first = of_epoch if every is None else (every - 1) * batches + of_epoch
    epochs, rest = divmod(first, batches)
    accumulated = trainer.accumulate_grad_batches  # what is left at the end of an epoch is a step, too
    return first / batches, epochs * math.ceil(batches / accumulated) + rest // accumulated


def _check_compiler() -> None:
    """Raise SettingError if networks cannot be compiled here: the trial step was an uncompiled copy's."""
    try:
        try_compiling()
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        problem = f"is true, but torch.compile fails here ({first}); expected false, or a C++ compiler"
        raise SettingError("model.compile", problem) from error


def _try_batch(module: Classifier, data: ImageDataModule, trainer: Trainer, batch_size: int) -> list[str]:
    """Train on a batch of one or two random images and validate them, with a copy; what validation logs."""
    size = min(batch_size, 2)
    try:
        return _try_step(module, data, trainer, size)
    except Exception as error:
        if module.memory_format is torch.channels_last and "view size is not compatible" in str(error):
            problem = "is true, but the network takes views that want channels outermost: reshape serves"
            raise SettingError("model.channels_last", problem) from error
        if str(error).startswith(NO_LOGITS):  # one that returns more in training than in eval mode
            raise SettingError("model.name", f"in training mode, {error}") from error
        if size == 1:
            _try_step(module, data, trainer, 2)  # raises what has another cause
            problem = f"gives batches of one image, expected at least 2: {error}"
            raise SettingError("data.batch_size", problem) from error
        error.add_note("This is how a training step on two random images ends; nothing has been written.")
        raise


def _try_step(module: Classifier, data: ImageDataModule, trainer: Trainer, size: int) -> list[str]:
    device, state = trainer.strategy.root_device, random_state.capture()
    trial = copy_module(module).to(device).train()
    precision = trainer.precision_plugin
    try:
        trial = precision.convert_module(trial)
        images = torch.rand(size, data.channels, data.image_size, data.image_size, device=device)
        labels = torch.arange(size, device=device) % len(data.classes)
        optimizer, _ = trial.build_optimizer(steps=1000)
        mixes = getattr(getattr(data.settings, "augment", None), "mixes", False)
        targets = one_hot(labels, len(data.classes)).float() if mixes else labels
        with precision.train_step_context():
            loss = trial.training_step((images, targets), 0)
        loss.backward()
        trial.on_after_backward()
        optimizer.step()
        trial.eval()
        with precision.val_step_context(), torch.no_grad():
            trial.validation_step((images, labels), 0)
        return trial.validation_metrics(_validated_labels(data, trainer))
    finally:
        random_state.restore(state)


def _check_monitor(
    settings: CheckpointSettings, metrics: Collection[str], trainer: Trainer, first: tuple[float, float]
) -> None:
    """Raise SettingError if `checkpoint.monitor` is no metric of validation, or its mode is the wrong one.

    Args:
        first: after how many epochs and steps the first validation comes.
    """
    if (monitor := settings.monitor) is None:
        return
    epochs, steps = first
    if math.isinf(epochs) or 0 <= trainer.max_epochs < math.ceil(epochs):
        raise SettingError("checkpoint.monitor", f"is {monitor}, but there is no validation that measures it")
    if 0 <= trainer.max_steps < steps:
        # no mistake where a recipe is tried for some steps, or the run is to go on later
        log.warning(
            "checkpoint.monitor is %s, but trainer.max_steps=%d ends before the first validation, which is "
            "after %d steps: there will be no best.ckpt",
            monitor,
            trainer.max_steps,
            steps,
        )
    if monitor not in metrics:
        close = nearest(monitor, metrics, most=1)
        hint = f"did you mean {close[0]}? " if close else ""
        shown = [name for name in metrics if not is_of_class(name)]
        problem = f"is {monitor}, which validation does not log; {hint}It logs {', '.join(shown)}"
        of_class = "val/accuracy_class/CLASS"
        if not any("/accuracy_class/" in name for name in metrics):
            of_class += " where logging.class_curves is at least the number of classes"
        raise SettingError("checkpoint.monitor", f"{problem} and {of_class}")
    if monitor in LOWER_IS_BETTER and settings.mode == "max":
        raise SettingError("checkpoint.mode", f"is max, but a lower {monitor} is better: expected min")
