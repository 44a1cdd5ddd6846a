"""Lightning's metrics on W&B: under the dashboard's keys, each step once however often a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vitrine.reporting import wandb_offline
from vitrine.reporting.guarded_run import GuardedRun
from vitrine.reporting.sinks import STEP, metric_key
from vitrine.runs.metrics_csv import read_rows


class MetricsLogger(WandbLogger):
    """Lightning's logger on an open run.

    A run that was killed resumes from its last checkpoint and logs the steps since then again. W&B has them
    already and keeps every row it is given, so these are left out: a resumed run repeats them bit for bit.

    Args:
        run: the open run.
        logged: the keys that W&B has, by step.
        project: the name it is shown in.
        run_dir: the run's folder.
    """

    def __init__(self, run: GuardedRun, logged: Mapping[int, set[str]], project: str, run_dir: Path):
        super().__init__(experiment=run, project=project, save_dir=str(run_dir), id=run.id)
        self._logged = logged

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        logged = self._logged.get(step, set()) if step is not None else set()
        row = {metric_key(name): value for name, value in metrics.items() if metric_key(name) not in logged}
        if row.keys() - {metric_key("epoch")}:
            self.experiment.log(row if step is None else {**row, STEP: step})

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self.experiment.update_config(dict(params) if isinstance(params, Mapping) else vars(params))


def logged_keys(run: Any, run_dir: Path) -> dict[int, set[str]]:
    """The keys that earlier starts of a run have logged, by step, so that W&B has them.

    Args:
        run: the `wandb.Run`.
        run_dir: its folder.
    """
    keys: dict[int, set[str]] = {}
    if run.offline:
        for row in wandb_offline.history(run_dir, run.id):
            if STEP in row:
                keys.setdefault(int(row[STEP]), set()).update(row)
    elif run.resumed and (last := run.summary.get(STEP)) is not None:
        for row in read_rows(run_dir):
            if row["step"] and int(row["step"]) <= last:
                keys[int(row["step"])] = {metric_key(name) for name, value in row.items() if value}
    return keys
