"""The W&B run of a run directory: everything it stages lies inside, and nothing it does can stop training.

Where processes follow a training, all log to one W&B run: the training leads, the others add pictures. Online
W&B calls this shared mode. *Every* process of the run has to be in it: a training that is not loses the rows
that it logged first as soon as another joins in shared mode (wandb issue 12269). So a leader leaves a mark in
the run's folder, and followers of a training without that mark stay offline.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shlex
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrine.core import atomic
from vitrine.core.bounded import BoundedCaller, CallTimeout
from vitrine.core.registry import nearest
from vitrine.core.settings import SettingError, setting
from vitrine.reporting import wandb_internals, wandb_offline
from vitrine.reporting.guarded_run import FINISH_SECONDS, GuardedRun
from vitrine.reporting.ranking import BEST
from vitrine.reporting.sinks import STEP, metric_key

if TYPE_CHECKING:
    from vitrine.reporting.wandb_history import MetricsLogger

_log = logging.getLogger(__name__)

PROJECT = "vitrine"
MODES = ("online", "offline", "shared", "disabled", "dryrun", "run")  # of WANDB_MODE
INIT_SECONDS = 30  # a server that does not answer by then is done without
LOGIN_SECONDS = 10  # for asking whether it takes the API key
OPEN_SECONDS = 240  # for all of opening a run, which asks a server several times
_ID, _SHARED = "wandb-id", "wandb-shared"  # files of a run: its id on W&B, and the leader's mark
_staging: dict[str, str] = {}  # environment variables that were set here, with their values


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
) -> tuple[MetricsLogger | None, str]:
    """Open a run directory's W&B run, new or resumed. Raises nothing and prompts nobody.

    Args:
        run_dir: the run's folder; the W&B id is kept in its `wandb-id`.
        name: the run's name; the folder's unless given.
        config: the settings to show with the run, as plain containers.
        part: "leader" where other processes log to the run as well, "follower" for these; else "alone".

    Returns:
        Lightning's logger, or None where W&B is disabled or did not start; and one line for the person: where
        the run is shown, or how to sync it.
    """
    run_dir = Path(run_dir).resolve()
    mode, resumed = _mode(settings.mode), (run_dir / _ID).exists()
    if mode == "disabled":
        return None, "W&B is disabled."
    if part == "follower" and not resumed:
        return None, "The training does not log to W&B, so neither do those that follow it."
    from vitrine.reporting.wandb_history import MetricsLogger, logged_keys  # seconds; `--help` need not wait

    caller = BoundedCaller("W&B")
    try:
        opened, reason = caller.call(OPEN_SECONDS, _open, run_dir, settings, mode, name, config, part)
        run = GuardedRun(opened, caller)
        _define_metrics(run)
        # a follower logs no metrics
        logged = logged_keys(opened, run_dir) if resumed and part != "follower" else {}
        logger = MetricsLogger(run, logged, run_dir)
        if part != "follower":
            logger.log_missing(run_dir)
    except Exception as error:
        _log.warning("W&B did not start", exc_info=True)
        return None, f"W&B did not start, the run goes on without it ({_first_line(error)})."
    if not run.offline:
        return logger, f"W&B shows the run at {run.url}"
    folders = f"wandb/offline-run-*-{run.id}" + ("" if part == "alone" else "*")
    sync = f"cd {shlex.quote(os.path.relpath(run_dir))} && wandb sync {folders}"
    return logger, f"W&B is offline{reason}; to upload the run: {sync}"


def check_login(run_dir: Path, settings: WandbSettings) -> None:
    """Check the login of a run that is about to start; one that goes on does so without W&B if need be.

    Without a login the run is offline, as it is where the server does not answer.

    Raises:
        SettingError: the API key is none, or W&B's server does not take it; WANDB_MODE is none of its modes.
    """
    if settings.mode == "disabled" or (run_dir / _ID).exists():
        return
    given = os.environ.get("WANDB_MODE", "online")
    if given not in MODES:  # W&B itself would end in a traceback
        hint = f"; did you mean {close[0]}?" if (close := nearest(given, MODES, most=1)) else ""
        expected = f"expected one of {', '.join(MODES)}, or none"
        raise SettingError("WANDB_MODE", f"is {given!r} in the environment, {expected}{hint}")
    if _mode(settings.mode) != "online":
        return
    problem = wandb_internals.login_problem()
    if problem is None:
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            contextlib.suppress(CallTimeout),
        ):
            _stage_inside(Path(folder))  # where W&B's service writes its log
            ask = BoundedCaller("W&B's login").call
            problem = ask(OPEN_SECONDS, wandb_internals.login_refusal, LOGIN_SECONDS)
    if problem and problem != wandb_internals.NO_KEY:
        expected = "expected one of `wandb login --relogin`, or logging.wandb.mode=offline"
        raise SettingError("logging.wandb", f"{problem}, {expected}")


def _open(
    run_dir: Path, settings: WandbSettings, mode: str, name: str | None, config: Any, part: str
) -> tuple[Any, str]:
    """A `wandb.Run`, and why it is offline where it was meant to be online."""
    import wandb

    _stage_inside(run_dir)
    # W&B's telemetry about itself, of which nobody needs to know that it fails
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    reason = ""
    if mode == "online" and (problem := wandb_internals.login_problem()):
        mode, reason = "offline", f" ({problem})"
    elif mode == "online" and part == "leader":
        mode = "shared"
    elif mode == "online" and part == "follower":
        mode = "shared" if (run_dir / _SHARED).exists() else "offline"
    more = _follower_settings() if part == "follower" else {}

    def init(mode: str) -> Any:
        if part != "follower":
            (run_dir / _SHARED).unlink(missing_ok=True)
        if mode == "shared":
            atomic.write_text(run_dir / _SHARED, "the processes of this run log to W&B in shared mode\n")
        run = wandb.init(
            dir=str(run_dir),
            id=_run_id(run_dir),
            # offline it is written down, and `wandb sync` appends to what it finds
            resume=None if mode == "shared" else "allow",
            name=name or run_dir.name,
            project=settings.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=settings.entity,
            group=settings.group,
            job_type=settings.job_type,
            tags=list(settings.tags) or None,
            notes=settings.notes,
            config=dict(config or {}),
            reinit="create_new",  # a run that a notebook has open stays open
            settings=wandb.Settings(
                mode=mode,
                silent=mode == "offline",
                init_timeout=INIT_SECONDS,
                login_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
                **more,
            ),
        )
        if run.offline:
            wandb_offline.store_relative_paths(run, run_dir)
        else:
            wandb_internals.log_artifacts_without_waiting(run)
        return run

    try:
        return init(mode), reason
    except Exception as error:
        if mode == "offline":
            raise
        wandb.teardown()  # the half-open run holds the id
        refused = wandb_internals.login_refusal(LOGIN_SECONDS)
        _log.warning("W&B keeps the run offline: %s", refused or _first_line(error))
        return init("offline"), f" ({refused or 'the server was not reached'})"


def _follower_settings() -> dict[str, Any]:
    process = f"{socket.gethostname()}-{os.getpid()}"
    return {
        "x_primary": False,  # the leader's settings, hardware and files stand
        "x_update_finish_state": False,  # a follower that ends does not end the run
        "x_label": f"follower-{process}",
        "x_sync_dir_suffix": process,  # offline: two that start in the same second
    }


def _define_metrics(run: GuardedRun) -> None:
    """Steps as the x axis of every metric, and in the summary the best of the curves that rank runs."""
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    for metric, best in BEST.items():
        summary = f"{best.__name__},last"
        run.define_metric(metric_key(f"val/{metric}"), step_metric=STEP, step_sync=True, summary=summary)


def _mode(setting: str) -> str:
    """W&B's mode for a setting; "auto": WANDB_MODE's, else online, which falls back without a key."""
    if setting != "auto":
        return setting
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return "disabled"
    mode = os.environ.get("WANDB_MODE", "online").lower()
    return {"dryrun": "offline", "offline": "offline", "disabled": "disabled"}.get(mode, "online")


def _stage_inside(run_dir: Path) -> None:
    """Point W&B's staging, cache and downloads into the run, unless the user has pointed them elsewhere."""
    folder = str(run_dir / "wandb")
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR"):
        if os.environ.get(variable) in (None, _staging.get(variable)):
            os.environ[variable] = _staging[variable] = folder
    os.makedirs(folder, exist_ok=True)


def _run_id(run_dir: Path) -> str:
    """The id the run had, else the one a sweep's agent gives, else a new one; kept for next time."""
    file = run_dir / _ID
    stored = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if stored and not os.environ.get("WANDB_SWEEP_ID"):
        return stored
    run_id = os.environ.get("WANDB_RUN_ID") or stored or secrets.token_hex(6)
    if run_id != stored:
        atomic.write_text(file, run_id + "\n")
    return run_id


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
