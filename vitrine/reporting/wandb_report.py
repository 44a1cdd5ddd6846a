"""A W&B workspace and a W&B report of what runs have logged, in the order of `sinks.STORY`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vitrine.reporting.bounds import is_of_unit, shown_layers, shown_tables
from vitrine.reporting.ranking import headlines
from vitrine.reporting.sinks import STEP, STORY, UNITS, media_key, metric_key, named_scalars, table_key
from vitrine.runs.metrics_csv import read_curves
from vitrine.runs.store import Store

_INTRODUCTIONS = {
    "alarm": "1 where something is wrong, which the page says.",
    "Training": "What was minimised, and what came of it on images that were never trained on.",
    "Robustness": "The same images under attack.",
    "Examples": "The images that excite each unit most, cut out and in place.",
    "Class maps": "Where the network looks, and how much of that lies on the object.",
    "Features": "What each unit and each class would like to see.",
    "Adversarial": "What fools the network, and what it takes.",
    "Classes": "Accuracy of each class.",
    "Time": "Seconds that each technique took.",
}
Panels = dict[tuple[str, str, str], dict[str, None]]  # keys by section, kind ("curves", ...) and title
_OPEN = ("Training", "Robustness", "Examples")  # sections of the workspace that are not collapsed
_ONE_PLOT = {"Classes": "accuracy", "Time": "seconds"}  # sections whose curves share a plot, with its title
# columns of the table of runs, before the headlines of the techniques; shown where a run has them
_COLUMNS = ("best/accuracy", "last/accuracy", "best/robust_accuracy", "last/robust_gap")


@dataclass(frozen=True)
class Run:
    """A run on W&B.

    Attributes:
        robust: whether it was trained against attacks.
        project, entity: as its settings have them, None where they leave it to W&B.
    """

    id: str
    name: str
    robust: bool
    project: str | None
    entity: str | None


def logged_panels(run_dirs: Sequence[Path]) -> Panels:
    """The panels that show what lies in these runs' folders, under the keys that W&B has it."""
    found: Panels = {}

    def add(kind: str, key: str) -> None:
        section, *parts = key.split("/")
        title = parts[0]
        if kind == "table":
            title = "/".join(parts)  # one a panel
        if kind == "curves":
            one_plot = parts[-1:] if title in ("train", "val") else parts[:-1] or parts
            title = _ONE_PLOT.get(section, "/".join(one_plot))
        found.setdefault((section, kind, title), {})[key] = None

    for run_dir in run_dirs:
        for name in read_curves(run_dir):
            add("curves", metric_key(name))
        store = Store(run_dir)
        for step in store.steps():
            for analysis, result in store.results(step).items():
                for key in named_scalars(analysis, result):
                    add("curves", key)
                entries = store.entries(step, analysis)
                for layer in shown_layers(entry["layer"] for entry in entries):
                    add("media", media_key(analysis, layer))
                for key in shown_tables(entry["key"] for entry in entries if "table" in entry):
                    add("table", table_key(analysis, key))
                for entry in entries:
                    if is_of_unit(entry["layer"], entry["unit"], entry["probe"]):
                        add("table", UNITS)
    return found


def columns(run_dirs: Sequence[Path]) -> list[str]:
    """The columns of the table of runs, with the headlines of the techniques that these runs have."""
    of_techniques = dict.fromkeys(key for run_dir in run_dirs for key in headlines(run_dir))
    return [f"summary:{key}" for key in (*_COLUMNS, *of_techniques, "seconds/analyses")]


def read_run(run_dir: Path) -> Run:
    """A run's identity on W&B.

    Raises:
        FileNotFoundError: it was never logged there.
    """
    settings = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    wandb = (settings.get("logging") or {}).get("wandb") or {}
    return Run(
        id=(run_dir / "wandb-id").read_text(encoding="utf-8").strip(),
        name=(settings.get("run") or {}).get("name") or run_dir.name,
        robust=(settings.get("objective") or {}).get("name", "standard") != "standard",
        project=wandb.get("project"),
        entity=wandb.get("entity"),
    )


def workspace(run_dirs: Sequence[Path], runs: Sequence[Run], *, name: str, **place: str) -> Any:
    """A `wandb_workspaces.workspaces.Workspace` with what these folders have logged.

    Args:
        runs: those to show; all of the project where there are none.
        place: `entity` and `project`.
    """
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        **place,
        name=name,
        sections=[
            ws.Section(name=section, panels=panels, is_open=section in _OPEN)
            for section, panels in _sections(run_dirs).items()
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(filters=_filter(runs), pinned_columns=columns(run_dirs)),
    )


def report(run_dirs: Sequence[Path], runs: Sequence[Run], *, name: str, **place: str) -> Any:
    """A `wandb_workspaces.reports.v2.Report`: a chapter for each section, plain runs beside robust ones.

    Its arguments are those of `workspace`.
    """
    import wandb_workspaces.reports.v2 as wr

    plain, robust = [r for r in runs if not r.robust], [r for r in runs if r.robust]
    sets = [(kind, of) for kind, of in (("plain", plain), ("robust", robust)) if of] or [("runs", [])]
    pinned = ["run:displayName", *columns(run_dirs)]
    blocks: list[Any] = [wr.TableOfContents()]
    for section, panels in _sections(run_dirs).items():
        blocks.append(wr.H2(text=section))
        if section in _INTRODUCTIONS:
            blocks.append(wr.P(text=_INTRODUCTIONS[section]))
        runsets = [wr.Runset(name=kind, filters=_filter(of), pinned_columns=pinned) for kind, of in sets]
        blocks.append(wr.PanelGrid(runsets=runsets, panels=panels))
    return wr.Report(**place, title=name, blocks=blocks, width="fluid")


def _sections(run_dirs: Sequence[Path]) -> dict[str, list[Any]]:
    """Panels by section: those of the story in its order, then the others."""
    import wandb_workspaces.reports.v2 as wr

    def panel(kind: str, title: str, keys: list[str]) -> Any:
        if kind == "curves":
            return wr.LinePlot(title=title, x=STEP, y=keys)
        if kind == "media":
            wide = wr.Layout(w=24, h=12)
            return wr.MediaBrowser(title=title.replace("_", " "), media_keys=keys, layout=wide)
        return wr.WeavePanelSummaryTable(table_name=keys[0], layout=wr.Layout(w=24, h=16))

    found = logged_panels(run_dirs)
    order = [*STORY, *(section for section, _, _ in found)]
    sections: dict[str, list[Any]] = {}
    for section, kind, title in sorted(found, key=lambda place: (order.index(place[0]), place[1])):
        sections.setdefault(section, []).append(panel(kind, title, list(found[section, kind, title])))
    return sections


def _filter(runs: Sequence[Run]) -> str:
    """The filter that lets these runs through; all where there are none."""
    return f"Metric('ID') in [{', '.join(repr(run.id) for run in runs)}]" if runs else ""
