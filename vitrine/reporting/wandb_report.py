"""A W&B workspace and a W&B report out of what runs have logged: the story of gallery.sinks, from the top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vitrine.reporting.sinks import STEP, STORY, UNITS, media_key, metric_key, scalar_key, section
from vitrine.runs.metrics_csv import read_curves
from vitrine.runs.store import Store

_SAYS = {
    "Training": "What was minimised, and what came of it on images that were never trained on.",
    "Robustness": "The same images under attack.",
    "Examples": "The images that excite each unit most, cut out and in place.",
    "Class maps": "Where the network looks, and how much of that lies on the object.",
    "Features": "What each unit and each class would like to see.",
    "Adversarial": "What fools the network, and what it takes.",
    "Classes": "Accuracy of each class.",
    "Time": "Seconds that each technique took.",
}
# columns of the table of runs, those that some run has
_COLUMNS = (
    "best/accuracy",
    "last/accuracy",
    "best/robust_accuracy",
    "last/robust_gap",
    "last/pointing_game/sign",
    "last/dead_units",
    "seconds/analyses",
)


@dataclass
class Logged:
    """The keys that runs have on W&B.

    Attributes:
        curves: keys of numbers, by section and panel.
        media: keys of pictures, by section and technique.
        units: whether there is a table of units.
    """

    curves: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    media: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    units: bool = False

    def sections(self) -> list[str]:
        """Those that have something to show, in the order of the story, then the others."""
        there = [*self.curves, *self.media]
        return [*(s for s in STORY if s in there), *dict.fromkeys(s for s in there if s not in STORY)]


@dataclass(frozen=True)
class Run:
    """A run's id on W&B, its name, and whether it was trained against attacks."""

    id: str
    name: str
    robust: bool


def logged(run_dirs: Sequence[Path]) -> Logged:
    """What the sinks made of what lies in these runs' folders."""
    found = Logged()

    def curve(key: str, panel: str) -> None:
        keys = found.curves.setdefault(key.split("/")[0], {}).setdefault(panel, [])
        if key not in keys:
            keys.append(key)

    for run_dir in run_dirs:
        for name in read_curves(run_dir):
            curve(metric_key(name), _panel(name))
        store = Store(run_dir)
        for step in store.steps():
            for analysis in store.results(step):
                curve(f"Time/{analysis}", "seconds")
                for scalar in store.scalars(step, analysis):
                    key = scalar_key(analysis, scalar.key)
                    parts = key.split("/")[1:]
                    curve(key, "/".join(parts[:-1] or parts))
                techniques = found.media.setdefault(section(analysis), {})
                for entry in store.entries(step, analysis):
                    keys = techniques.setdefault(analysis, [])
                    if (key := media_key(analysis, entry["layer"])) not in keys:
                        keys.append(key)
                    whole = entry["layer"] is not None and entry["unit"] is not None
                    found.units |= whole and entry["probe"] is None
    found.media = {of: techniques for of, techniques in found.media.items() if techniques}
    return found


def run_of(run_dir: Path) -> Run:
    """Who a run is on W&B.

    Raises:
        FileNotFoundError: it was never logged there.
    """
    told = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    identity = (run_dir / "wandb-id").read_text(encoding="utf-8").strip()
    objective = (told.get("objective") or {}).get("name", "standard")
    return Run(identity, (told.get("run") or {}).get("name") or run_dir.name, objective != "standard")


def workspace(found: Logged, runs: Sequence[Run], *, entity: str, project: str, name: str) -> Any:
    """A `wandb_workspaces.workspaces.Workspace`: a section for each of the story, only these runs shown.

    Args:
        runs: those to show; all of the project where there are none.
    """
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            ws.Section(
                name=of, panels=_panels(found, of), is_open=of in ("Training", "Robustness", "Examples")
            )
            for of in found.sections()
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            filters=_only(runs), pinned_columns=[f"summary:{column}" for column in _COLUMNS]
        ),
    )


def report(found: Logged, runs: Sequence[Run], *, entity: str, project: str, name: str) -> Any:
    """A `wandb_workspaces.reports.v2.Report`: a chapter for each section, plain runs beside robust ones.

    Args:
        runs: those to show; all of the project where there are none.
    """
    import wandb_workspaces.reports.v2 as wr

    kinds = {"plain": [r for r in runs if not r.robust], "robust": [r for r in runs if r.robust]}
    sets = {kind: of for kind, of in kinds.items() if of} or {"runs": []}

    def runsets() -> list[Any]:
        return [
            wr.Runset(
                name=kind,  # of the report's own project
                filters=_only(of),
                pinned_columns=["run:displayName", *(f"summary:{column}" for column in _COLUMNS)],
            )
            for kind, of in sets.items()
        ]

    blocks: list[Any] = [wr.TableOfContents()]
    for of in found.sections():
        blocks += [wr.H2(text=of), *([wr.P(text=_SAYS[of])] if of in _SAYS else [])]
        blocks.append(wr.PanelGrid(runsets=runsets(), panels=_panels(found, of)))
    return wr.Report(entity=entity, project=project, title=name, blocks=blocks, width="fluid")


def _panels(found: Logged, of: str) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    panels: list[Any] = [
        wr.LinePlot(title=title, x=STEP, y=keys) for title, keys in found.curves.get(of, {}).items()
    ]
    for technique, keys in found.media.get(of, {}).items():
        wide = wr.Layout(w=24, h=12)
        panels.append(wr.MediaBrowser(title=technique.replace("_", " "), media_keys=keys, layout=wide))
    if found.units and UNITS.split("/")[0] == of:
        panels.append(wr.WeavePanelSummaryTable(table_name=UNITS, layout=wr.Layout(w=24, h=16)))
    return panels


def _only(runs: Sequence[Run]) -> str:
    """The filter that lets these runs through; all where there are none."""
    return f"Metric('ID') in [{', '.join(repr(run.id) for run in runs)}]" if runs else ""


def _panel(metric: str) -> str:
    """The panel that a metric is shown in: "loss" for "train/loss" and "val/loss"."""
    of, *rest = metric.split("/")
    if metric_key(metric).startswith("Classes/"):
        return "accuracy"
    return rest[-1] if rest and of in ("train", "val") else of
