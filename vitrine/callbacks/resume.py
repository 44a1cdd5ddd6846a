"""Exact resume: a resumed run ends like an uninterrupted one."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from vitrine.callbacks.lightning_internals import (
    begin_next_epoch,
    repeat_validation,
    restore_loader_state,
    set_logged_step,
)
from vitrine.core import random_state
from vitrine.distributed.ranks import SINGLE_PROCESS, ranks_of_trainer
from vitrine.runs.resumable_logger import ResumableLogger


class ExactResume(Callback):
    """Saves the states of the random number generators in checkpoints, and restores them.

    They are restored right before the first batch, as setting up draws random numbers as well. Each rank
    gets its own back; with another number of ranks they are assigned in turn. A `ResumableLogger` drops what
    the interrupted run logged after the checkpoint. A validation that was interrupted is repeated.

    List it first.
    """

    def __init__(self) -> None:
        self._state: list[dict[str, Any]] = []
        self._ranks = SINGLE_PROCESS
        self._before_validation: dict[str, Any] | None = None  # random state; None outside of validations
        self._repeat_validation = False

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._ranks = ranks_of_trainer(trainer)

    def state_dict(self) -> dict[str, Any]:
        state = self._before_validation or random_state.capture()
        validating = self._before_validation is not None
        return {"random": self._ranks.all_gather(state), "validating": validating}  # all ranks save at once

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        saved = state_dict["random"]
        self._state = saved if isinstance(saved, list) else [saved]  # earlier checkpoints have one state
        self._repeat_validation = state_dict.get("validating", False)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, ResumableLogger):
                logger.rewind(trainer.global_step)
        restore_loader_state(trainer)
        begin_next_epoch(trainer)
        if self._repeat_validation:
            repeat_validation(trainer)
            self._repeat_validation = False
        if self._state:
            random_state.restore(self._state[self._ranks.rank % len(self._state)])
            self._state = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        set_logged_step(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._before_validation = random_state.capture()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._before_validation = None
