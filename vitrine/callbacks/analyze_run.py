"""Analyses at every checkpoint of a run of ours, exactly once, whatever wrote it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from vitrine.analyses.base import Analysis
from vitrine.callbacks.examine_saved import ExamineSaved
from vitrine.distributed import interruption
from vitrine.distributed.ranks import ranks_of_trainer
from vitrine.examination.budget import Allowance
from vitrine.examination.examiner import Examiner
from vitrine.examination.settings import AnalysisSettings
from vitrine.modules import load_checkpoint
from vitrine.runs.checkpoint_files import checkpoint_files, find_damage
from vitrine.runs.store import Store

log = logging.getLogger(__name__)


class AnalyzeRun(ExamineSaved, Checkpoint):
    """Examines each checkpoint as soon as its file is written. List it after the callbacks that write them.

    Lightning has no hook for that: `on_save_checkpoint` comes before the file, and twice where a step has
    two files. So the step is remembered there, and examined in the next hook, from the file: averaged weights
    are examined as they were saved, and `analyze.py` examines the same.

    With `settings.mode` of "follow" or "off" nothing is examined here, but by `analyze.py RUN follow=true`
    meanwhile, or by `analyze.py RUN` later.

    A resumed run first catches up on the checkpoints in `run_dir/checkpoints`, as that of an interrupt and
    one whose examination was killed.

    Several ranks examine together (`Examiner`): rank 0 chooses the file, and all load it, so that it must lie
    where all can read it.

    Args:
        run_dir: the run; checkpoints are looked for in `run_dir/checkpoints`.
        analyses: by name, as registered.
        settings: for all analyses.
        sinks: where pictures go beside the store (reporting.sinks.Sink).
        load: a checkpoint file to its network, in eval mode.
    """

    def __init__(
        self,
        run_dir: str | Path,
        analyses: Mapping[str, Analysis],
        settings: AnalysisSettings,
        sinks: Iterable[Any] = (),
        load: Callable[[Path], nn.Module] = load_checkpoint,
    ):
        self.folder = Path(run_dir) / "checkpoints"
        self.settings, self.load = settings, load
        self.examiner = Examiner(analyses, None, settings, Store(run_dir), sinks)
        self.allowance = Allowance(settings.budget)

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.examiner.data, self.examiner.device = trainer.datamodule, trainer.strategy.root_device
        self.examiner.ranks = ranks_of_trainer(trainer)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.ckpt_path and self.settings.mode == "train":  # else files may be of another run
            self._examine(self._unexamined)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not trainer.sanity_checking and self.settings.mode == "train":
            self.saved = checkpoint["global_step"]

    def examine(self, trainer: lightning.Trainer, saved: int, seconds_allowed: float | None) -> None:
        """Examine the checkpoint of the step `saved`."""
        self._examine(lambda: self._file_of(saved), seconds_allowed)

    def _examine(
        self, find: Callable[[], Iterable[tuple[Path, int]]], seconds_allowed: float | None = None
    ) -> None:
        """Examine the files, with their steps, that `find` finds on rank 0; all ranks call this."""
        ranks = self.examiner.ranks
        if ranks.world_size > 1:
            interruption.defer()
        found = ranks.run_collective(
            lambda all_gather: all_gather(list(find()) if ranks.is_global_zero else [])[0]
        )
        for file, step in found:
            self.examiner.examine_loaded(partial(self.load, file), step, seconds_allowed)

    def _unexamined(self) -> Iterator[tuple[Path, int]]:
        """The checkpoints that lack analyses."""
        for step, file in checkpoint_files(self.folder):
            if self.examiner.analyses.keys() <= self.examiner.store.results(step).keys():
                continue
            if damage := find_damage(file):
                log.warning("passed over %s: %s", file, damage)
                continue
            log.info("catching up on the analyses of step %d", step)
            yield file, step

    def _file_of(self, step: int) -> Iterator[tuple[Path, int]]:
        """The checkpoint of a step, if there is one."""
        files = [file for at, file in checkpoint_files(self.folder, newest_first=True) if at == step]
        if files:
            yield files[0], step
        else:
            log.warning("the checkpoint of step %d is not in %s: it is not analyzed", step, self.folder)
