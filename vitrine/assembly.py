"""From settings to the objects that they describe, for `train.py` and `analyze.py` alike."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import nn

from vitrine.analyses import ANALYSES
from vitrine.analyses.base import Analysis
from vitrine.callbacks.averaging import ExactEMA
from vitrine.callbacks.bad_batch import SaveBadBatch
from vitrine.callbacks.checkpoints import model_checkpoints
from vitrine.callbacks.lightning_internals import LearningRates
from vitrine.callbacks.resume import ExactResume
from vitrine.callbacks.robust_validation import METRICS, RobustValidation
from vitrine.callbacks.signals import StopBetweenSteps
from vitrine.config.errors import as_setting_error
from vitrine.config.loading import Settings
from vitrine.core.network_scopes import full_isolation
from vitrine.core.settings import SettingError
from vitrine.datamodules import source
from vitrine.datamodules.base import ImageDataModule
from vitrine.datamodules.file_settings import FileSettings
from vitrine.examination.examiner import Examiner
from vitrine.examination.subject import choose_units
from vitrine.modules import OBJECTIVES, load_checkpoint, load_network
from vitrine.modules.classifier import Classifier
from vitrine.modules.foreign_networks import check_existence, is_foreign, zoo_of
from vitrine.modules.objectives.base import Objective
from vitrine.modules.output_check import check_logits
from vitrine.reporting.page import PageSink
from vitrine.reporting.tensorboard_logger import BoardLogger
from vitrine.reporting.tensorboard_sink import TensorBoardSink
from vitrine.reporting.wandb_claims import Claims
from vitrine.reporting.wandb_run import wandb_logger
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.checkpoint_io import AtomicCheckpointIO
from vitrine.runs.metrics_csv import MetricsCSV
from vitrine.runs.store import Store

log = logging.getLogger(__name__)


def build_data(
    settings: Settings, prepare_scope: Callable[[], Any] = contextlib.nullcontext
) -> ImageDataModule:
    """The data module, set up; `prepare_scope`: entered while data are downloaded or unpacked."""
    _adopt_preprocessing(settings)
    with as_setting_error("data"):
        module = source(settings.data.name)(settings.data, seed=settings.run.seed)
        with prepare_scope():
            module.prepare_data()
        module.setup()
    return module


def _adopt_preprocessing(settings: Settings) -> None:
    """Fill what the settings of image files leave open with what the library of the network does."""
    data, zoo = settings.data, zoo_of(settings.model.name)
    own = (
        zoo.preprocessing(settings.model.name) if zoo is not None and isinstance(data, FileSettings) else None
    )
    if own is None:
        return
    data.interpolation = own.interpolation if data.interpolation == "auto" else data.interpolation
    if data.fit != "auto":
        return
    data.fit, data.image_size = own.fit, data.image_size or own.image_size
    if data.fit == "crop" and not data.resize:
        data.resize = round(data.image_size * own.resize / own.image_size)


def check_network(settings: Settings) -> None:
    """Raise SettingError unless there is a network of `model.name`: before data take their time."""
    with as_setting_error("model.name"):
        if is_foreign(settings.model.name):
            check_existence(settings.model.name)


def check_objective(settings: Settings) -> None:
    """Raise SettingError for labels that the objective does not take; say what is done twice."""
    augmentation = getattr(settings.data, "augment", None)
    if getattr(augmentation, "mixes", False) and not settings.objective.soft_targets:
        name = "mixup" if augmentation.mixup else "cutmix"
        takers = ", ".join(other for other in OBJECTIVES if OBJECTIVES[other].soft_targets)
        problem = (
            f"is {getattr(augmentation, name)}, but objective.name={settings.objective.name} needs images of "
        )
        raise SettingError(f"data.augment.{name}", f"{problem}one class each, expected 0 or one of {takers}")
    weights = getattr(settings.objective, "class_weights", None)
    if weights is not None and getattr(settings.data, "sampler", None) == "balanced":
        log.warning("data.sampler=balanced and objective.class_weights both favour rare classes, twice over")


def checkpoint_loader(settings: Settings) -> Callable[[str | Path], nn.Module]:
    """`load_checkpoint` for a run's checkpoints, whose network its settings name."""
    return partial(load_checkpoint, network=settings.model.name)


def build_network(settings: Settings, data: ImageDataModule) -> nn.Module:
    """The network that `model` describes, for these data."""
    model = settings.model
    mean, std = model.mean, model.std
    if model.weights is None and mean is None and std is None and zoo_of(model.name) is None:
        mean, std = data.mean, data.std
    with as_setting_error("model"):
        seed_everything(settings.run.seed, verbose=False)
        network = load_network(
            model.name,
            classes=data.classes,
            weights=model.weights,
            mean=mean,
            std=std,
            channels=data.channels,
            stem=model.stem,
            head=model.head,
            image_size=data.image_size,
            image_statistics=(data.mean, data.std),
            options=model.options,
        )
        check_logits(network, len(data.classes), data.channels, data.image_size)
    return network.train()


