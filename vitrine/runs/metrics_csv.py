"""`metrics.csv`, the table of every logged metric: its writer, a Lightning logger, and its readers."""

import contextlib
import csv
import io
import math
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vitrine.core import atomic
from vitrine.runs.resumable_logger import ResumableLogger

NAME = "metrics.csv"
FIRST_COLUMNS = ("step", "epoch")


def read_rows(run_dir: str | Path) -> list[dict[str, str]]:
    """The rows of `run_dir/metrics.csv` as text by column name, "" for empty cells.

    A last row without its end of line, as a kill leaves it, is omitted. Without the file there are no rows.
    """
    try:
        content = (Path(run_dir) / NAME).read_bytes()
    except FileNotFoundError:
        return []
    text = content[: content.rfind(b"\n") + 1].decode(errors="replace")
    return [row for row in csv.DictReader(io.StringIO(text)) if None not in row]


def read_names(run_dir: str | Path) -> list[str]:
    """The names of the metrics that were logged so far; none of an unreadable file."""
    with contextlib.suppress(OSError), open(Path(run_dir) / NAME, encoding="utf-8", errors="replace") as file:
        return [name for name in next(csv.reader(file), []) if name not in FIRST_COLUMNS]
    return []


def read_curves(run_dir: str | Path) -> dict[str, list[tuple[int, float]]]:
    """The finite values of each metric as (optimizer steps taken, value), in the order of the rows.

    An unreadable file has no curves.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    rows: list[dict[str, str]] = []
    with contextlib.suppress(OSError):
        rows = read_rows(run_dir)
    for row in rows:
        step = _number(row.get("step"))
        for name, text in row.items():
            if name not in FIRST_COLUMNS and math.isfinite(step) and math.isfinite(value := _number(text)):
                curves.setdefault(name, []).append((int(step) + 1, value))  # Lightning counts from 0
    return curves


class MetricsCSV(ResumableLogger):
    """Writes one row per step and one column per metric; a cell is empty if the metric was not logged then.

    As in all of Lightning's loggers, `step` counts from 0: metrics logged after the first optimizer step are
    in row 0. Each row is on disk as soon as it is logged. A new metric adds a column, for which the file is
    rewritten. An existing file is continued.
    """

    name, version = NAME, ""

    def __init__(self, run_dir: str | Path):
        super().__init__()
        self.path = Path(run_dir) / NAME
        self._columns: list[str] | None = None
        self._row: dict[str, str] = {}
        self._start = 0  # where in the file the last row begins

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: the run's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        row = {name: _text(value) for name, value in metrics.items()}
        if step is not None:
            row["step"] = str(step)
        if self._columns is None:
            self._open()
        new = [name for name in row if name not in self._columns]
        if self._row.get("step") == row.get("step"):
            self._row.update(row)  # rewritten in place: a row only grows
        else:
            self._start, self._row = self.path.stat().st_size, row
        if new:
            self._columns += new
            rows = read_rows(self.path.parent)
            if rows and rows[-1].get("step") == self._row.get("step"):
                rows.pop()
            self._write([*rows, self._row])
            return
        with open(self.path, "r+b") as file:
            file.seek(self._start)
            file.write(self._line(self._row))
            file.truncate()

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Remove the rows from `step` on: a run resumed after `step` optimizer steps logs them again."""
        if self.path.exists():
            self._open()
            self._write([row for row in read_rows(self.path.parent) if int(row["step"] or 0) < step])

    def _open(self) -> None:
        rows = read_rows(self.path.parent)
        self._columns = list(rows[0] if rows else FIRST_COLUMNS)
        self._write(rows)

    def _write(self, rows: list[dict[str, str]]) -> None:
        """Rewrite the whole file atomically."""
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


def _number(text: str | None) -> float:
    """NaN for what is no number: an empty or missing cell."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
