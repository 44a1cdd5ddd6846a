"""Analyses at every checkpoint of anybody's training with Lightning."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn

from vitrine.analyses import choose_analyses
from vitrine.analyses.base import Analysis
from vitrine.callbacks.examine_saved import ExamineSaved
from vitrine.callbacks.foreign_trainer import (
    Snapshot,
    claim_folder,
    copy_at_checkpoint,
    has_same_data,
    held_weights,
    loader_of,
    log_curves,
    logger_sinks,
    picture_folder,
    read_state,
    refuse_sharding,
    run_name,
    training_of,
    verify_file,
)
from vitrine.callbacks.lightning_internals import make_validation_loaders
from vitrine.callbacks.network_input import NetworkInput
from vitrine.callbacks.noting_save import NotingSave
from vitrine.core.network_scopes import full_isolation, unwrapped
from vitrine.datamodules.foreign import ForeignData, class_names
from vitrine.datamodules.steady_images import examined_split
from vitrine.distributed.ranks import ranks_of_trainer
from vitrine.examination.budget import Allowance
from vitrine.examination.checks import check_analyses
from vitrine.examination.examiner import Examiner
from vitrine.examination.settings import AnalysisSettings
from vitrine.modules.network_search import checked_copy, find_network, network_logits
from vitrine.reporting.page import PageSink
from vitrine.runs.metrics_csv import MetricsCSV
from vitrine.runs.run_record import RunRecord
from vitrine.runs.store import Store

log = logging.getLogger(__name__)


class AnalyzeCheckpoints(ExamineSaved):
    """Examines the network that a Trainer trains, at every checkpoint that is saved.

        trainer = lightning.Trainer(callbacks=[AnalyzeCheckpoints()], ...)

    What is examined is a copy of the network with the weights that the checkpoint file holds (averaged ones
    as they are saved), so that neither the file's content nor its place matters. Training is not touched: it
    ends in the same weights, bit for bit, as without. All is checked at the start of training,
    before the first step: a network that gives no logits, images whose normalisation is unknown, and wrong
    settings raise a ValueError there. Later failures are logged, shown on the page, and cost no training.

    Pictures go to a page (its path is the last line of the training) and to the W&B and TensorBoard loggers
    that the Trainer has, in their own runs, which stay their owner's.

    Args:
        folder: of page and pictures. By default `vitrine` in the first logger's folder for this run, or
            the Trainer's; if remote, in the current one. One of another training's pictures is not reused:
            the next free one is, `vitrine-2`, ..., for each fit on other data, unless it resumes from a file.
        analyses: names of techniques, or techniques by name; those of the default run unless given.
        network: where the network is in the LightningModule, by dotted name or function. By default the
            module itself if it maps images to logits, else the only child that does.
        mean, std: per channel of [0, 1] pixels, by which the network's input is normalised. By default read
            off a `Normalize` in the validation data's transforms, and measured in the sanity check.
        classes: their names; by default those of the validation data.
        every_n_epochs, every_n_steps: examine the network then as well, with its weights as they are trained,
            whether or not a checkpoint is saved.
        settings: for all techniques (`AnalysisSettings`: layers, units, probes, device, budget, strict, ...).

    Raises:
        ValueError: a technique or a setting that there is not, or a wrong value.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        analyses: Sequence[str] | Mapping[str, Analysis] | None = None,
        *,
        network: str | Callable[[nn.Module], nn.Module] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **settings: Any,
    ):
        for name, value in (("every_n_epochs", every_n_epochs), ("every_n_steps", every_n_steps)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        self.analyses = choose_analyses(analyses)
        self.settings = AnalysisSettings.of(settings)
        self.wanted_folder, self.network = folder, network
        self.mean, self.std, self.classes = mean, std, classes
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self.examiner = Examiner({}, None, self.settings, Store(folder or "vitrine"))
        self.allowance = Allowance(self.settings.budget)
        self.folder: Path | None = None
        self._of: weakref.ref[lightning.Trainer] | None = None  # whose training is in the folder
        self._examines = False  # in this fit
        self._name: str | None = None  # of the network in the module
        self._prefix: str | None = None  # of its weights in the module's state_dict
        self._saved_step = -1
        self._saving: NotingSave | None = None
        self._curves: MetricsCSV | None = None
        self._idle: str | None = None  # why nothing can be examined
        self._input = NetworkInput(network)

    # when

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._examines, self._idle, self._input = False, None, NetworkInput(self.network)
        refuse_sharding(trainer)
        if self._saving is not None:  # of a fit that failed
            self._saving.end()

        def note(checkpoint: dict[str, Any], filepath: Any) -> None:
            if self._examines:
                self._note(trainer, pl_module, checkpoint.get("state_dict"))
                if trainer.is_global_zero:
                    verify_file(Path(filepath), checkpoint)

        self._saving = NotingSave(trainer.strategy, note)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._input.save(checkpoint)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self.mean is None:
            self._input.load(checkpoint)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._prepare(trainer, pl_module)
        resumed = self._examines and trainer.ckpt_path and trainer.global_step
        if resumed and trainer.global_step not in self.examiner.store.steps():
            self._note(trainer, pl_module, read_state(trainer.ckpt_path))  # nobody has examined it yet
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        step = trainer.global_step
        if not self._examines:
            return
        if self.every_n_steps and step % self.every_n_steps == 0 and step not in (0, self._saved_step):
            self._note(trainer, pl_module)
        self._examine_saved(trainer)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.state.fn == "fit":
            self._input.start(pl_module, loader_of(trainer, "val"))

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if self._input.stop(loader_of(trainer, "val")) and self._examines:
            self._input.correct(self.examiner.data.split)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._examines:  # not in `trainer.validate`
            log_curves(trainer, self._curves)
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not self._examines:
            return
        log_curves(trainer, self._curves)
        every = self.every_n_epochs
        if every and (trainer.current_epoch + 1) % every == 0 and trainer.global_step != self._saved_step:
            self._note(trainer, pl_module)
        super().on_train_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        self._close(trainer)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if self._examines:  # else nothing is trained
            super().on_exception(trainer, pl_module, exception)
            self._close(trainer, "failed" if isinstance(exception, Exception) else "interrupted")

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if self._saving is not None:
            self._saving.end()
            self._saving = None

    # what

    def examine(self, trainer: lightning.Trainer, saved: Snapshot, seconds_allowed: float | None) -> None:
        """Examine a snapshot; a failure is reported, and raised with `strict` only."""
        self.examiner.examine_loaded(lambda: saved.network, saved.step, seconds_allowed)

    def _note(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Copy the network, to be examined in the next hook.

        Args:
            state: the weights that a checkpoint holds, by their names in the module.
        """
        self._saved_step = step = trainer.global_step
        try:
            network = self._network_of(pl_module)
            held = held_weights(network, self._prefix, state or {})
            with full_isolation():
                copied = copy_at_checkpoint(trainer, network, self.examiner.data.statistics, held)
            self.saved = Snapshot(copied, step)
        except Exception:
            if self.settings.strict:
                raise
            log.exception("the network could not be copied at step %d: it is not examined", step)

    def _network_of(self, pl_module: nn.Module) -> nn.Module:
        wanted = self.network
        return unwrapped(wanted(pl_module) if callable(wanted) else pl_module.get_submodule(self._name))

    # the start

    def _prepare(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Find network and data, try them, and open the folder.

        Raises:
            ValueError: they cannot be examined.
        """
        if trainer.fast_dev_run:
            self._idle = "with fast_dev_run nothing is saved"
            return
        if not trainer.checkpoint_callbacks and not self.every_n_epochs and not self.every_n_steps:
            rank_zero_warn(
                "AnalyzeCheckpoints: this Trainer saves no checkpoints; give every_n_epochs=1 to see pictures"
            )
        make_validation_loaders(trainer)
        self.settings.check_device()
        with full_isolation(pl_module):
            normalization = self.mean, self.std, self._input.normalization
            same = self.folder is not None and has_same_data(trainer, self.examiner.data, self.settings.split)
            if same and self._of is not None and self._of() is trainer:  # it trains longer
                self._examines = True
                return
            split = examined_split(loader_of(trainer, self.settings.split), *normalization)
            self._input.check(split)
            images = split.raw(range(min(4, len(split))))[0].to(pl_module.device, pl_module.dtype)
            name, network = find_network(pl_module, images, self.network)
            self._name, self._prefix = name, f"{name}." if name else name
            logits = network_logits(network, images)
            names = class_names((split.items, trainer.datamodule), logits.shape[1], self.classes)
            data = ForeignData(split, names, *training_of(trainer, *normalization))
            copied = checked_copy(network, data.statistics, images)
            check_analyses(self.analyses, self.settings, copied, images[:1].float())
        facts = {"module": type(pl_module).__name__, "network": type(network).__name__, **data.facts()}
        wanted = picture_folder(trainer, self.wanted_folder)
        resumes = bool(trainer.ckpt_path) and (same or self.folder is None)
        self._open(trainer, data, facts, self.folder if same and resumes else wanted, resumes)

    def _open(
        self, trainer: Any, data: ForeignData, facts: Mapping[str, str], wanted: Path, resumes: bool
    ) -> None:
        """Claim the folder, and make the examiner and its sinks."""
        ranks = ranks_of_trainer(trainer)
        taken = [c.folder for c in trainer.callbacks if isinstance(c, AnalyzeCheckpoints) and c._examines]
        claimed = claim_folder(ranks, wanted, resumes, taken)
        self.folder, self._of, self._examines = claimed, weakref.ref(trainer), True
        self.saved, self._saved_step, self.allowance = None, -1, Allowance(self.settings.budget)
        sinks: list[Any] = []
        if ranks.is_global_zero:
            self._curves = MetricsCSV(claimed)
            sinks = [RunRecord(claimed, sys.argv, facts, run_name(trainer)), PageSink(claimed)]
            sinks += logger_sinks(trainer, data.classes, claimed)
        where = {"device": trainer.strategy.root_device, "ranks": ranks}
        self.examiner = Examiner(self.analyses, data, self.settings, Store(claimed), sinks, **where)

    # the end

    def _close(self, trainer: lightning.Trainer, state: str = "finished") -> None:
        if not self._examines:
            rank_zero_info(f"AnalyzeCheckpoints made no picture: {self._idle or 'training did not start'}")
            return
        for sink in self.examiner.sinks:
            sink.close(state) if isinstance(sink, RunRecord) else sink.close()
        if not any(report.figures for report in self.reports):
            why = "no checkpoint was saved (give every_n_epochs=1)" if not self.reports else "see above"
            rank_zero_info(f"AnalyzeCheckpoints made no picture: {why}")
        else:
            rank_zero_info(f"pictures: {self.folder / 'index.html'}")
        self._examines = False
