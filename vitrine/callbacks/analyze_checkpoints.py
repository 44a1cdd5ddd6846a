"""Analyses at every checkpoint of a training run, exactly once, whatever wrote it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn

from vitrine.analyses.base import Analysis, Subject
from vitrine.analyses.result import CheckpointReport
from vitrine.core.network_scopes import full_isolation
from vitrine.distributed import interruption
from vitrine.distributed.ranks import ALONE, ranks_of
from vitrine.examination.budget import Allowance
from vitrine.examination.examine import (
    AnalysisSettings,
    assist,
    examine,
    missing,
    summary,
    weights_hash,
)
from vitrine.examination.subject import make_subject
from vitrine.runs.checkpoint_files import checkpoint_files, find_damage
from vitrine.runs.store import Store

log = logging.getLogger(__name__)


class AnalyzeCheckpoints(Checkpoint):
    """Looks at each checkpoint as soon as its file is written. List it after the callbacks that write them.

    Lightning has no hook for that: `on_save_checkpoint` comes before the file, and twice where a step has
    two files. So the step is noted there, and looked at in the next hook, from the file: averaged weights
    are seen as they were saved, and `analyze.py` sees the same.

    With `settings.mode` of "follow" nothing is looked at here: others do it (`analyze.py RUN follow=true`).

    What was saved by an interrupt (Ctrl-C, SIGTERM) is left for the next start, as is what a kill cut off: a
    resumed run first catches up on the checkpoints that lie in `folder`.

    Several ranks look together (callbacks.division): the first decides at which file, writes and tells the
    sinks; all load the file, so that it must lie where all can read it. What it raises, all raise. After an
    exception they do not look, as it may have struck one of them alone.

    Args:
        run_dir: the run; checkpoints are looked for in `run_dir/checkpoints`.
        analyses: by name, as registered.
        sinks: where pictures go beside the store (gallery.sinks.Sink).
        load: a checkpoint file to its network, in eval mode; `modules.load_checkpoint` unless given.

    Attributes:
        reports: one for each checkpoint looked at, in order.
    """

    def __init__(
        self,
        run_dir: str | Path,
        analyses: Mapping[str, Analysis],
        settings: AnalysisSettings,
        sinks: Iterable[Any] = (),
        load: Callable[[Path], nn.Module] | None = None,
    ):
        self.folder = Path(run_dir) / "checkpoints"
        self.store = Store(run_dir)
        self.analyses, self.settings, self.sinks = dict(analyses), settings, list(sinks)
        self.load = load or _load_checkpoint
        self.reports: list[CheckpointReport] = []
        self.allowance = Allowance(settings.budget)
        self.ranks = ALONE
        self._noted: int | None = None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.ranks = ranks_of(trainer)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.ckpt_path or self.settings.mode == "follow":
            return  # what may lie here is not of this training
        self._look_at(trainer, self._missed())

    def _missed(self) -> Iterator[tuple[int, Path]]:
        """The checkpoints that lack pictures, with their steps."""
        for step, file in checkpoint_files(self.folder):
            results = self.store.results(step)
            if all(name in results for name, analysis in self.analyses.items() if analysis.enabled):
                continue
            if damage := find_damage(file):
                log.warning("passed over %s: %s", file, damage)
                continue
            log.info("catching up on the analyses of step %d", step)
            yield step, file

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not trainer.sanity_checking and self.settings.mode == "train":
            self._noted = checkpoint["global_step"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.allowance.start()
        self._look_at_noted(trainer)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._look_at_noted(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._look_at_noted(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._look_at_noted(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._look_at_noted(trainer)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if getattr(exception, "weights_unusable", False):
            self._noted = None  # its file was not written
        # whoever interrupts does not want to wait for pictures
        if isinstance(exception, Exception) and self.ranks.count == 1:
            self._look_at_noted(trainer, strict=False)
        rank_zero_info(self.summary())

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        rank_zero_info(self.summary())

    def summary(self) -> str:
        """What was made, how long it took and what failed, in a line and one more for each failure."""
        return summary(self.reports)

    def seconds(self) -> str:
        """Where the time went: "examples 12.3, cam 4.5", most first."""
        spent: Counter[str] = Counter()
        for report in self.reports:
            spent.update(report.seconds)
        return ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.most_common())

    def _look_at_noted(self, trainer: lightning.Trainer, strict: bool | None = None) -> None:
        if self._noted is None or trainer.sanity_checking:
            return
        step, self._noted = self._noted, None
        allowed, begun = self.allowance.seconds(), self.allowance.clock()
        self._look_at(trainer, self._written(step), strict, allowed)
        self.allowance.spent(allowed, self.allowance.clock() - begun)

    def _written(self, step: int) -> Iterator[tuple[int, Path]]:
        """The checkpoint of a step, if its file is there."""
        file = next((file for s, file in checkpoint_files(self.folder, newest_first=True) if s == step), None)
        if file is None:
            log.warning(
                "the checkpoint of step %d is not in %s: its analyses are left out", step, self.folder
            )
            return
        yield step, file

    def _look_at(
        self,
        trainer: lightning.Trainer,
        files: Iterable[tuple[int, Path]],
        strict: bool | None = None,
        allowed: float | None = None,
    ) -> None:
        """Look at checkpoint files, given with their steps; all ranks do, and the first one's files count."""
        strict = self.settings.strict if strict is None else strict
        if self.ranks.count > 1:
            interruption.defer()
        if not self.ranks.first:
            self._assist(trainer)
            return
        failure = None
        try:
            for step, file in files:
                self._look(trainer, step, file, strict, allowed)
        except BaseException as error:
            failure = error
            raise
        finally:
            self.ranks.dismiss(failure)

    def _look(
        self, trainer: lightning.Trainer, step: int, file: Path, strict: bool, allowed: float | None
    ) -> None:
        """Examine a checkpoint file; whatever goes wrong is logged and counted, or raised where strict."""
        report = CheckpointReport(step)
        try:
            with full_isolation():  # building a network draws random numbers, and so may a sink
                report = self._examine(trainer, step, file, strict, allowed) or report
        except Exception as error:
            if strict:
                raise
            log.exception("the checkpoint of step %d could not be looked at", step)
            report.failures["checkpoint"] = f"{type(error).__name__}: {error}"
        if report.results or report.failures:
            self.reports.append(report)

    def _examine(
        self, trainer: lightning.Trainer, step: int, file: Path, strict: bool, allowed: float | None
    ) -> CheckpointReport | None:
        network = self.load(file)
        weights = weights_hash(network)
        if not missing(self.store, step, self.analyses, weights):
            return None
        self.ranks.tell((step, file, weights))
        subject = self.ranks.together(lambda _: self._subject(trainer, step, network))
        return examine(
            subject,
            self.analyses,
            self.store,
            self.sinks,
            weights=weights,
            strict=strict,
            allowed=allowed,
            ranks=self.ranks,
        )

    def _assist(self, trainer: lightning.Trainer) -> None:
        """Help the first rank, at whatever it looks, until it sends away; raises what it raised."""
        while (order := self.ranks.hear()) is not None:
            step, file, weights = order

            def prepared(_: Any, step: int = step, file: Path = file, weights: str = weights) -> Subject:
                network = self.load(file)
                if weights_hash(network) != weights:
                    raise ValueError(f"{file} holds other weights here")
                return self._subject(trainer, step, network)

            with full_isolation():
                try:
                    subject = self.ranks.together(prepared)
                except Exception:  # the first rank reports it
                    log.exception("the checkpoint of step %d could not be looked at", step)
                else:
                    assist(subject, self.analyses, self.store, weights, self.ranks)

    def _subject(self, trainer: lightning.Trainer, step: int, network: nn.Module) -> Subject:
        return make_subject(
            network,
            trainer.datamodule,
            self.settings,
            step,
            previous=self.store.previous(step),
            device=trainer.strategy.root_device,
        )


def _load_checkpoint(file: Path) -> nn.Module:
    from vitrine.modules import load_checkpoint

    return load_checkpoint(file)
