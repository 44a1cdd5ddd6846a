"""Where a run goes on after it was cut off, and what it needs to end as if it had not been."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.fit_loop import RestartStage
from lightning.pytorch.loops.loop import _Loop

from callbacks import random_state
from callbacks.ranks import ALONE, ranks_of

log = logging.getLogger(__name__)


def last_good_checkpoint(run_dir: str | Path) -> Path | None:
    """The checkpoint with the most steps that is whole; None where there is none, or none with a step taken.

    Those that are cut off, damaged (every byte is held against its checksum), or contain more than plain data
    are passed over with a warning.
    """
    for step, file in checkpoint_files(Path(run_dir) / "checkpoints", newest_first=True):
        if step == 0:
            continue  # nothing in it that a fresh start would not make again
        if (damage := damage_of(file)) is None:
            return file
        log.warning("passed over %s: %s", file, damage)
    return None


def checkpoint_files(folder: Path, newest_first: bool = False) -> Iterator[tuple[int, Path]]:
    """The checkpoints in a folder with their steps, in order, one file a step.

    A name is believed (`step=00000500.ckpt`); other files are opened, and left out with a warning if
    unreadable.
    """
    found: dict[int, Path] = {}
    # names that say a step first: `last.ckpt` is a link to one of them, `best.ckpt` a copy
    for file in sorted(folder.glob("*.ckpt"), key=lambda f: (_named_step(f) is None, f.name)):
        step = _named_step(file)
        if step is None and file.exists() and file.resolve() not in {f.resolve() for f in found.values()}:
            step = step_of(file)
        if step is not None:
            found.setdefault(step, file)
    yield from sorted(found.items(), reverse=newest_first)


def step_of(file: Path) -> int | None:
    """The optimizer steps a checkpoint has behind it; None, with a warning, where it cannot be read."""
    try:
        return int(torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception as error:  # what damage makes of a pickle can be anything
        log.warning("passed over %s: %s", file, _first_line(error))
        return None


def damage_of(file: Path) -> str | None:
    """What is wrong with a checkpoint file, or None."""
    try:
        with zipfile.ZipFile(file) as archive:
            if (bad := archive.testzip()) is not None:  # torch itself compares no checksums
                return f"{bad} in it is damaged"
        if "state_dict" not in torch.load(file, map_location="cpu", weights_only=True, mmap=True):
            return "it holds no network"
    except Exception as error:
        return _first_line(error)
    return None


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
        _place_loaders(trainer.fit_loop)
        _leave_finished_epoch(trainer.fit_loop)
        if self._state:
            random_state.restore(self._state[self._ranks.rank % len(self._state)])
            self._state = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        # Loggers count by this. Lightning (2.6) adds one to what a checkpoint says of it: one too many where
        # the checkpoint was written after the step's end, as it is after an exception.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def _place_loaders(loop: Any) -> None:
    """Tell the training loader where it was.

    Lightning (2.6) does, but not where the loader was made before the checkpoint was read, as it is when an
    optimizer's schedule asks for `trainer.estimated_stepping_batches`.
    """
    if loop.restarting and loop._combined_loader_states_to_load:
        loop._load_combined_loader_states()
        iter(loop._data_fetcher)


def _leave_finished_epoch(loop: Any) -> None:
    """Resumed where an epoch ended, begin the next one.

    With `max_steps`, Lightning (2.6) goes back into the epoch, ends it once more and counts it twice:
    `max_epochs` then comes an epoch early. Without `max_steps` it does what is done here.
    """
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        _Loop.restarting.fset(loop, False)
        loop._restart_stage = RestartStage.RESUMED_ON_EPOCH_END
        loop.epoch_loop.reset_restart_stage()


def _named_step(file: Path) -> int | None:
    match = re.fullmatch(r"step=(\d+)", file.stem)
    return int(match[1]) if match else None


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
