"""The content of a run's page, read from the run's folder as plain data."""

import contextlib
import itertools
import math
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from vitrine.analyses import traits_of
from vitrine.analyses.result import AnalysisResult
from vitrine.runs import held_out
from vitrine.runs.metrics_csv import read_curves
from vitrine.runs.run_record import read, read_facts
from vitrine.runs.store import Store

# what the page's scripts use of a technique's traits
PAGE_TRAITS = ("title", "unit_rank", "image_rank", "square_variants", "confidences", "at_input", "own_page")
FACTS = {  # settings that the overview shows
    "data": "data.name",
    "image size": "data.image_size",
    "network": "model.name",
    "weights": "model.weights",
    "objective": "objective.name",
    "optimizer": "optimizer.name",
    "learning rate": "optimizer.lr",
    "epochs": "trainer.max_epochs",
    "seed": "run.seed",
}
POINTS = 300  # of a curve; more are averaged, the page draws no more pixels than that


def run_data(run_dir: str | Path, base: str = "") -> dict[str, Any]:
    """The content of the page for one run; complete steps only.

    Args:
        base: path from the page to the run's folder, "" or ending in "/".

    Returns:
        JSON's own types: name, base, settings (config.yaml's text), facts, steps, analyses, scalars, alarms,
        tests (see `runs.held_out`), metrics.
    """
    run_dir = Path(run_dir)
    store = Store(run_dir)
    results = {step: store.results(step) for step in store.steps()}
    names = dict.fromkeys(name for step in reversed(results) for name in results[step])
    ordered = sorted(names, key=lambda name: traits_of(name).page_order)
    settings = ""
    with contextlib.suppress(OSError):
        settings = (run_dir / "config.yaml").read_text(encoding="utf-8", errors="replace")
    return {
        "name": read(run_dir).get("name") or run_dir.resolve().name,
        "base": base,
        "settings": settings,
        "facts": _facts(settings) + read_facts(run_dir),
        "steps": [
            {"step": step, "analyses": {name: _result(result) for name, result in at.items()}}
            for step, at in results.items()
        ],
        "analyses": [_analysis(store, list(results), name) for name in ordered],
        "scalars": _scalars(results),
        "alarms": _alarms(results),
        "tests": held_out.read(run_dir),
        "metrics": {name: _downsampled(points) for name, points in read_curves(run_dir).items()},
    }


def _result(result: AnalysisResult) -> dict[str, Any]:
    reduced = {"less": result.reduced_text} if result.reduced else {}
    files = {"files": list(result.files)} if result.files else {}
    return {"seconds": result.seconds, "error": result.traceback, **reduced, **files}


def _analysis(store: Store, steps: list[int], name: str) -> dict[str, Any]:
    """An analysis with its figures: once what all steps share, by step what changes."""
    places: dict[str, int] = {}
    tables: dict[int, dict[str, Any]] = {}  # of the step before
    figures: list[list[Any]] = []
    at: dict[int, list[list[Any]]] = {}
    for step in steps:
        for entry in store.entries(step, name):
            place = places.setdefault(entry["key"], len(figures))
            if place == len(figures):
                size = _size(store.step_folder(step) / name / entry["file"])
                of = [entry[what] for what in ("key", "layer", "unit", "probe", "label", "file")]
                figures.append([*of, *size])
            file = None if entry["file"] == figures[place][5] else entry["file"]
            numbers = {key: _rounded(value) for key, value in entry["values"].items()}
            drawn = _drawn(entry, tables.get(place, {}))
            if "table" in entry:
                tables[place] = entry["table"]["columns"]
            at.setdefault(step, []).append([place, entry["caption"], numbers, file, *drawn])
    traits = traits_of(name)
    shown = {trait: getattr(traits, trait) for trait in PAGE_TRAITS}
    headlines = [summary.key for summary in traits.summaries if summary.headline]
    return {"name": name, **shown, "headlines": headlines, "figures": figures, "at": at}


def _drawn(entry: dict[str, Any], table_before: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page draws beside a figure, in a list: its histogram (heights from 0 to 99), the range of its
    scores, its class shares, its turntable, its table.

    Args:
        table_before: columns of its table at the step before, which are not repeated: null.
    """
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
        columns = {
            heading: None if column == table_before.get(heading) else _rounded_column(column)
            for heading, column in table["columns"].items()
        }
        drawn["table"] = {**table, "columns": columns}
    return [drawn] if drawn else []


def _rounded_column(column: list[Any]) -> list[Any]:
    return [value if isinstance(value, str) else _rounded(value) for value in column]


def _rounded(value: float | None) -> float | None:
    """A number to four digits."""
    return value if value is None or value == int(value) else float(f"{value:.4g}")


def _scalars(results: dict[int, dict[str, AnalysisResult]]) -> list[dict[str, Any]]:
    curves: dict[tuple[str, str], list[list[float]]] = {}
    for step, at in results.items():
        for name, result in at.items():
            for scalar in result.scalars:
                if math.isfinite(scalar.value):
                    curves.setdefault((name, scalar.key), []).append([step, scalar.value])
    return [{"analysis": name, "key": key, "points": points} for (name, key), points in curves.items()]


def _alarms(results: dict[int, dict[str, AnalysisResult]]) -> list[dict[str, Any]]:
    """What is wrong at each step, one entry an alarm."""
    return [
        {"step": step, "title": traits_of(name).title, "text": alarm.text}
        for step, at in results.items()
        for name, result in at.items()
        for alarm in result.alarms
    ]


def _downsampled(points: list[tuple[int, float]]) -> list[list[float]]:
    if len(points) <= POINTS:
        return [[step, value] for step, value in points]
    edges = [round(i * len(points) / POINTS) for i in range(POINTS + 1)]
    groups = [points[a:b] for a, b in itertools.pairwise(edges)]
    return [[group[-1][0], sum(value for _, value in group) / len(group)] for group in groups]


def _facts(settings: str) -> list[list[str]]:
    """The settings that are shown on the overview, as pairs of name and value."""
    try:
        tree = OmegaConf.create(settings)
        found = {name: OmegaConf.select(tree, key) for name, key in FACTS.items()}
    except (yaml.YAMLError, OmegaConfBaseException):
        return []
    return [[name, str(value)] for name, value in found.items() if value is not None]


def _size(path: Path) -> tuple[int, int]:
    """Width and height from a picture's header; 0, 0 where there is none."""
    try:
        with Image.open(path) as image:
            return image.size
    except OSError:
        return 0, 0
