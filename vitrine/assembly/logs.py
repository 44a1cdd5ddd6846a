"""Where the curves and pictures of a run go, from settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch.loggers import Logger

from vitrine.config.errors import as_setting_error
from vitrine.config.loading import Settings
from vitrine.reporting.page import PageSink
from vitrine.reporting.tensorboard_logger import BoardLogger
from vitrine.reporting.tensorboard_sink import TensorBoardSink
from vitrine.reporting.wandb_claims import Claims
from vitrine.reporting.wandb_run import wandb_logger
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.metrics_csv import MetricsCSV


@dataclass
class Logs:
    """Where curves (`loggers`) and pictures (`sinks`) go, and what to print about it at the end (`notes`).

    One process of several that log pictures calls `claim(step)` before it examines a step.
    """

    loggers: list[Logger] = field(default_factory=list)
    sinks: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    claim: Callable[[int], None] = lambda step: None

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


def open_logs(settings: Settings, classes: Sequence[str], part: str = "alone") -> Logs:
    """The page and metrics.csv always; W&B and TensorBoard as `logging` says.

    Args:
        part: of this process among those that log to the run, see `reporting.wandb_run`.
    """
    folder = settings.folder
    logs = Logs([MetricsCSV(folder)], [PageSink(folder)])
    logger, note = wandb_logger(
        folder, settings.logging.wandb, name=settings.run.name, config=settings.to_dict(), part=part
    )
    logs.notes.append(note)
    if logger is not None:
        claims = Claims(folder) if part == "follower" else None
        sink = WandbSink(logger.experiment, classes, settings.logging.wandb.page, folder, claims=claims)
        if part == "alone":  # else the processes that follow log pictures at this very moment
            sink.log_missing(logger.logged_keys)
        if claims:
            logs.claim = claims.add
            sink.take_over()
        logs.loggers.append(logger)
        logs.sinks.append(sink)
    if settings.logging.tensorboard:
        with as_setting_error("logging.tensorboard"):
            board = BoardLogger(folder, name="", version="tensorboard")
            logs.sinks.append(TensorBoardSink(board.experiment))
        logs.loggers.append(board)
    return logs
