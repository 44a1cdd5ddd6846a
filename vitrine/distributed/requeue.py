"""What follows when a run was interrupted: how it goes on, and SLURM's queue."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from vitrine.core.bounded import BoundedCaller, CallTimeout
from vitrine.distributed.interruption import CTRL_C, Interrupted

_log = logging.getLogger(__name__)

SCONTROL_SECONDS = 10  # that `scontrol` may take: the job's grace period runs
CLOSING_SECONDS = 15  # that the page and W&B may take


def end(interrupted: Interrupted, run: Any, close: Callable[[], None]) -> NoReturn:
    """End an interrupted program: say how the run goes on, requeue its job, close, exit.

    The exit status is 130 after Ctrl-C and 75 otherwise. Of several ranks the first speaks for all: the
    others end with 0, lest a launcher that sees one fail kills those that are still writing.

    Args:
        run: the settings of section `run`.
        close: closes the page, W&B, ...; what it has not done in time is left undone.
    """
    first = _is_first()
    if first:
        print(after(interrupted, run), flush=True)
    status = interrupted.status if first else 0
    try:
        BoundedCaller("closing").call(CLOSING_SECONDS, close)
    except Exception as error:
        _log.warning("the page or W&B was not closed: %s", error, exc_info=not isinstance(error, CallTimeout))
        sys.stderr.flush()
        os._exit(status)  # what hangs would keep the process as well
    raise SystemExit(status)


def after(interrupted: Interrupted, run: Any) -> str:
    """Put the job back into SLURM's queue where that is wanted and possible; what to tell the person."""
    begun = (Path(run.root) / run.name / "config.yaml").exists()
    said = f"to go on: {resume_command(run.name, run.root)}" if begun else "nothing had begun"
    job = job_id()
    if interrupted.status == CTRL_C or job is None or run.requeue == "never":
        return said
    if not run.resume:
        return f"job {job} is not requeued: its command lacks run.name=NAME run.resume=true\n{said}"
    if _state(job) == "CANCELLED":
        return f"job {job} was cancelled and is not requeued\n{said}"
    if problem := _asked("requeue", job)[1]:
        return f"job {job} could not be requeued: {problem}\n{said}"
    return f"job {job} is requeued"


def resume_command(name: str, root: str) -> str:
    """The command that goes on with a run."""
    placed = [] if root == "runs" else [f"run.root={root}"]
    return shlex.join(["python", "train.py", *placed, f"run.name={name}", "run.resume=true"])


def job_id() -> str | None:
    """The SLURM job that this process belongs to, as `scontrol` names it; None where it belongs to none."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    return os.environ.get("SLURM_JOB_ID") or None


def _state(job: str) -> str | None:
    """What SLURM says of the job: RUNNING, PREEMPTED, CANCELLED after `scancel`; None if nothing."""
    found = re.search(r"\bJobState=(\w+)", _asked("show", "job", "--oneliner", job)[0])
    return found[1] if found else None


def _asked(*words: str) -> tuple[str, str]:
    """What `scontrol` printed, and what went wrong, "" if nothing."""
    try:
        ran = subprocess.run(
            ["scontrol", *words], capture_output=True, text=True, timeout=SCONTROL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"scontrol did not answer within {SCONTROL_SECONDS} s"
    except OSError as error:
        return "", f"scontrol: {error.strerror}"
    if ran.returncode:
        return ran.stdout, " ".join(ran.stderr.split()) or f"scontrol ended with status {ran.returncode}"
    return ran.stdout, ""


def _is_first() -> bool:
    """Whether this is the first process of the job, as torchrun tells, or else srun and Lightning."""
    env = os.environ
    if "RANK" in env:
        return env["RANK"] == "0"
    return env.get("SLURM_PROCID", "0") == env.get("LOCAL_RANK", "0") == "0"
