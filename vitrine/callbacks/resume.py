"""Where a run goes on after it was cut off, and what it needs to end as if it had not been."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.fit_loop import RestartStage
from lightning.pytorch.loops.loop import _Loop

from vitrine.core import random_state
from vitrine.distributed.ranks import ALONE, ranks_of


class ExactResume(Callback):
    """Keeps the random number generators in the checkpoint, so that a resumed run draws what the cut one
    would have drawn.

    They are put back as the last thing before the first batch: setting up draws from them as well. Each rank
    has its own back; with fewer or more ranks than the run had, they are shared out in turn. Loggers
    that can (`rewind(step)`) forget what the cut run logged beyond the checkpoint.
    """

    def __init__(self) -> None:
        self._state: list[dict[str, Any]] = []
        self._ranks = ALONE

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._ranks = ranks_of(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"random": self._ranks.gather(random_state.capture())}  # all ranks are asked when one saves

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        saved = state_dict["random"]
        self._state = saved if isinstance(saved, list) else [saved]  # one, in checkpoints of before

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        for logger in trainer.loggers:
            if hasattr(logger, "rewind"):
                logger.rewind(trainer.global_step)
        _place_loaders(trainer.fit_loop)
        _leave_finished_epoch(trainer.fit_loop)
        if self._state:
            random_state.restore(self._state[self._ranks.rank % len(self._state)])
            self._state = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        # Loggers count by this. Lightning (2.6) adds one to what a checkpoint says of it: one too many where
        # the checkpoint was written after the step's end, as it is after an exception.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def _place_loaders(loop: Any) -> None:
    """Tell the training loader where it was.

    Lightning (2.6) does, but not where the loader was made before the checkpoint was read, as it is when an
    optimizer's schedule asks for `trainer.estimated_stepping_batches`.
    """
    if loop.restarting and loop._combined_loader_states_to_load:
        loop._load_combined_loader_states()
        iter(loop._data_fetcher)


def _leave_finished_epoch(loop: Any) -> None:
    """Resumed where an epoch ended, begin the next one.

    With `max_steps`, Lightning (2.6) goes back into the epoch, ends it once more and counts it twice:
    `max_epochs` then comes an epoch early. Without `max_steps` it does what is done here.
    """
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        _Loop.restarting.fset(loop, False)
        loop._restart_stage = RestartStage.RESUMED_ON_EPOCH_END
        loop.epoch_loop.reset_restart_stage()
