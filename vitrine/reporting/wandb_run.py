"""The W&B run of a run directory: everything it stages lies inside, and nothing it does can stop training."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
import string
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrine.core import atomic
from vitrine.core.bounded import Bounded
from vitrine.core.settings import setting
from vitrine.reporting import wandb_log, wandb_share
from vitrine.reporting.guarded_run import FINISH_SECONDS, GuardedRun
from vitrine.reporting.ranking import BEST
from vitrine.reporting.sinks import STEP, metric_key

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

_log = logging.getLogger(__name__)

PROJECT = "vitrine"
INIT_SECONDS = 30  # a server that does not answer by then is done without
OPEN_SECONDS = 240  # for all of opening a run, which asks a server several times
_placed: dict[str, str] = {}  # environment variables that are ours, and what we made them


@dataclass
class WandbSettings:
    """Weights & Biases: on-line where there is a key, else into the run directory, to be synced later."""

    mode: str = setting(
        "auto",
        "auto: online with an API key (WANDB_API_KEY or `wandb login`), else offline",
        choices=("auto", "online", "offline", "disabled"),
    )
    project: str | None = setting(
        None, "project the run is shown in; WANDB_PROJECT, or vitrine, unless given"
    )
    entity: str | None = setting(None, "user or team; your own unless given")
    group: str | None = setting(None, "name under which runs are gathered")
    job_type: str | None = setting(None, "what kind of run it is within its group")
    tags: list[str] = setting([], "words to find the run by")
    notes: str | None = setting(None, "what the run is for, in a sentence")
    page: bool = setting(True, "upload the page at the end (as much again as the analysis folder)")


def wandb_logger(
    run_dir: str | Path,
    settings: WandbSettings,
    *,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    part: str = "alone",
) -> tuple[WandbLogger | None, str]:
    """Open the run's W&B run, or go on with the one it had; never raises, never waits for a person.

    Args:
        run_dir: the run's folder; the W&B id is kept in its `wandb-id`.
        name: what to call it; the folder's name unless given.
        config: the settings to show with the run, as plain containers.
        part: "leader" where other processes log to the run as well, "follower" for these; see wandb_share.

    Returns:
        Lightning's logger, or None where W&B is disabled or did not start; and one line for the person: where
        the run is shown, or how to sync it.
    """
    from lightning.pytorch.loggers import WandbLogger  # seconds, which `--help` need not wait for
    from lightning.pytorch.utilities import rank_zero_only

    run_dir = Path(run_dir).resolve()
    mode = _mode(settings.mode)
    if mode == "disabled":
        return None, "W&B is disabled."
    project = settings.project or os.environ.get("WANDB_PROJECT") or PROJECT
    if part == "follower" and not (run_dir / "wandb-id").exists():
        return None, "The training does not log to W&B, so neither do those that follow it."
    if rank_zero_only.rank != 0:
        return WandbLogger(project=project, save_dir=str(run_dir)), ""
    bounded = Bounded("W&B")
    try:
        opened, why = bounded.ask(
            "init", OPEN_SECONDS, _open, run_dir, settings, mode, project, name, config, part
        )
        run = GuardedRun(opened, bounded)
        _define(run)
        had = bounded.ask("summary", INIT_SECONDS, _logged_before, run_dir, opened)
    except Exception as error:
        _log.warning("W&B did not start", exc_info=True)
        return None, f"W&B did not start, the run goes on without it ({_line(error)})."
    from vitrine.reporting.wandb_curves import Curves

    logger = Curves(run, had, project, run_dir)
    if not run.offline:
        return logger, f"W&B shows the run at {run.url}"
    place, all_of_them = Path(os.path.relpath(run_dir / "wandb")), "" if part == "alone" else "*"
    sync = f"wandb sync {place}/offline-run-*-{run.id}{all_of_them}"
    return logger, f"W&B is offline{why}; to upload the run: {sync}"


def _open(
    run_dir: Path, settings: WandbSettings, mode: str, project: str, name: str | None, config: Any, part: str
) -> tuple[Any, str]:
    import wandb

    _keep_inside(run_dir)
    why = ""
    if mode == "online" and not has_key():
        mode, why = "offline", " (there is no API key)"

    def start(mode: str) -> Any:
        mode = wandb_share.mode_of(run_dir, part, mode)
        wandb_share.mark(run_dir, part, shared=mode == "shared")
        return wandb.init(
            dir=str(run_dir),
            id=_run_id(run_dir),
            # off line it is written down, and `wandb sync` appends to what it finds
            resume=None if mode == "shared" else "allow",
            name=name or run_dir.name,
            project=project,
            entity=settings.entity,
            group=settings.group,
            job_type=settings.job_type,
            tags=list(settings.tags) or None,
            notes=settings.notes,
            config=dict(config or {}),
            reinit="create_new",  # whatever run a notebook has open is its own affair
            settings=wandb.Settings(
                mode=mode,
                silent=mode == "offline",
                init_timeout=INIT_SECONDS,
                login_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
                **wandb_share.settings_of(part),
            ),
        )

    try:
        return start(mode), why
    except Exception as error:
        if mode == "offline":
            raise
        _log.warning("W&B is not reached, the run is kept offline: %s", _line(error))
        wandb.teardown()  # the half-open run holds the id
        return start("offline"), " (the server was not reached)"


def _define(run: GuardedRun) -> None:
    """Steps as everybody's x axis, and what is best of the curves that rank runs."""
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    for metric, best in BEST.items():
        summary = f"{best.__name__},last"
        run.define_metric(metric_key(f"val/{metric}"), step_metric=STEP, step_sync=True, summary=summary)


