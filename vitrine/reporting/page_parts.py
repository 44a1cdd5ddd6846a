"""What a run's page tells of one analysis at one checkpoint, read from its folder as plain data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vitrine.analyses.result import AnalysisResult
from vitrine.runs.figure_entries import finite
from vitrine.runs.store import Store

_LAID_OUT_BY = ("table", "turntable")


@dataclass(frozen=True)
class Part:
    """An analysis at a step. What seldom changes is named by its digest: see `read_part`.

    Attributes:
        outcome: seconds, error (a traceback or null), and where there are any less and files.
        rows: digest of what does not change with time, of each figure: key, layer, unit, probe, label, width,
            height, and the parts of `drawn` that a view is laid out by.
        keys: digest of the keys of the scalars.
        values: of the scalars, in this order; those that are not finite are null.
        alarms: what is wrong, a text each.
        suffix: the `short_file` of all figures; null where they differ.
        digest: of `shown`.
        bytes: of `shown` as JSON.
        shown: of each figure what changes: caption, values, file, and in an object `drawn` beside it, if
            there is any; None: it was not kept.
    """

    outcome: dict[str, Any]
    rows: str
    keys: str
    values: list[float | None]
    alarms: list[str]
    suffix: str | None
    digest: str
    bytes: int
    shown: list[list[Any]] | None


def read_part(
    store: Store, step: int, name: str, result: AnalysisResult
) -> tuple[Part, dict[str, list[Any]]]:
    """Read a part from the store; and what its digests stand for."""
    folder = store.step_folder(step) / name
    rows, shown = [], []
    for entry in store.entries(step, name):
        drawn = _drawn(entry)
        of = [entry[what] for what in ("key", "layer", "unit", "probe", "label")]
        rows.append([*of, *_size(folder / entry["file"]), [kind for kind in _LAID_OUT_BY if kind in drawn]])
        numbers = {key: _rounded(value) for key, value in entry["values"].items()}
        shown.append([entry["caption"], numbers, entry["file"], *([drawn] if drawn else [])])
    keys = [scalar.key for scalar in result.scalars]
    suffixes = {short_file(row[0], file) for row, (_, _, file, *_) in zip(rows, shown)}
    text = script_json(shown)
    part = Part(
        outcome=outcome_of(result),
        rows=_digest(script_json(rows)),
        keys=_digest(script_json(keys)),
        values=[finite(scalar.value) for scalar in result.scalars],
        alarms=[alarm.text for alarm in result.alarms],
        suffix=suffixes.pop() if len(suffixes) == 1 else None,
        digest=_digest(text),
        bytes=len(text),
        shown=shown,
    )
    return part, {part.rows: rows, part.keys: keys}


def outcome_of(result: AnalysisResult) -> dict[str, Any]:
    """`Part.outcome`."""
    reduced = {"less": result.reduced_text} if result.reduced else {}
    files = {"files": list(result.files)} if result.files else {}
    return {"seconds": result.seconds, "error": result.traceback, **reduced, **files}


def short_file(key: str, file: str) -> str:
    """A figure's file without the key that it is called after, so that a full stop comes first, or all of it
    where it is not called so; parts.js joins them again."""
    rest = file.removeprefix(key)
    return rest if rest.startswith(".") else file


def script_json(content: Any) -> str:
    """JSON that is inert wherever a script may stand: ASCII only, and no `<`, `>`, `&`."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _drawn(entry: dict[str, Any]) -> dict[str, Any]:
    """What the page draws beside a figure: its histogram (heights from 0 to 99), the range of its scores, its
    class shares, its turntable, its table."""
    drawn: dict[str, Any] = {}
    histogram, scores = entry.get("histogram"), entry.get("scores")
    if histogram and any(histogram["shares"]):
        tallest = max(histogram["shares"])
        drawn["histogram"] = {
            "low": _rounded(histogram["low"]),
            "high": _rounded(histogram["high"]),
            "heights": [round(99 * share / tallest) for share in histogram["shares"]],
        }
    if scores:
        drawn["scores"] = [_rounded(scores[-1]), _rounded(scores[0])]
    if shares := entry.get("class_shares"):
        drawn["classes"] = {name: _rounded(share) for name, share in shares.items()}
    if turntable := entry.get("turntable"):
        drawn["turntable"] = turntable
    if table := entry.get("table"):
        columns = {heading: _rounded_column(column) for heading, column in table["columns"].items()}
        drawn["table"] = {**table, "columns": columns}
    return drawn


def _rounded_column(column: list[Any]) -> list[Any]:
    return [value if isinstance(value, str) else _rounded(value) for value in column]


def _rounded(value: float | None) -> float | None:
    """A number to four digits."""
    return value if value is None or value == int(value) else float(f"{value:.4g}")


def _size(path: Path) -> tuple[int, int]:
    """Width and height from a picture's header; 0, 0 where there is none."""
    try:
        with Image.open(path) as image:
            return image.size
    except OSError:
        return 0, 0
