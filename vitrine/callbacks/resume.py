"""Where a run goes on after it was cut off, and what it needs to end as if it had not been."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from vitrine.callbacks.lightning_internals import begin_next_epoch, restore_loader_state, set_logged_step
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
        restore_loader_state(trainer)
        begin_next_epoch(trainer)
        if self._state:
            random_state.restore(self._state[self._ranks.rank % len(self._state)])
            self._state = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        set_logged_step(trainer)
