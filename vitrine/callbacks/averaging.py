"""Averaged weights that resume exactly from an interrupted validation too."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging


class ExactWeightAveraging(WeightAveraging):
    """Lightning's averaged weights, exact in a checkpoint written after an exception.

    For a validation the averaged weights change places with the current ones. After an exception within it
    they change back here, before callbacks that write checkpoints are called: else each would be saved, and
    resumed, as the other.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._swapped = False

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._swapped = True

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._swapped = False

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if self._swapped:
            self.on_validation_epoch_end(trainer, pl_module)


class ExactEMA(ExactWeightAveraging, EMAWeightAveraging):
    """The exponential moving average of the weights."""

    @property
    def state_key(self) -> str:
        return EMAWeightAveraging.__qualname__  # as in checkpoints of runs that had the base class
