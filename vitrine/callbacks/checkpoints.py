"""When a run writes checkpoints, and which of them are kept."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint

from vitrine.callbacks.lightning_internals import ExplicitModelCheckpoint, validation_is_due
from vitrine.core import atomic
from vitrine.core.settings import RunAborted, SettingError, setting

log = logging.getLogger(__name__)


@dataclass
class CheckpointSettings:
    every_epochs: int | None = setting(
        None, "a checkpoint every so many epochs; 1 unless every_steps is given", least=1
    )
    every_steps: int | None = setting(None, "a checkpoint every so many optimizer steps, instead", least=1)
    keep: int | None = setting(
        None, "how many of the newest checkpoints are kept (pictures always are); null: all", least=1
    )
    monitor: str | None = setting(
        None,
        "a validation metric; best.ckpt is the best checkpoint by it; null: val/robust_accuracy "
        "where it is measured",
    )
    mode: str = setting(
        "max", "whether a higher or a lower value of the metric is better", choices=("max", "min")
    )
    at_start: bool = setting(False, "also a checkpoint of the untrained network")


def model_checkpoints(run_dir: str | Path, settings: CheckpointSettings) -> list[ModelCheckpoint]:
    """The callbacks that write `checkpoints/step=00000500.ckpt`, `last.ckpt` (a link to it) and `best.ckpt`.

    Raises:
        SettingError: both every_epochs and every_steps are set.
    """
    if settings.every_epochs and settings.every_steps:
        raise SettingError(
            "checkpoint.every_steps",
            f"is {settings.every_steps} beside every_epochs={settings.every_epochs}, expected one of the two",
        )
    folder = Path(run_dir) / "checkpoints"
    callbacks: list[ModelCheckpoint] = [
        StepCheckpoints(
            folder,
            every_epochs=None if settings.every_steps else settings.every_epochs or 1,
            every_steps=settings.every_steps,
            keep=settings.keep,
            at_start=settings.at_start,
        )
    ]
    if settings.monitor:
        best = RunCheckpoints(
            folder, "best", monitor=settings.monitor, mode=settings.mode, enable_version_counter=False
        )
        callbacks.insert(0, best)  # first, as a run resumes from the last file of a step
    return callbacks


class RunCheckpoints(ExplicitModelCheckpoint):
    """Lightning's ModelCheckpoint in a folder of the run's own; removes leftovers of an interrupted run."""

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        with warnings.catch_warnings():  # that the folder is not empty, as it is in a resumed run
            warnings.simplefilter("ignore")
            super().setup(trainer, pl_module, stage)
        if trainer.is_global_zero:
            atomic.sweep(Path(self.dirpath), "*.ckpt", even_live=True)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, whose files are in this folder: the run may have been moved or copied."""

        def here(file: str) -> str:
            return str(Path(self.dirpath, Path(file).name)) if file else file

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {"dirpath": self.dirpath} | {name: here(state_dict[name]) for name in paths}
        moved["best_k_models"] = {here(file): value for file, value in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | moved)


class StepCheckpoints(RunCheckpoints):
    """Lightning's ModelCheckpoint, with file names by step, and these differences:

    - The newest `keep` are kept, whatever the metrics are, and a step has one file.
    - Where a validation is due after a step, the checkpoint is written after it, and after an epoch's last
      step it is written after the epoch's end: a run killed in between would not repeat them.
    - There is a checkpoint at the end of training, whatever the step; with `at_start` also at the start.
    - After an exception there is one only if it was raised between two steps and the weights are finite:
      within a step some of the state has changed and some has not, and no run could resume exactly from it.
      The last regular checkpoint remains.
    - A resumed run does not rewrite the checkpoint that it was resumed from.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_epochs: int | None = None,
        every_steps: int | None = None,
        keep: int | None = None,
        at_start: bool = False,
    ):
        super().__init__(
            dirpath=folder,
            filename="{step:08d}",
            monitor="step",
            mode="max",
            save_top_k=keep or -1,
            save_last="link",
            save_on_exception=True,
            every_n_epochs=every_epochs,
            every_n_train_steps=every_steps,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.at_start = at_start
        self._training = False
        self._deferred = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._training = True
        self._deferred = trainer.fit_loop.epoch_loop.val_loop.restarted_mid_evaluation
        if trainer.ckpt_path and not self._deferred:  # else it is replaced after the validation
            self.set_saved(trainer, trainer.ckpt_path)
        elif self.at_start and not trainer.fast_dev_run:
            self.save_now(trainer)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._deferred = validation_is_due(trainer) or trainer.is_last_batch
        if not self._deferred:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._deferred and not trainer.sanity_checking:
            self._deferred = False
            super().on_train_batch_end(trainer, pl_module, None, None, 0)
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._deferred:
            self._deferred = False
            super().on_train_batch_end(trainer, pl_module, None, None, 0)
        super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._training = False
        if self.may_save(trainer):
            self.save_now(trainer)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if not (self._training and between_steps(trainer)):
            return
        if isinstance(exception, RunAborted) and exception.weights_unusable:
            return
        if trainer.world_size > 1 and isinstance(exception, Exception):
            return  # this rank alone may have raised it, and saving takes all of them
        try:
            super().on_exception(trainer, pl_module, exception)
        except OSError:  # the disk may be full: do not hide the first exception
            log.exception("no checkpoint could be written after %s", type(exception).__name__)


def between_steps(trainer: Any) -> bool:
    """Whether all hooks of the batches and epochs so far have run, and no others; validations aside."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current
    epochs = trainer.fit_loop.epoch_progress.current
    return (
        batches.ready == batches.completed
        and epochs.ready == epochs.started
        and epochs.processed == epochs.completed
    )
