"""Results on TensorBoard: the same curves and contact sheets as on W&B."""

import logging
from pathlib import Path
from typing import Any

from vitrine.analyses.result import CheckpointReport
from vitrine.reporting.bounds import shown_layers
from vitrine.reporting.sheet import by_layer, sheet
from vitrine.reporting.sinks import media_key, named_scalars

_log = logging.getLogger(__name__)


class TensorBoardSink:
    """Logs to an open TensorBoard writer: a `SummaryWriter`, or `TensorBoardLogger.experiment`."""

    def __init__(self, writer: Any):
        self.writer = writer

    def log(self, report: CheckpointReport, folder: Path) -> None:
        """Show one checkpoint at its step: scalars, and a sheet a technique and layer; never raises."""
        try:
            for name, result in report.results.items():
                for key, value in named_scalars(name, result).items():
                    self.writer.add_scalar(key, value, report.step)
                groups = by_layer(result.figures)
                for layer in shown_layers(groups):
                    pixels = sheet([figure.image for figure in groups[layer]]).numpy()
                    self.writer.add_image(media_key(name, layer), pixels, report.step, dataformats="HWC")
            self.writer.flush()
        except Exception:
            _log.warning("step %d did not reach TensorBoard", report.step, exc_info=True)

    def close(self) -> None:
        """Write out what is buffered; never raises."""
        try:
            self.writer.flush()
        except Exception:
            _log.warning("TensorBoard did not end in order", exc_info=True)
