"""What a run says at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitrine.config.loading import Settings


def words(settings: Settings, trainer: Any, looking: Any, notes: Sequence[str], seconds: float) -> str:
    """A few lines: accuracy, where the time went, where everything is.

    Args:
        looking: the callback that looked at the checkpoints.
        notes: what the loggers have to say.
        seconds: that the run took.
    """
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    accuracy = f"validation accuracy {metrics['val/accuracy']:.1%}, " if "val/accuracy" in metrics else ""
    if "val/robust_accuracy" in metrics:
        accuracy += f"under attack {metrics['val/robust_accuracy']:.1%}, "
    lines = [
        "",
        f"{trainer.global_step:,} steps in {seconds:.0f} s: {accuracy}{_looked_at(settings, looking)}",
        *([f"seconds a technique: {looking.seconds()}"] if looking.reports else []),
        *(note for note in notes if note),
        f"the page: {settings.folder / 'index.html'}",
    ]
    return "\n".join(lines)


def _looked_at(settings: Settings, looking: Any) -> str:
    if settings.analysis.mode == "follow":
        return f"its checkpoints are looked at by `python analyze.py {settings.folder} follow=true`"
    return looking.summary()
