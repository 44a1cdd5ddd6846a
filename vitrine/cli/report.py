"""A W&B workspace and a W&B report that tell what runs have logged, section by section.

    python analyze.py report RUN [RUN ...] [kind=workspace] [entity=TEAM] [project=NAME] [name="..."]
    python analyze.py report RUN [RUN ...] spec=FILE.json    write what would be saved; no account is needed

Plain runs stand beside robust ones. Needs `pip install -e ".[report]"`, and a login: `wandb login`, or
WANDB_API_KEY. What is made here is tested against the keys that offline runs log and against the package's
own checks of it, and never yet against a W&B server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vitrine import config
from vitrine.cli.arguments import print_command_help_if_asked, split_arguments
from vitrine.core.settings import SettingError, setting
from vitrine.runs import run_folders


@dataclass(frozen=True)
class Settings:
    kind: str = setting("both", "what to make", choices=("both", "workspace", "report"))
    name: str | None = setting(None, "what to call it; the runs' names unless given")
    entity: str | None = setting(None, "user or team; the runs' own, or yours, unless given")
    project: str | None = setting(None, "the runs' own unless given")
    everything: bool = setting(False, "show all runs of the project, not only these")
    spec: str | None = setting(None, "write what would be saved into this JSON file, and save nothing")


def main(arguments: list[str]) -> None:
    if print_command_help_if_asked(arguments, __doc__, Settings):
        return
    words, model, own = split_arguments(arguments)
    settings = config.parse_settings(Settings, [*own, *model])
    folders = list(dict.fromkeys(run_folders.find_run(word) for word in words))
    if not folders:
        known = run_folders.describe_runs("runs")
        raise SettingError("report", f"no run came, expected at least one; {known}")
    made = _made(settings, folders)
    if settings.spec is not None:
        _write(Path(settings.spec), {kind: _spec(thing) for kind, thing in made.items()})
        print(f"what would be saved: {settings.spec}")
        return
    for kind, thing in made.items():
        try:
            thing.save()
        except Exception as error:
            raise SettingError("report", f"W&B did not take the {kind}: {_line(error)}") from error
        print(f"the {kind}: {thing.url}")


def _made(settings: Settings, folders: list[Path]) -> dict[str, Any]:
    """What was asked for, by kind."""
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise SettingError(
            "report", 'needs the package wandb-workspaces: pip install -e ".[report]"'
        ) from None
    from vitrine.reporting import wandb_report

    them, project, entity = [], settings.project, settings.entity
    for folder in folders:
        try:
            them.append(wandb_report.run_of(folder))
        except FileNotFoundError:
            raise SettingError(str(folder), "was never logged to W&B (no wandb-id)") from None
        told = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        place = (told.get("logging") or {}).get("wandb") or {}
        project, entity = project or place.get("project"), entity or place.get("entity")
    named = {
        "entity": entity or ("" if settings.spec is not None else _entity()),
        "project": project or "vitrine",
        "name": settings.name or " beside ".join(run.name for run in them)[:128],
    }
    if settings.spec is None:
        _entity()  # nothing is made without a login
    found = wandb_report.logged(folders)
    kinds = ("workspace", "report") if settings.kind == "both" else (settings.kind,)
    shown = [] if settings.everything else them
    return {kind: getattr(wandb_report, kind)(found, shown, **named) for kind in kinds}


def _entity() -> str:
    """Whose login it is."""
    from vitrine.reporting.wandb_run import has_key

    if not has_key():
        raise SettingError(
            "report", "needs a W&B account: `wandb login`, or WANDB_API_KEY; spec=FILE.json needs none"
        )
    import wandb

    try:
        return wandb.Api(timeout=30).default_entity
    except Exception as error:
        raise SettingError("report", f"W&B did not answer: {_line(error)}") from error


def _spec(thing: Any) -> Any:
    """What the package sends to W&B, as plain containers."""
    return json.loads(thing._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def _write(file: Path, content: Any) -> None:
    from vitrine.core import atomic

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(file, content)
    except OSError as error:
        raise SettingError("spec", f"{file} cannot be written: {error.strerror}") from None


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
