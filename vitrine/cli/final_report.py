"""What a run prints at its end."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer

from vitrine.analyses.result import CheckpointReport
from vitrine.config.loading import Settings
from vitrine.examination.summary import seconds_by_analysis, summarize
from vitrine.runs import held_out


def final_report(
    settings: Settings,
    trainer: Trainer,
    reports: Sequence[CheckpointReport],
    notes: Sequence[str],
    seconds: float,
    tested: dict[str, Any] | None = None,
) -> str:
    """A few lines: accuracy, where the time went, what the loggers note, where everything is."""
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    accuracy = f"validation accuracy {metrics['val/accuracy']:.1%}, " if "val/accuracy" in metrics else ""
    if "val/robust_accuracy" in metrics:
        accuracy += f"under attack {metrics['val/robust_accuracy']:.1%}, "
    analyses = summarize(reports)
    if settings.analysis.mode == "follow":
        analyses = f"its checkpoints are analyzed by `python analyze.py {settings.folder} follow=true`"
    lines = [
        "",
        f"{trainer.global_step:,} steps in {seconds:.0f} s: {accuracy}{analyses}",
        *([held_out.describe(tested)] if tested else []),
        *([f"seconds a technique: {seconds_by_analysis(reports)}"] if reports else []),
        *(note for note in notes if note),
        f"the page: {settings.folder / 'index.html'}",
    ]
    return "\n".join(lines)
