"""Lightning's metrics on W&B: under the dashboard's names, each step once however often a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vitrine.reporting.guarded_run import GuardedRun
from vitrine.reporting.sinks import STEP, metric_key
from vitrine.runs.metrics_csv import read_rows


class Curves(WandbLogger):
    """Lightning's logger on a run that is open.

    A run that was killed goes on from its last checkpoint and logs the steps since then once more. W&B
    has them already and keeps every row it is given, so these are left out: a resumed run repeats them bit
    for bit.

    Args:
        run: the open run.
        had: the keys that W&B has had, by step.
        project: the name it is shown in.
        run_dir: the run's folder.
    """

    def __init__(self, run: GuardedRun, had: Mapping[int, set[str]], project: str, run_dir: Path):
        super().__init__(experiment=run, project=project, save_dir=str(run_dir), id=run.id)
        self._had = had

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        named = {metric_key(name): value for name, value in metrics.items()}
        had = self._had.get(step, set()) if step is not None else set()
        row = {key: value for key, value in named.items() if key not in had}
        if row.keys() - {metric_key("epoch")}:
            self.experiment.log(row if step is None else {**row, STEP: step})

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self.experiment.configure(dict(params) if isinstance(params, Mapping) else vars(params))


def metrics_until(run_dir: Path, last: float | None) -> dict[int, set[str]]:
    """The keys of what metrics.csv holds, by step, up to the last step that W&B has (None: it has none)."""
    rows = [] if last is None else [row for row in read_rows(run_dir) if row.get("step")]
    had = {int(row["step"]): row for row in rows if int(row["step"]) <= last}
    return {step: {metric_key(name) for name, value in row.items() if value} for step, row in had.items()}
