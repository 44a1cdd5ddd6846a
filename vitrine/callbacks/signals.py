"""A signal ends training after the step in which it came, on every rank after the same one."""

from __future__ import annotations

import time
from signal import Signals
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from vitrine.callbacks.lightning_internals import (
    call_between_batches,
    disable_signal_handling,
    is_accumulating,
)
from vitrine.distributed import interruption
from vitrine.distributed.interruption import Interrupted

SYNC_SECONDS = 1.0  # about so often several ranks tell one another of signals


class StopBetweenSteps(Callback):
    """Raises `interruption.Interrupted` after a signal: between two optimizer steps, when all hooks of the
    first have run, or between two batches of validation, as checkpoints are exact there. List it first, after
    `ExactResume`.

    Several ranks synchronise about once a second (an all-reduce of two numbers over gloo, which no GPU waits
    for), and stop together even if the signal reached only one of them.

    Lightning's own signal handlers are disabled where ours are installed (`interruption.handle_signals`).
    """

    def __init__(self) -> None:
        self._group: Any = None
        self._sync_every, self._calls, self._synced_at = 1, 0, 0.0  # calls since the last synchronisation
        self._common_batches = 0.0  # of validation: those that every rank has

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if interruption.signals_are_handled():
            disable_signal_handling(trainer)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.world_size > 1 and dist.is_initialized():
            self._group = dist.new_group(backend="gloo")
            self._sync_every, self._calls, self._synced_at = 1, 0, time.monotonic()
        else:
            interruption.check()  # before the first step there is nothing to save
        interruption.defer()
        call_between_batches(trainer, lambda: self._stop_between_batches(trainer))

    def _stop_between_batches(self, trainer: lightning.Trainer) -> None:
        if not is_accumulating(trainer):  # within a step accumulated gradients would be lost
            self._raise_if_signalled()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._group is not None:
            batches = torch.tensor(float(sum(trainer.num_val_batches)), dtype=torch.float64)
            dist.all_reduce(batches, dist.ReduceOp.MIN, group=self._group)
            self._common_batches = batches.item()
        if not trainer.sanity_checking:
            self._raise_if_signalled()

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if not trainer.sanity_checking and (self._group is None or batch_idx < self._common_batches):
            self._raise_if_signalled()

    def _raise_if_signalled(self) -> None:
        number = interruption.received() if self._group is None else self._synchronised_signal()
        if number is not None:
            if interruption.received() is None:
                interruption.announce(number, "stopping, as another rank received it")
            raise Interrupted(number)

    def _synchronised_signal(self) -> Signals | None:
        """The signal that any rank received, the same on all ranks; None between synchronisations."""
        self._calls += 1
        if self._calls < self._sync_every:
            return None
        now = time.monotonic()
        seconds = (now - self._synced_at) / self._calls
        values = torch.tensor([float(interruption.received() or 0), seconds], dtype=torch.float64)
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self._group)
        number, seconds = values.tolist()
        self._sync_every = max(1, min(100, int(SYNC_SECONDS / max(seconds, 1e-3))))  # the same on every rank
        self._calls, self._synced_at = 0, now
        return Signals(int(number)) if number else None