def _logged_before(run_dir: Path, run: Any) -> dict[int, set[str]]:
    """The keys that earlier starts of the run have logged, by step, so that W&B has them."""
    from vitrine.reporting.wandb_curves import metrics_until

    if not run.offline:
        return metrics_until(run_dir, run.summary.get(STEP) if run.resumed else None)
    had: dict[int, set[str]] = {}
    for row in wandb_log.rows(run_dir, run.id):
        if STEP in row:
            had.setdefault(int(row[STEP]), set()).update(row)
    return had


def _mode(asked: str) -> str:
    """What `auto` comes to: what WANDB_MODE says, else online, which falls back without a key."""
    if asked != "auto":
        return asked
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return "disabled"
    said = os.environ.get("WANDB_MODE", "online").lower()
    return {"dryrun": "offline", "offline": "offline", "disabled": "disabled"}.get(said, "online")


def has_key() -> bool:
    """Whether W&B would find credentials without asking."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    known = wandb.setup().settings
    hosts = {urllib.parse.urlparse(known.base_url).hostname}
    if hosts & {"api.forge.coreweave.com"}:
        hosts.add("api.wandb.ai")  # what that server was called before
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if file and hosts & set(netrc.netrc(os.path.expanduser(file)).hosts):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return bool(getattr(known, "api_key", None))


def _keep_inside(run_dir: Path) -> None:
    """Point W&B's staging, cache and downloads into the run, unless the user has pointed them elsewhere."""
    folder = str(run_dir / "wandb")
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR"):
        if os.environ.get(variable) in (None, _placed.get(variable)):
            os.environ[variable] = _placed[variable] = folder
    os.makedirs(folder, exist_ok=True)


def _run_id(run_dir: Path) -> str:
    """The id the run had, else the one a sweep's agent gives, else a new one; kept for next time."""
    file = run_dir / "wandb-id"
    try:
        kept = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        kept = ""
    if kept and not os.environ.get("WANDB_SWEEP_ID"):
        return kept
    letters = string.ascii_lowercase + string.digits
    given = os.environ.get("WANDB_RUN_ID") or kept or "".join(secrets.choice(letters) for _ in range(8))
    if given != kept:
        atomic.write_text(file, given + "\n")
    return given


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
