"""After an interrupt: requeue the SLURM job, print the command that resumes the run, exit."""

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
from vitrine.distributed.interruption import CTRL_C, Interrupted, launched_first

_log = logging.getLogger(__name__)

SCONTROL_SECONDS = 10  # that `scontrol` may take: the job's grace period runs
CLOSING_SECONDS = 15  # that the page and W&B may take


def exit_interrupted(interrupted: Interrupted, run: Any, close: Callable[[], None]) -> NoReturn:
    """Requeue an interrupted run's job, print how to resume it, close its logs, exit.

    Only rank 0 prints; the other ranks exit with 0, lest a launcher that sees one fail kills those that are
    still writing.

    Args:
        run: the settings of section `run`.
        close: closes the page, W&B, ...; abandoned after `CLOSING_SECONDS`.
    """
    is_global_zero = launched_first()
    if is_global_zero:
        print(requeue(interrupted, run), flush=True)
    status = interrupted.status if is_global_zero else 0
    try:
        BoundedCaller("closing").call(CLOSING_SECONDS, close)
    except Exception as error:
        _log.warning("the page or W&B was not closed: %s", error, exc_info=not isinstance(error, CallTimeout))
        sys.stderr.flush()
        os._exit(status)  # what hangs would keep the process as well
    raise SystemExit(status)


def requeue(interrupted: Interrupted, run: Any) -> str:
    """Put the job back into SLURM's queue where that is wanted and possible; the message for the user."""
    begun = (Path(run.root) / run.name / "config.yaml").exists()
    message = f"to go on: {resume_command(run.name, run.root)}" if begun else "nothing had begun"
    job = job_id()
    if interrupted.status == CTRL_C or job is None or run.requeue == "never":
        return message
    if not run.resume:
        return f"job {job} is not requeued: its command lacks run.name=NAME run.resume=true\n{message}"
    fate = _fate(job)
    if fate == "cancelled":
        return f"job {job} was cancelled and is not requeued\n{message}"
    if fate == "requeued":
        return f"job {job} is requeued"
    problem = _scontrol("requeue", job)[1]
    if problem and "pending" not in problem:  # SLURM was quicker, and says "Job is pending execution"
        return f"job {job} could not be requeued: {problem}\n{message}"
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


def _fate(job: str) -> str | None:
    """What SLURM has decided on a job that is being signalled: "cancelled", "requeued"; None for all else.

    While processes of the job still run, its JobState is COMPLETING whatever happened. One that is back in
    the queue has this counted as a restart; of the others those that were preempted, or whose time is up, say
    so.
    """
    text = _scontrol("show", "job", "--oneliner", job)[0]
    names = ("JobState", "Reason", "Restarts", "PreemptTime")
    found = [re.search(rf"\b{name}=(\S+)", text) for name in names]
    state, reason, restarts, preempted = (match[1] if match else None for match in found)
    if int(restarts or 0) > int(os.environ.get("SLURM_RESTART_COUNT", 0)):
        return "requeued"
    if state == "COMPLETING" and reason == "None" and preempted in (None, "None"):
        return "cancelled"
    return "cancelled" if state == "CANCELLED" else None


def _scontrol(*words: str) -> tuple[str, str]:
    """The output of `scontrol`, and what went wrong, "" if nothing."""
    command = ["scontrol", *words]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=SCONTROL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "", f"scontrol did not answer within {SCONTROL_SECONDS} s"
    except OSError as error:
        return "", f"scontrol: {error.strerror}"
    if ran.returncode:
        return ran.stdout, " ".join(ran.stderr.split()) or f"scontrol ended with status {ran.returncode}"
    return ran.stdout, ""
