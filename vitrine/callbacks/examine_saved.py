"""When checkpoints are examined: in the first hook after each was written."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vitrine.analyses.result import CheckpointReport
from vitrine.core.settings import RunAborted
from vitrine.examination.budget import Allowance
from vitrine.examination.examiner import Examiner
from vitrine.examination.summary import summarize


class ExamineSaved(lightning.Callback):
    """The base of the callbacks that examine checkpoints: it knows when, they know what and how.

    A subclass notes in `saved` what is to be examined, and examines it in `examine`, on all ranks.

    A checkpoint that an interrupt saved (Ctrl-C, SIGTERM) is left to the next start. After an exception
    several ranks examine nothing, as it may have been raised on one of them alone.

    Attributes:
        examiner: of this run.
        allowance: of seconds.
        saved: what has not been examined yet; None: nothing.
    """

    examiner: Examiner
    allowance: Allowance
    saved: Any = None

    def examine(self, trainer: lightning.Trainer, saved: Any, seconds_allowed: float | None) -> None:
        """Examine what was noted in `saved`."""
        raise NotImplementedError(f"{type(self).__name__} does not define examine")

    @property
    def reports(self) -> list[CheckpointReport]:
        """Of every checkpoint examined, in order."""
        return self.examiner.reports

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.allowance.start()
        self._examine_saved(trainer)

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._examine_saved(trainer)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._examine_saved(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._examine_saved(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._examine_saved(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._examine_saved(trainer)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        not_saved = isinstance(exception, RunAborted) and exception.weights_unusable
        # after an interrupt nobody waits for analyses
        if isinstance(exception, Exception) and not not_saved and self.examiner.ranks.world_size == 1:
            self.examiner.strict = False  # the exception that ends the training is the one to be seen
            self._examine_saved(trainer)
        rank_zero_info(summarize(self.reports))

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._examine_saved(trainer)
        rank_zero_info(summarize(self.reports))

    def _examine_saved(self, trainer: lightning.Trainer) -> None:
        if self.saved is None or trainer.sanity_checking:
            return
        saved, self.saved = self.saved, None
        allowed, start = self.allowance.available(), self.allowance.clock()
        self.examine(trainer, saved, allowed)
        self.allowance.charge(allowed, self.allowance.clock() - start)
