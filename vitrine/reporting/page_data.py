"""The content of a run's page, read from the run's folder as plain data."""

import contextlib
import itertools
import math
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vitrine.analyses import traits_of
from vitrine.reporting import page_cache
from vitrine.reporting.page_cache import Known
from vitrine.reporting.page_parts import script_json
from vitrine.reporting.page_split import split_json
from vitrine.runs import held_out
from vitrine.runs.metrics_csv import read_curves
from vitrine.runs.run_record import read, read_facts

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
OWN_FOLDERS = ("analysis", "checkpoints", "wandb")  # of a run, in which there are no pages
POINTS = 300  # of a curve; more are averaged, the page draws no more pixels than that


def run_data(run_dir: str | Path, base: str = "") -> dict[str, Any]:
    """The content of the page for one run; complete steps only.

    Args:
        base: path from the page to the run's folder, "" or ending in "/".

    Returns:
        JSON's own types: name, base, settings (config.yaml's text), facts, pages, steps, analyses, scalars,
        alarms, tests (see `runs.held_out`), metrics.
    """
    run_dir = Path(run_dir)
    return whole(page_cache.read(run_dir, math.inf), about(run_dir, base))


def run_json(run_dir: Path, base: str = "") -> tuple[str, Known]:
    """`run_data` as JSON, or of a large run `page_split.split_json`; and what is known of the run.

    Raises:
        OSError: what a large run's figures show could not be written beside them.
    """
    known = page_cache.read(run_dir)
    fixed = about(run_dir, base)
    if known.split:
        return split_json(known, fixed, map(_described, _ordered(known))), known
    return script_json(whole(known, fixed)), known


def run_name(run_dir: Path) -> str:
    """What a run is called: as its record says, else its folder."""
    return read(run_dir).get("name") or run_dir.resolve().name


def about(run_dir: Path, base: str) -> dict[str, Any]:
    """What the page tells of a run beside its steps."""
    settings = ""
    with contextlib.suppress(OSError):
        settings = (run_dir / "config.yaml").read_text(encoding="utf-8", errors="replace")
    return {
        "name": run_name(run_dir),
        "base": base,
        "settings": settings,
        "facts": _facts(settings, read_facts(run_dir)),
        "pages": _pages_within(run_dir),
        "tests": held_out.read(run_dir),
        "metrics": {name: _downsampled(points) for name, points in read_curves(run_dir).items()},
    }


def whole(known: Known, fixed: dict[str, Any]) -> dict[str, Any]:
    """A run's content with all that its figures show."""
    return {
        **fixed,
        "steps": [
            {"step": step, "analyses": {name: part.outcome for name, part in at.items()}}
            for step, at in known.steps.items()
        ],
        "analyses": [{**_described(name), **_figures(known, name)} for name in _ordered(known)],
        "scalars": _scalars(known),
        "alarms": [
            {"step": step, "title": traits_of(name).title, "text": text}
            for step, at in known.steps.items()
            for name, part in at.items()
            for text in part.alarms
        ],
    }


def _ordered(known: Known) -> list[str]:
    """The analyses, in the order of the page."""
    names = dict.fromkeys(name for step in reversed(known.steps) for name in known.steps[step])
    return sorted(names, key=lambda name: traits_of(name).page_order)


def _described(name: str) -> dict[str, Any]:
    """What the page knows of an analysis, whatever it yielded."""
    traits = traits_of(name)
    shown = {trait: getattr(traits, trait) for trait in PAGE_TRAITS}
    return {
        "name": name,
        **shown,
        "headlines": [summary.key for summary in traits.summaries if summary.headline],
    }


def _figures(known: Known, name: str) -> dict[str, Any]:
    """The figures of an analysis: once what all steps share, by step what changes."""
    places: dict[str, int] = {}
    tables: dict[int, dict[str, Any]] = {}  # of the step before, whose columns are not repeated: null
    figures: list[list[Any]] = []
    at: dict[int, list[list[Any]]] = {}
    for step, parts in known.steps.items():
        part = parts.get(name)
        if part is None or not part.shown:
            continue
        for (key, *of, width, height, _), (caption, numbers, file, *drawn) in zip(
            known.texts[part.rows], part.shown
        ):
            place = places.setdefault(key, len(figures))
            if place == len(figures):
                figures.append([key, *of, file, width, height])
            if drawn and "table" in drawn[0]:
                table = drawn[0]["table"]
                before, tables[place] = tables.get(place, {}), table["columns"]
                columns = {
                    heading: None if column == before.get(heading) else column
                    for heading, column in table["columns"].items()
                }
                drawn = [{**drawn[0], "table": {**table, "columns": columns}}]
            other = None if file == figures[place][5] else file
            at.setdefault(step, []).append([place, caption, numbers, other, *drawn])
    return {"figures": figures, "at": at}


def _scalars(known: Known) -> list[dict[str, Any]]:
    curves: dict[tuple[str, str], list[list[float]]] = {}
    for step, at in known.steps.items():
        for name, part in at.items():
            for key, value in zip(known.texts[part.keys], part.values):
                if value is not None:
                    curves.setdefault((name, key), []).append([step, value])
    return [{"analysis": name, "key": key, "points": points} for (name, key), points in curves.items()]


def _downsampled(points: list[tuple[int, float]]) -> list[list[float]]:
    if len(points) <= POINTS:
        return [[step, value] for step, value in points]
    edges = [round(i * len(points) / POINTS) for i in range(POINTS + 1)]
    groups = [points[a:b] for a, b in itertools.pairwise(edges)]
    return [[group[-1][0], sum(value for _, value in group) / len(group)] for group in groups]


def _facts(settings: str, recorded: list[list[str]]) -> list[list[str]]:
    """The settings that are shown on the overview, then what the run has recorded: pairs of name and value.

    Where both have something, it is what was found that counts; a size of 0 says that it was to be found.
    """
    try:
        tree = OmegaConf.create(settings)
        found = {name: OmegaConf.select(tree, key) for name, key in FACTS.items()}
    except (yaml.YAMLError, OmegaConfBaseException):
        return recorded
    later = dict(map(tuple, recorded))
    values = {name: later.pop(name, value) for name, value in found.items()}
    shown = [[name, str(value)] for name, value in values.items() if value is not None]
    return [pair for pair in shown if pair != ["image size", "0"]] + [list(pair) for pair in later.items()]


def _pages_within(run_dir: Path) -> list[str]:
    """The folders, relative to the run's, of the pages that commands have made of it."""
    folders = [folder for folder in run_dir.glob("*/") if folder.name not in OWN_FOLDERS]
    files = [
        file for folder in folders for way in ("index.html", "*/index.html") for file in folder.glob(way)
    ]
    return sorted(file.parent.relative_to(run_dir).as_posix() for file in files)
