"""Every number that is logged, in one table that outlives a kill: `metrics.csv`."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vitrine.core import atomic

FIRST = ["step", "epoch"]  # the columns that every row has


class MetricsCSV(Logger):
    """A row a step, a column a metric; empty where a metric was not logged at that step.

    As in all of Lightning's loggers, `step` counts from 0: what is logged after the first optimizer step
    stands at 0. Each row is on disk as soon as it is logged. A metric that is new adds a column, for which
    the file is written anew. Whoever logs to a file that is there goes on with it.

    Args:
        run_dir: the file is `run_dir/metrics.csv`.
    """

    def __init__(self, run_dir: str | Path):
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._columns: list[str] | None = None
        self._row: dict[str, str] = {}
        self._start = 0  # where in the file the last row begins

    @property
    def name(self) -> str:
        return "metrics.csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The run's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        row = {name: _text(value) for name, value in metrics.items()}
        if step is not None:
            row["step"] = str(step)
        if self._columns is None:
            self._open()
        new = [name for name in row if name not in self._columns]
        if self._row.get("step") == row.get("step"):
            self._row.update(row)  # takes the last row's place: it only grows
        else:
            self._start, self._row = self.path.stat().st_size, row
        if new:
            self._columns += new
            rows = self.rows()
            if rows and rows[-1].get("step") == self._row.get("step"):
                rows.pop()
            self._write([*rows, self._row])
            return
        with open(self.path, "r+b") as file:
            file.seek(self._start)
            file.write(self._line(self._row))
            file.truncate()

    def rewind(self, step: int) -> None:
        """Forget what was logged once `step` optimizer steps were taken: a resumed run logs it again."""
        rank_zero_only(self._rewind)(step)

    def rows(self) -> list[dict[str, str]]:
        """What the file says, as text; a last row that a kill cut off is left out."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [row for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])) if None not in row]

    def _rewind(self, step: int) -> None:
        if not self.path.exists():
            return
        self._open()
        self._write([row for row in self.rows() if int(row["step"] or 0) < step])

    def _open(self) -> None:
        rows = self.rows()
        self._columns = list(rows[0]) if rows else list(FIRST)
        self._write(rows)

    def _write(self, rows: list[dict[str, str]]) -> None:
        """The whole file, at once."""
        lines = [self._line(dict(zip(self._columns, self._columns))), *map(self._line, rows)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self.path, b"".join(lines).decode())
        self._row = dict(rows[-1]) if rows else {}
        self._start = sum(map(len, lines[:-1])) if rows else len(lines[0])

    def _line(self, row: dict[str, str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row.get(name, "") for name in self._columns])
        return text.getvalue().encode()


def _text(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
