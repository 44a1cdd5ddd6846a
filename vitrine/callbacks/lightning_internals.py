"""What we need of Lightning beyond its public interface: every private name of it that is used stands here.

Lightning may change them in any release, so pyproject.toml bounds its version, and
tests/callbacks/test_lightning_internals.py tries each of these functions with the installed one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loops import evaluation_loop
from lightning.pytorch.loops.fit_loop import RestartStage
from lightning.pytorch.loops.loop import _Loop

from vitrine.core import random_state


def disable_signal_handling(trainer: lightning.Trainer) -> None:
    """Keep Lightning from installing signal handlers, and from broadcasting SIGTERM before each batch.

    Its handlers save, or start a collective operation, within the handler, and requeue SLURM jobs from there;
    there is no switch for them.
    """
    trainer._signal_connector.register_signal_handlers = _do_nothing
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _do_nothing


def is_accumulating(trainer: lightning.Trainer) -> bool:
    """Whether gradients of the present batch are kept for the next, with no optimizer step after it."""
    return trainer.fit_loop._should_accumulate()


def call_between_batches(trainer: lightning.Trainer, function: Callable[[], None]) -> None:
    """Call `function()` between two training batches, where all that belongs to the former has been done: the
    hooks of all callbacks and of the module, logging, a validation, the end of an epoch.

    No hook is there: in `on_train_batch_end` other hooks are still to come, and in `on_train_batch_start` the
    next batch counts already, which a checkpoint records. It is not called before the first batch of a fit.
    """
    loop = trainer.fit_loop.epoch_loop
    advance, count = type(loop).advance, 0

    def advance_after_call(data_fetcher: Any) -> None:
        nonlocal count
        if count and not loop.restarting:
            function()
        count += 1
        advance(loop, data_fetcher)

    loop.advance = advance_after_call


def repeat_validation(trainer: lightning.Trainer) -> None:
    """Begin with the validation that is due after the batch that the checkpoint was written after.

    Lightning continues a validation that was interrupted within a batch, without the batches before it; one
    that was interrupted between two batches it takes for complete.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    loop._restart_stage = evaluation_loop.RestartStage.RESTARTED_MID_EVALUATION


def validation_is_due(trainer: lightning.Trainer) -> bool:
    """Whether Lightning validates after the present batch; callbacks cannot know otherwise."""
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def make_validation_loaders(trainer: lightning.Trainer) -> None:
    """Make the loaders of validation now, where there will be any.

    Lightning makes them at the start only if the first epoch has a validation, or in the sanity check. The
    process's random numbers are left as they were.
    """
    if not trainer.enable_validation or trainer.val_dataloaders is not None:
        return
    state = random_state.capture()
    trainer.validating = True  # whose loaders are made
    try:
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
    finally:
        trainer.training = True
        random_state.restore(state)


def set_logged_step(trainer: lightning.Trainer) -> None:
    """Make the step that loggers are given the number of optimizer steps.

    Lightning adds one to the step that a checkpoint records: one too many where the checkpoint was written
    after the step's end, as it is after an exception.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def restore_loader_state(trainer: lightning.Trainer) -> None:
    """Load a checkpoint's loader state into the training loader, where Lightning has not.

    It has not where the loader was made before the checkpoint was read, which is so when an optimizer's
    schedule asks for `trainer.estimated_stepping_batches`.
    """
    loop = trainer.fit_loop
    if loop.restarting and loop._combined_loader_states_to_load:
        loop._load_combined_loader_states()
        iter(loop._data_fetcher)


def begin_next_epoch(trainer: lightning.Trainer) -> None:
    """Begin the next epoch where the checkpoint that training resumes from ended one.

    With `max_steps` Lightning goes back into the epoch, ends it once more and counts it twice: `max_epochs`
    then comes an epoch early. Without `max_steps` it does itself what is done here.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        _Loop.restarting.fset(loop, False)
        loop._restart_stage = RestartStage.RESUMED_ON_EPOCH_END
        loop.epoch_loop.reset_restart_stage()


class ExplicitModelCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, with public methods to write a checkpoint now, and to know of one.

    Files of the callback's own folder are removed when a better or newer one takes their place. Lightning
    spares the one that training was resumed from: a run resumed often would keep a file each time.
    """

    def may_save(self, trainer: lightning.Trainer) -> bool:
        """Whether this step has no checkpoint yet and the trainer is one that writes any."""
        return not self._should_skip_saving_checkpoint(trainer)

    def save_now(self, trainer: lightning.Trainer) -> None:
        """Write a checkpoint as at a regular time."""
        metrics = self._monitor_candidates(trainer)
        self._save_topk_checkpoint(trainer, metrics)
        self._save_last_checkpoint(trainer, metrics)

    def set_saved(self, trainer: lightning.Trainer, file: str | Path) -> None:
        """Take `file` for the checkpoint of the present step: none is written for it again."""
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = str(file)

    def _should_remove_checkpoint(self, trainer: lightning.Trainer, previous: str, current: str) -> bool:
        return previous != current and Path(self.dirpath) in Path(previous).parents


def _do_nothing(*_: Any) -> None:
    pass


class LearningRates(LearningRateMonitor):
    """Logs the rate of every group of parameters; where they are more than four (`optimizer.layer_decay`), of
    the first and the last, between which the others lie."""

    def _get_optimizer_stats(self, optimizer: Any, names: list[str]) -> dict[str, float]:
        groups = optimizer.param_groups
        if len(groups) <= 4:
            return super()._get_optimizer_stats(optimizer, names)
        ends = SimpleNamespace(param_groups=[groups[0], groups[-1]], defaults=optimizer.defaults)
        return super()._get_optimizer_stats(ends, [names[0], names[-1]])
