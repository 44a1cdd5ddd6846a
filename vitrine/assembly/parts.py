"""Data, network, LightningModule and analyses, from settings."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import nn

from vitrine.analyses import ANALYSES
from vitrine.analyses.base import Analysis
from vitrine.config.errors import as_setting_error
from vitrine.config.loading import Settings
from vitrine.core.class_names import refuse_other_classes
from vitrine.core.home import absolute_path
from vitrine.core.input_copies import copy_input_if_written
from vitrine.core.network_scopes import full_isolation
from vitrine.core.references import absolute_reference, is_reference
from vitrine.core.settings import SettingError
from vitrine.datamodules import source
from vitrine.datamodules.base import ImageDataModule
from vitrine.datamodules.drawing_ahead import DrawingAhead
from vitrine.datamodules.file_settings import FileSettings
from vitrine.examination.checks import check_analyses
from vitrine.examination.examiner import Examiner
from vitrine.modules import OBJECTIVES, load_checkpoint, load_network
from vitrine.modules.classifier import Classifier
from vitrine.modules.foreign_networks import check_existence, zoo_of
from vitrine.modules.network_names import is_foreign
from vitrine.modules.network_record import record_of
from vitrine.modules.objectives.base import Objective
from vitrine.modules.output_check import check_logits
from vitrine.runs.store import Store

log = logging.getLogger(__name__)


def build_data(
    settings: Settings,
    prepare_scope: Callable[[], Any] = contextlib.nullcontext,
    ahead: DrawingAhead | None = None,
) -> ImageDataModule:
    """The data module, set up.

    Args:
        prepare_scope: entered while data are downloaded or unpacked.
        ahead: draws the training images already, if they are those of these settings; else it is ended.
    """
    _adopt_preprocessing(settings)
    with as_setting_error("data"):
        module = source(settings.data.name)(settings.data, seed=settings.run.seed)
        if ahead is not None and ahead.is_of(settings.data, settings.run.seed):
            module.ahead = ahead
        elif ahead is not None:
            ahead.end()
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
    data.fit = own.fit if data.fit == "auto" else data.fit
    data.image_size = data.image_size or own.image_size
    if data.fit == "crop" and not data.resize:
        data.resize = round(data.image_size * own.resize / own.image_size)


def check_network(settings: Settings) -> None:
    """Raise SettingError unless there is a network of `model.name`: before data take their time.

    Paths of a file of code or weights become absolute: a run is found again from everywhere.
    """
    model = settings.model
    if is_reference(model.name):
        model.name = absolute_reference(model.name)
    if model.weights is not None and (file := absolute_path(model.weights)).suffix and file.is_file():
        model.weights = str(file)
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
        copy_input_if_written(network, torch.zeros(1, data.channels, data.image_size, data.image_size))
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
    """The LightningModule that measures a trained network as validation does.

    Raises:
        SettingError: it was trained on other classes.
    """
    _check_classes(network, data)
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
        SettingError: a layer or unit that the network does not have; what an analysis cannot be made with; a
            device that is not here, unless analyses run elsewhere or not at all.
    """
    analyses = {name: getattr(settings.analysis, name) for name in ANALYSES}
    probe = torch.zeros(1, data.channels, data.image_size, data.image_size)
    if settings.analysis.mode == "train":
        settings.analysis.check_device()
    with as_setting_error("analysis"), full_isolation(network):
        check_analyses(analyses, settings.analysis, network.eval(), probe)
    return analyses


def build_examiner(
    settings: Settings, network: nn.Module, data: ImageDataModule, *, retry: bool = False
) -> Examiner:
    """The Examiner of a run's checkpoints, of which `network` is one, without sinks.

    Raises:
        SettingError: as `build_analyses`; the network was trained on other classes.
    """
    _check_classes(network, data)
    settings.analysis.check_device()
    analyses, store = build_analyses(settings, network, data), Store(settings.folder)
    device = training_device(settings)
    return Examiner(analyses, data, settings.analysis, store, device=device, retry=retry)


def _check_classes(network: nn.Module, data: ImageDataModule) -> None:
    record = record_of(network)
    refuse_other_classes(data.classes, None if record is None else record.classes, "the network")


def training_device(settings: Settings) -> torch.device:
    """The device that training would use, for programs that have no Trainer."""
    if settings.trainer.get("accelerator", "auto") != "cpu" and torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")
