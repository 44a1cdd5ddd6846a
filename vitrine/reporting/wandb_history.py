"""Metrics on W&B, each value once: of a resumed run only what W&B lacks is logged again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from vitrine.analyses.result import AnalysisResult
from vitrine.core.bounded import BoundedCaller
from vitrine.reporting import wandb_offline
from vitrine.reporting.bounds import shown_layers, shown_tables
from vitrine.reporting.guarded_run import GuardedRun
from vitrine.reporting.sinks import STEP, media_key, metric_key, named_scalars, table_key
from vitrine.runs.metrics_csv import read_rows
from vitrine.runs.store import Store

_log = logging.getLogger(__name__)

READ_SECONDS = 120  # for the rows of a long run from a server
Keys = dict[int, set[str]]  # by step


class MetricsLogger(WandbLogger):
    """Lightning's logger on an open run, under the dashboard's keys.

    A run that was killed resumes from its last checkpoint and logs the steps since then again. W&B keeps
    every row it is given, so those it has are left out: a resumed run repeats them bit for bit.

    Args:
        run: the open run.
        logged: the keys that W&B has, by step.
        run_dir: the run's folder.
    """

    def __init__(self, run: GuardedRun, logged: Keys, run_dir: Path):
        super().__init__(experiment=run, save_dir=str(run_dir), id=run.id)
        self.logged_keys = logged

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        logged = self.logged_keys.get(step, set())
        row = {metric_key(name): value for name, value in metrics.items() if metric_key(name) not in logged}
        if row.keys() - {metric_key("epoch")}:
            self.experiment.log(row if step is None else {**row, STEP: step})

    def log_missing(self, run_dir: Path) -> None:
        """Log what metrics.csv has and W&B lacks, which was killed before it had written it."""
        for row in read_rows(run_dir):
            step = row.pop("step")
            with contextlib.suppress(ValueError):  # a row that somebody has edited
                metrics = {name: float(value) for name, value in row.items() if value}
                self.log_metrics(metrics, int(step))
                # a resumed run logs the steps since its checkpoint once more
                self.logged_keys.setdefault(int(step), set()).update(map(metric_key, metrics))

    def log_hyperparams(self, params: Any) -> None:
        self.experiment.update_config(dict(params) if isinstance(params, Mapping) else vars(params))


def logged_keys(run: Any, run_dir: Path) -> Keys:
    """The keys that W&B has of a run, or will have once its offline logs are uploaded.

    Online W&B's server is asked; offline what was once logged online counts as arrived there. If the server
    does not answer, all that we have recorded counts as logged: a gap is better than a row that comes twice.

    Args:
        run: the `wandb.Run`.
        run_dir: its folder.
    """
    local = wandb_offline.history(run_dir, run.id, online=run.offline)
    if run.offline:
        return _keys_by_step(local)
    try:
        rows = BoundedCaller("W&B's rows").call(READ_SECONDS, _read_from_server, run.path)
        return _keys_by_step([*rows, *local])
    except Exception as error:
        _log.warning("W&B's rows of earlier starts cannot be read, gaps in them stay: %r", error)
        return recorded_keys(run_dir)


def recorded_keys(run_dir: Path) -> Keys:
    """The keys under which W&B shows what metrics.csv and the store of analyses have."""
    keys: Keys = {}
    for row in read_rows(run_dir):
        if row["step"]:
            keys[int(row["step"])] = {metric_key(name) for name, value in row.items() if value}
    store = Store(run_dir)
    for step in store.steps():
        for name, result in store.results(step).items():
            keys.setdefault(step, set()).update(result_keys(name, result, store.entries(step, name)))
    return keys


def result_keys(name: str, result: AnalysisResult, entries: Iterable[Mapping[str, Any]]) -> set[str]:
    """The keys of an analysis' scalars, pictures and tables, whose entries in figures.json are given."""
    entries = list(entries)
    keys = {*named_scalars(name, result)}
    keys |= {media_key(name, layer) for layer in shown_layers(entry["layer"] for entry in entries)}
    tables = shown_tables(entry["key"] for entry in entries if "table" in entry)
    return keys | {table_key(name, key) for key in tables}


def _read_from_server(path: str) -> list[dict[str, Any]]:
    import wandb

    run = wandb.Api(timeout=READ_SECONDS).run(path)
    rows = list(run.scan_history(use_cache=False))
    if len(rows) < run.historyLineCount:
        raise RuntimeError(f"{len(rows)} of {run.historyLineCount} rows were read")
    return rows


def _keys_by_step(rows: Iterable[Mapping[str, Any]]) -> Keys:
    keys: Keys = {}
    for row in rows:
        if row.get(STEP) is not None:
            # offline the fields of a picture or table are apart: "key._type", "key.path"
            keys.setdefault(int(row[STEP]), set()).update(key.removesuffix("._type") for key in row)
    return keys
