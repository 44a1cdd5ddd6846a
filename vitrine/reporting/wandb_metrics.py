"""Lightning's metrics on W&B: under the dashboard's keys, each step once however often a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vitrine.reporting.guarded_run import GuardedRun
from vitrine.reporting.sinks import STEP, metric_key
from vitrine.reporting.wandb_history import Keys
from vitrine.runs.metrics_csv import read_rows


class MetricsLogger(WandbLogger):
    """Lightning's logger on an open run.

    A run that was killed resumes from its last checkpoint and logs the steps since then again. W&B keeps
    every row it is given, so those it has are left out: a resumed run repeats them bit for bit.

    Args:
        run: the open run.
        logged: the keys that W&B has, by step.
        project: the name it is shown in.
        run_dir: the run's folder.
    """

    def __init__(self, run: GuardedRun, logged: Keys, project: str, run_dir: Path):
        super().__init__(experiment=run, project=project, save_dir=str(run_dir), id=run.id)
        self.logged_keys = logged

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {metric_key(name): value for name, value in metrics.items()}
        if step is not None:
            logged = self.logged_keys.get(step, set())
            row = {key: value for key, value in row.items() if key not in logged}
        if row.keys() - {metric_key("epoch")}:
            self.experiment.log(row if step is None else {**row, STEP: step})

    def log_missing(self, run_dir: Path) -> None:
        """Log what metrics.csv has and W&B lacks, which was killed before it had written it."""
        for row in read_rows(run_dir):
            if row["step"]:
                step = int(row["step"])
                metrics = {name: _number(value) for name, value in row.items() if value and name != "step"}
                self.log_metrics(metrics, step)
                # a resumed run logs the steps since its checkpoint once more
                self.logged_keys.setdefault(step, set()).update(map(metric_key, metrics))

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self.experiment.update_config(dict(params) if isinstance(params, Mapping) else vars(params))


def _number(text: str) -> float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
