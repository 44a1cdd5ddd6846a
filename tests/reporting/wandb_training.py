"""What a training does with a run's folder and W&B, without training anything."""

import math
import time

from vitrine.reporting.wandb_claims import Claims
from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.metrics_csv import MetricsCSV
from vitrine.runs.store import Store


class Training:
    """A training, or what follows one, start for start."""

    def __init__(self, run_dir, report, mode="auto", part="alone"):
        self.run_dir, self.report = run_dir, report
        self.csv = MetricsCSV(run_dir)
        self.logger, self.note = wandb_logger(run_dir, WandbSettings(mode=mode), part=part)
        claims = Claims(run_dir) if part == "follower" else None
        self.sink = WandbSink(self.logger.experiment, run_dir=run_dir, claims=claims)
        if part == "alone":
            self.sink.log_missing(self.logger.logged_keys)
        if part == "follower":
            self.sink.take_over()

    def steps(self, first, last):
        for step in range(first, last):
            metrics = {"train/loss": 1 / (step + 1), "epoch": step // 4}
            if step % 4 == 3:
                metrics |= {"val/accuracy": step / 100, "val/loss": float("nan")}
            self.csv.log_metrics(metrics, step)
            self.logger.log_metrics(metrics, step)

    def checkpoint(self, step, log=True):
        store, report = Store(self.run_dir), self.report(step)
        if self.sink.claims:
            self.sink.claims.add(step)
        with store.writing(step, weights="") as writer:
            for name, result in report.results.items():
                writer.write(name, result)
        if log:
            self.sink.log(report, store.step_folder(step))

    def resume(self, step, **how):
        """Another start, from the checkpoint of a step."""
        time.sleep(1 - time.time() % 1)  # W&B calls the folder of an offline start by its second
        again = Training(self.run_dir, self.report, **how)
        again.csv.rewind(step)
        return again


def values(rows):
    """(step, key) of every value, with numbers, sorted: doubled ones stand twice."""
    found = []
    for row in rows:
        row = dict(row)
        if (step := row.pop("trainer/global_step", None)) is None:
            continue
        media = {key.removesuffix("._type") for key in row if key.endswith("._type")}
        parts = tuple(f"{key}." for key in media)  # offline a picture's fields are apart
        for key in media | {key for key in row if not key.startswith(("_", "Time/", *parts))}:
            value = row.get(key)
            finite = isinstance(value, int | float) and math.isfinite(value)
            found.append((step, key, value if finite else None))
    return sorted(found, key=str)
