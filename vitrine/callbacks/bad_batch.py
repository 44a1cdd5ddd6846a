"""Which images made the loss NaN or infinite."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback

from vitrine.core import atomic
from vitrine.modules.finite import NonFinite
from vitrine.runs.checkpoint_files import last_good_checkpoint

log = logging.getLogger(__name__)


class SaveBadBatch(Callback):
    """Writes `nan_batch.json` where training ends because the loss, or the weights, are not finite: `step`,
    `loss`, and `indices` of the batch's images in the training split.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: str | Path):
        self.folder = Path(run_dir)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if not isinstance(exception, NonFinite):
            return
        file = self.folder / "nan_batch.json"
        if trainer.is_global_zero:
            # JSON has no NaN
            loss = None if exception.loss is None else str(exception.loss)
            content = {"step": exception.step, "loss": loss, "indices": exception.indices}
            try:
                atomic.write_json(file, content)
            except OSError:
                log.exception("%s could not be written", file)
        good = last_good_checkpoint(self.folder)
        exception.add_note(f"the batch is in {file}")
        exception.add_note(f"the last good checkpoint is {good}" if good else "there is no checkpoint yet")