def build_classifier(settings: Settings, data: ImageDataModule) -> Classifier:
    """The LightningModule: network, objective, optimizer."""
    network = build_network(settings, data)
    objective = _build_objective(settings, data)
    model = settings.model
    _check_unfreezing(settings)
    with as_setting_error("model"):
        module = Classifier(
            network,
            objective,
            settings.optimizer,
            data.classes,
            model.compile,
            model.freeze,
            model.unfreeze_epoch,
            model.channels_last,
            settings.logging.class_curves,
        )
    with as_setting_error("optimizer"):
        module.build_optimizer(steps=1000)  # to raise now
    return module


def _check_unfreezing(settings: Settings) -> None:
    """Raise SettingError for an epoch of unfreezing that changes nothing."""
    epoch, epochs = settings.model.unfreeze_epoch, settings.trainer.get("max_epochs")
    if epoch is None:
        return
    if settings.model.freeze is None:
        raise SettingError("model.unfreeze_epoch", f"is {epoch}, but nothing is frozen: give model.freeze")
    if epochs is not None and 0 <= epochs <= epoch:
        problem = f"is {epoch}, but training ends before it (trainer.max_epochs={epochs})"
        raise SettingError("model.unfreeze_epoch", f"{problem}: expected less, or null for no unfreezing")


def build_test_module(settings: Settings, data: ImageDataModule, network: nn.Module) -> Classifier:
    """The LightningModule that measures a trained network as validation does."""
    objective, channels_last = _build_objective(settings, data), settings.model.channels_last
    return Classifier(network, objective, settings.optimizer, data.classes, channels_last=channels_last)


def _build_objective(settings: Settings, data: ImageDataModule) -> Objective:
    chosen = OBJECTIVES[settings.objective.name]
    values = {f.name: getattr(settings.objective, f.name) for f in dataclasses.fields(chosen)}
    with as_setting_error("objective"):
        objective = chosen(**values)
        objective.prepare(data.train, data.classes)
    return objective


def build_analyses(settings: Settings, network: nn.Module, data: ImageDataModule) -> dict[str, Analysis]:
    """Every analysis with its settings, enabled or not.

    Raises:
        SettingError: a layer or unit that the network does not have.
    """
    probe = torch.zeros(1, data.channels, data.image_size, data.image_size)
    with as_setting_error("analysis"), full_isolation(network):
        choose_units(network.eval(), probe, settings.analysis.layers, settings.analysis.units)
    return {name: getattr(settings.analysis, name) for name in ANALYSES}


def build_examiner(
    settings: Settings, network: nn.Module, data: ImageDataModule, *, retry: bool = False
) -> Examiner:
    """The Examiner of a run's checkpoints, without sinks."""
    analyses, store = build_analyses(settings, network, data), Store(settings.folder)
    device = training_device(settings)
    return Examiner(analyses, data, settings.analysis, store, device=device, retry=retry)


@dataclass
class Logs:
    """Where curves (`loggers`) and pictures (`sinks`) go, and what to print about it at the end (`notes`).

    One process of several that log pictures calls `claim(step)` before it examines a step.
    """

    loggers: list[Logger] = field(default_factory=list)
    sinks: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    claim: Callable[[int], None] = lambda step: None

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


def open_logs(settings: Settings, classes: Sequence[str], part: str = "alone") -> Logs:
    """The page and metrics.csv always; W&B and TensorBoard as `logging` says.

    Args:
        part: of this process among those that log to the run, see `reporting.wandb_run`.
    """
    folder = settings.folder
    logs = Logs([MetricsCSV(folder)], [PageSink(folder)])
    logger, note = wandb_logger(
        folder, settings.logging.wandb, name=settings.run.name, config=settings.to_dict(), part=part
    )
    logs.notes.append(note)
    if logger is not None:
        claims = Claims(folder) if part == "follower" else None
        sink = WandbSink(logger.experiment, classes, settings.logging.wandb.page, folder, claims=claims)
        if part == "alone":  # else the processes that follow log pictures at this very moment
            sink.log_missing(logger.logged_keys)
        if claims:
            logs.claim = claims.add
            sink.take_over()
        logs.loggers.append(logger)
        logs.sinks.append(sink)
    if settings.logging.tensorboard:
        with as_setting_error("logging.tensorboard"):
            board = BoardLogger(folder, name="", version="tensorboard")
            logs.sinks.append(TensorBoardSink(board.experiment))
        logs.loggers.append(board)
    return logs


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
    _silence_lightning()
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
    _silence_lightning()
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


def training_device(settings: Settings) -> torch.device:
    """The device that training would use, for programs that have no Trainer."""
    if settings.trainer.get("accelerator", "auto") != "cpu" and torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


def _silence_lightning() -> None:
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
