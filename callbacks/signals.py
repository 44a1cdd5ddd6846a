"""Ctrl-C and SIGUSR1 raise a flag; the step is finished before anything stops."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)


class StopBetweenSteps(Callback):
    """Ends training after the step in which the signal came, where a checkpoint is exact; a second signal
    ends it at once. (SIGTERM is Lightning's own: it raises a flag as well and stops after the step.)

    Attributes:
        received: the signal that came, or None.
    """

    def __init__(self, signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGUSR1)):
        self.signals = signals
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # python allows it nowhere else
            self.received = None
            self._before = {s: signal.signal(s, self._note) for s in self.signals}

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self.received is not None:
            raise KeyboardInterrupt(f"{self.received.name} at step {trainer.global_step}")

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._put_back()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._put_back()

    def _note(self, number: int, _frame: Any) -> None:
        self.received = signal.Signals(number)
        self._put_back()
        log.warning("%s: stopping after this step; once more to stop at once", self.received.name)

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
