"""A W&B workspace and a W&B report of what runs have logged, section by section.

    python analyze.py report RUN [RUN ...] [kind=workspace] [entity=TEAM] [project=NAME] [name="..."]
    python analyze.py report RUN [RUN ...] spec=FILE.json    write what would be saved; no account is needed

Plain runs stand beside robust ones. Needs `pip install -e ".[report]"`, and a login: `wandb login`, or
WANDB_API_KEY. What is made here is tested against the keys that offline runs log and against the package's
own checks of it, and against a stand-in for W&B's server, never yet against W&B's own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrine.cli.arguments import find_runs
from vitrine.core import atomic
from vitrine.core.settings import SettingError, setting

SECONDS = 30  # for an answer of the server


@dataclass(frozen=True)
class Settings:
    kind: str = setting("both", "what to make", choices=("both", "workspace", "report"))
    name: str | None = setting(None, "what to call it; the runs' names unless given")
    entity: str | None = setting(None, "user or team; the runs' own, or yours, unless given")
    project: str | None = setting(None, "the runs' own unless given")
    everything: bool = setting(False, "show all runs of the project, not only these")
    spec: str | None = setting(None, "write what would be saved into this JSON file, and save nothing")


def main(words: list[str], settings: Settings) -> None:
    folders = find_runs("report", words)
    views = _build(settings, folders)
    if settings.spec is not None:
        from vitrine.reporting.wandb_internals import view_spec

        file, content = Path(settings.spec), {kind: view_spec(view) for kind, view in views.items()}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_json(file, content)
        except OSError as error:
            raise SettingError("spec", f"{file} cannot be written: {error.strerror}") from None
        print(f"what would be saved: {settings.spec}")
        return
    for kind, view in views.items():
        try:
            view.save()
        except Exception as error:
            raise SettingError("report", f"W&B did not take the {kind}: {_first_line(error)}") from error
        print(f"the {kind}: {view.url}")


def _build(settings: Settings, folders: list[Path]) -> dict[str, Any]:
    """The workspace, the report or both, by kind."""
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        problem = 'needs the package wandb-workspaces: pip install -e ".[report]"'
        raise SettingError("report", problem) from None
    from vitrine.reporting import wandb_report

    runs = []
    for folder in folders:
        try:
            runs.append(wandb_report.read_run(folder))
        except FileNotFoundError:
            raise SettingError(str(folder), "was never logged to W&B (no wandb-id)") from None
    default_entity = _default_entity() if settings.spec is None else ""  # nothing is saved without a login
    place = {
        "entity": settings.entity or next((run.entity for run in runs if run.entity), default_entity),
        "project": settings.project or next((run.project for run in runs if run.project), "vitrine"),
        "name": settings.name or " beside ".join(run.name for run in runs)[:128],
    }
    kinds = ("workspace", "report") if settings.kind == "both" else (settings.kind,)
    shown = [] if settings.everything else runs
    return {kind: getattr(wandb_report, kind)(folders, shown, **place) for kind in kinds}


def _default_entity() -> str:
    """The entity of the login."""
    import wandb

    from vitrine.reporting.wandb_internals import login_problem

    if problem := login_problem():
        expected = "needs a W&B account: `wandb login`, or WANDB_API_KEY; spec=FILE.json needs none"
        raise SettingError("report", f"{expected} ({problem})")
    try:
        return wandb.Api(timeout=SECONDS).default_entity
    except Exception as error:
        raise SettingError("report", f"W&B did not answer: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
