"""From settings to the things they describe. `train.py` and `analyze.py` build the same ones here."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf
from torch import nn

from vitrine.analyses import ANALYSES
from vitrine.analyses.base import Analysis
from vitrine.callbacks.bad_batch import SaveBadBatch
from vitrine.callbacks.checkpoints import model_checkpoints
from vitrine.callbacks.resume import ExactResume
from vitrine.callbacks.robust_validation import METRICS, RobustValidation
from vitrine.callbacks.signals import StopBetweenSteps
from vitrine.config.errors import as_setting_error
from vitrine.config.loading import Settings
from vitrine.core.network_scopes import full_isolation
from vitrine.core.settings import SettingError
from vitrine.datamodules import DATA
from vitrine.datamodules.base import ImageDataModule
from vitrine.examination.subject import choose_units
from vitrine.modules import OBJECTIVES, load_network, optimizers
from vitrine.modules.classifier import Classifier
from vitrine.reporting.page import PageSink
from vitrine.reporting.tensorboard_logger import BoardLogger
from vitrine.reporting.tensorboard_sink import TensorBoardSink
from vitrine.reporting.wandb_run import wandb_logger
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.checkpoint_io import AtomicCheckpointIO
from vitrine.runs.metrics_csv import MetricsCSV


def data(settings: Settings, in_turn: Callable[[], Any] = contextlib.nullcontext) -> ImageDataModule:
    """The images, drawn, loaded or found; `in_turn`: a scope for what only one process at a time may do."""
    with as_setting_error("data"):
        module = DATA[settings.data.name](settings.data, seed=settings.run.seed)
        with in_turn():
            module.prepare_data()
        module.setup()
    return module


def network(settings: Settings, images: ImageDataModule) -> nn.Module:
    """The network that `model` describes, for these images."""
    model = settings.model
    mean, std = model.mean, model.std
    if model.weights is None and mean is None and std is None:
        mean, std = images.mean, images.std
    with as_setting_error("model"):
        seed_everything(settings.run.seed, verbose=False)
        built = load_network(
            model.name,
            classes=images.classes,
            weights=model.weights,
            mean=mean,
            std=std,
            channels=images.channels,
            stem=model.stem,
            head=model.head,
            image_size=images.image_size,
            **model.options,
        )
        _try(built, images)
    return built


def _try(built: nn.Module, images: ImageDataModule) -> None:
    """One image through the network: a wrong size shows here, not after the first epoch's wait."""
    try:
        with torch.no_grad():
            built.eval()(torch.zeros(1, images.channels, images.image_size, images.image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        size = f"{images.channels} x {images.image_size} x {images.image_size}"
        raise ValueError(f"does not take images of {size} (data.image_size): {error}") from error
    finally:
        built.train()


def classifier(settings: Settings, images: ImageDataModule) -> Classifier:
    """The LightningModule: network, objective, optimizer."""
    built = network(settings, images)
    chosen = OBJECTIVES[settings.objective.name]
    values = {f.name: getattr(settings.objective, f.name) for f in dataclasses.fields(chosen)}
    with as_setting_error("objective"):
        objective = chosen(**values)
    with as_setting_error("optimizer"):
        optimizers.build_optimizer(
            settings.optimizer, built, steps=1000
        )  # errors now, not at the start of training
    with as_setting_error("model"):
        return Classifier(built, objective, settings.optimizer, images.classes, settings.model.compile)


def analyses(settings: Settings, network: nn.Module, images: ImageDataModule) -> dict[str, Analysis]:
    """Every analysis with its settings, enabled or not; the layers and units named are the network's."""
    probe = torch.zeros(1, images.channels, images.image_size, images.image_size)
    with as_setting_error("analysis"), full_isolation(network):
        choose_units(network.eval(), probe, settings.analysis.layers, settings.analysis.units)
    return {name: getattr(settings.analysis, name) for name in ANALYSES}


@dataclass
class Logs:
    """Where curves (`loggers`) and pictures (`sinks`) go, and what to tell the person about it."""

    loggers: list[Logger] = field(default_factory=list)
    sinks: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


def logs(settings: Settings, classes: Sequence[str], part: str = "alone") -> Logs:
    """The page and metrics.csv always; W&B and TensorBoard as `logging` says.

    Args:
        part: which this process plays among those that log to the run (gallery.wandb_share); "none" for a
            rank that only trains.
    """
    folder = settings.folder
    if part == "none":
        return Logs([MetricsCSV(folder)])  # as Lightning expects; it does not write there
    made = Logs([MetricsCSV(folder)], [PageSink(folder)])
    tree = OmegaConf.to_container(settings.tree)
    logger, note = wandb_logger(
        folder, settings.logging.wandb, name=settings.run.name, config=tree, part=part
    )
    made.notes.append(note)
    if logger is not None:
        made.loggers.append(logger)
        made.sinks.append(WandbSink(logger.experiment, classes, settings.logging.wandb.page, folder))
    if settings.logging.tensorboard:
        with as_setting_error("logging.tensorboard"):
            board = BoardLogger(folder, name="", version="tensorboard")
            made.sinks.append(TensorBoardSink(board.experiment))
        made.loggers.append(board)
    return made


def trainer(settings: Settings, last: Sequence[Callback] = ()) -> Trainer:
    """Lightning's Trainer with all that a run of ours needs but loggers; `last`: callbacks to come last."""
    made: list[Callback] = [
        ExactResume(),
        StopBetweenSteps(),
        LearningRateMonitor("step"),
        SaveBadBatch(settings.folder),
    ]
    _replayed(settings)
    kept = settings.checkpoint
    attacked = RobustValidation(settings.validation, settings.run.seed, settings.objective)
    if attacked.count:
        made.append(attacked)  # before the averaged weights are put away
        if kept.monitor is None:
            kept = dataclasses.replace(kept, monitor="val/robust_accuracy", mode="max")
    elif kept.monitor in [f"val/{name}" for name in METRICS]:
        problem = f"is {kept.monitor}, which nothing measures: give validation.robust_images"
        raise SettingError("checkpoint.monitor", problem)
    if settings.optimizer.ema:
        made.append(EMAWeightAveraging(decay=settings.optimizer.ema))
    made += model_checkpoints(settings.folder, kept)
    quiet()
    with as_setting_error("trainer"):
        return Trainer(
            **settings.trainer,
            callbacks=[*made, *last],
            logger=False,  # they come when the run's folder is there
            plugins=[AtomicCheckpointIO()],
            default_root_dir=settings.folder,
            use_distributed_sampler=False,
        )


def _replayed(settings: Settings) -> None:
    """Raise SettingError where gradients are to be gathered over batches that are replayed."""
    replays = settings.objective.replays
    gathered = settings.trainer.get("accumulate_grad_batches") or 1
    if replays > 1 and gathered > 1:
        problem = (
            f"is {gathered} beside objective.replays={replays}, expected 1: each replay is an optimizer step"
        )
        raise SettingError("trainer.accumulate_grad_batches", problem)


def device(settings: Settings) -> torch.device:
    """Where training would be, for programs that have no Trainer."""
    if settings.trainer.get("accelerator", "auto") != "cpu" and torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


def quiet() -> None:
    """Lightning says which devices it sees, at length; a run of ours says what it does, in a line.

    Of several ranks' values it says that they should be brought together, which torchmetrics has done.
    """
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for said in (
        ".*LeafSpec.*",
        ".*smaller than the logging interval.*",
        ".*does not have many workers.*",
        ".*sync_dist=True.*",
    ):
        warnings.filterwarnings("ignore", said)
