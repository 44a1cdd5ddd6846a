"""A W&B workspace and a W&B report of what runs have logged, in the order of `sinks.STORY`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vitrine.reporting.ranking import headlines
from vitrine.reporting.sinks import STEP, STORY, UNITS, media_key, metric_key, scalar_key, section
from vitrine.runs.metrics_csv import read_curves
from vitrine.runs.store import Store

_INTRODUCTIONS = {
    "Training": "What was minimised, and what came of it on images that were never trained on.",
    "Robustness": "The same images under attack.",
    "Examples": "The images that excite each unit most, cut out and in place.",
    "Class maps": "Where the network looks, and how much of that lies on the object.",
    "Features": "What each unit and each class would like to see.",
    "Adversarial": "What fools the network, and what it takes.",
    "Classes": "Accuracy of each class.",
    "Time": "Seconds that each technique took.",
}
_OPEN = ("Training", "Robustness", "Examples")  # sections of the workspace that are not collapsed
# columns of the table of runs, before the headlines of the techniques; shown where a run has them
_COLUMNS = ("best/accuracy", "last/accuracy", "best/robust_accuracy", "last/robust_gap")


@dataclass
class LoggedKeys:
    """The keys that runs have on W&B.

    Attributes:
        curves: keys of metrics and scalars, by section and panel.
        media: keys of pictures, by section and technique.
        headlines: keys of the techniques' headline summaries.
        units: whether there is a table of units.
    """

    curves: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    media: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    headlines: list[str] = field(default_factory=list)
    units: bool = False

    def columns(self) -> list[str]:
        """The columns of the table of runs."""
        return [f"summary:{key}" for key in (*_COLUMNS, *self.headlines, "seconds/analyses")]

    def sections(self) -> list[str]:
        """The sections with keys: those of the story in its order, then the others."""
        present = dict.fromkeys([*self.curves, *self.media])
        return sorted(present, key=lambda name: STORY.index(name) if name in STORY else len(STORY))


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


def logged_keys(run_dirs: Sequence[Path]) -> LoggedKeys:
    """The keys under which W&B has what lies in these runs' folders."""
    found = LoggedKeys()

    def add(sections: dict[str, dict[str, list[str]]], section: str, panel: str, key: str) -> None:
        keys = sections.setdefault(section, {}).setdefault(panel, [])
        if key not in keys:
            keys.append(key)

    for run_dir in run_dirs:
        for name in read_curves(run_dir):
            key = metric_key(name)
            add(found.curves, key.split("/")[0], _panel(name), key)
        store = Store(run_dir)
        for step in store.steps():
            for analysis in store.results(step):
                add(found.curves, "Time", "seconds", scalar_key(analysis, f"seconds/{analysis}"))
                for scalar in store.scalars(step, analysis):
                    key = scalar_key(analysis, scalar.key)
                    of, *parts = key.split("/")
                    add(found.curves, of, "/".join(parts[:-1] or parts), key)
                for entry in store.entries(step, analysis):
                    add(found.media, section(analysis), analysis, media_key(analysis, entry["layer"]))
                    of_unit = entry["layer"] is not None and entry["unit"] is not None
                    found.units |= of_unit and entry["probe"] is None
        found.headlines += [key for key in headlines(run_dir) if key not in found.headlines]
    return found


def read_run(run_dir: Path) -> Run:
    """A run's identity on W&B.

    Raises:
        FileNotFoundError: it was never logged there.
    """
    settings = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    objective = (settings.get("objective") or {}).get("name", "standard")
    wandb = (settings.get("logging") or {}).get("wandb") or {}
    return Run(
        id=(run_dir / "wandb-id").read_text(encoding="utf-8").strip(),
        name=(settings.get("run") or {}).get("name") or run_dir.name,
        robust=objective != "standard",
        project=wandb.get("project"),
        entity=wandb.get("entity"),
    )


def workspace(keys: LoggedKeys, runs: Sequence[Run], *, entity: str, project: str, name: str) -> Any:
    """A `wandb_workspaces.workspaces.Workspace` with the sections of `keys`, filtered to these runs.

    Args:
        runs: those to show; all of the project where there are none.
    """
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            ws.Section(name=name, panels=_panels(keys, name), is_open=name in _OPEN)
            for name in keys.sections()
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(filters=_filter(runs), pinned_columns=keys.columns()),
    )


def report(keys: LoggedKeys, runs: Sequence[Run], *, entity: str, project: str, name: str) -> Any:
    """A `wandb_workspaces.reports.v2.Report`: a chapter for each section, plain runs beside robust ones.

    Args:
        runs: those to show; all of the project where there are none.
    """
    import wandb_workspaces.reports.v2 as wr

    sets = {"plain": [r for r in runs if not r.robust], "robust": [r for r in runs if r.robust]}
    sets = {kind: of_kind for kind, of_kind in sets.items() if of_kind} or {"runs": []}

    def runsets() -> list[Any]:
        columns = ["run:displayName", *keys.columns()]
        return [
            wr.Runset(name=kind, filters=_filter(of_kind), pinned_columns=columns)
            for kind, of_kind in sets.items()
        ]

    blocks: list[Any] = [wr.TableOfContents()]
    for title in keys.sections():
        blocks.append(wr.H2(text=title))
        if title in _INTRODUCTIONS:
            blocks.append(wr.P(text=_INTRODUCTIONS[title]))
        blocks.append(wr.PanelGrid(runsets=runsets(), panels=_panels(keys, title)))
    return wr.Report(entity=entity, project=project, title=name, blocks=blocks, width="fluid")


def _panels(keys: LoggedKeys, section: str) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    panels: list[Any] = [
        wr.LinePlot(title=title, x=STEP, y=curves) for title, curves in keys.curves.get(section, {}).items()
    ]
    for technique, media in keys.media.get(section, {}).items():
        wide = wr.Layout(w=24, h=12)
        panels.append(wr.MediaBrowser(title=technique.replace("_", " "), media_keys=media, layout=wide))
    if keys.units and UNITS.split("/")[0] == section:
        panels.append(wr.WeavePanelSummaryTable(table_name=UNITS, layout=wr.Layout(w=24, h=16)))
    return panels


def _filter(runs: Sequence[Run]) -> str:
    """The filter that lets these runs through; all where there are none."""
    return f"Metric('ID') in [{', '.join(repr(run.id) for run in runs)}]" if runs else ""


def _panel(metric: str) -> str:
    """The panel that a metric is shown in: "loss" for "train/loss" and "val/loss"."""
    prefix, *rest = metric.split("/")
    if metric_key(metric).startswith("Classes/"):
        return "accuracy"
    return rest[-1] if rest and prefix in ("train", "val") else prefix
