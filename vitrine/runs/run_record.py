"""`run.json`, the record of a run: when, how long, which code, on which hardware; shown on the page."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import logging
import os
import platform
import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import vitrine
from vitrine.core import atomic
from vitrine.core.process_identity import this_process
from vitrine.distributed.interruption import Interrupted

if TYPE_CHECKING:
    from vitrine.analyses.result import CheckpointReport

_log = logging.getLogger(__name__)

_CODE = Path(__file__).resolve().parents[2]


class RunRecord:
    """A sink that writes run.json at the start, at every checkpoint and at the end of a run.

    Its `state` is "running" until it is closed as "finished", "preempted", "interrupted" or "failed"; after a
    kill it is still "running", and `process` identifies the killed process. A resumed run keeps its start
    time, and its seconds add up, without those between the last checkpoint and a kill.

    As a context manager it closes itself as "finished", or with the `state` of the exception ("failed" if it
    has none).

    Args:
        run_dir: the run's folder.
        arguments: the command line, without python.
        facts: more to show on the page, by name.
        name: of the run on the page; its folder's unless given.
    """

    def __init__(
        self,
        run_dir: str | Path,
        arguments: Sequence[str],
        facts: Mapping[str, str] | None = None,
        name: str | None = None,
    ):
        self.file = Path(run_dir) / "run.json"
        self._began = time.monotonic()
        before, now = read(run_dir), _now()
        self._before = float(before.get("seconds", 0.0))
        self.content = {
            "started": before.get("started", now),
            "resumed": now if before else None,
            "ended": None,
            "state": "running",
            "process": this_process(),
            "seconds": self._before,
            "commit": commit(),
            "command": shlex.join(["python", *arguments]),
            "name": name,
            "facts": dict(facts or {}),
            "hardware": hardware(),
            "versions": {"vitrine": vitrine.__version__}
            | {name: importlib.metadata.version(name) for name in ("torch", "lightning")},
        }
        self._write()

    def log(self, report: CheckpointReport, folder: Path) -> None:
        """Update the seconds; never raises."""
        self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        state = error.state if isinstance(error, Interrupted) else "failed"
        self.close("finished" if error is None else state)

    def close(self, state: str = "finished") -> None:
        """Record the end of the run; never raises."""
        self.content |= {"ended": _now(), "state": state}
        self._write()

    def _write(self) -> None:
        from lightning.pytorch.utilities import rank_zero_only

        if rank_zero_only.rank != 0:
            return
        self.content["seconds"] = round(self._before + time.monotonic() - self._began, 1)
        try:
            atomic.write_json(self.file, self.content)
        except OSError:
            _log.warning("%s could not be written", self.file, exc_info=True)


def read(run_dir: str | Path) -> dict[str, Any]:
    """The record of a run; empty if there is none that can be read."""
    try:
        content = json.loads((Path(run_dir) / "run.json").read_text(encoding="utf-8"))
        float(content["seconds"])
        return content
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_facts(run_dir: str | Path) -> list[list[str]]:
    """The record as pairs of name and text, for the page."""
    content = read(run_dir)
    if not content:
        return []
    versions = content.get("versions") or {}
    facts = [
        *(content.get("facts") or {}).items(),
        ["commit" if content.get("commit") else "version", content.get("commit") or versions.get("vitrine")],
        ["started", str(content.get("started", "")).replace("T", " ")[:16]],
        ["took" if content.get("ended") else "so far", format_duration(float(content["seconds"]))],
        ["on", content.get("hardware")],
        ["torch", versions.get("torch")],
    ]
    return [[name, str(value)] for name, value in facts if value]


def format_duration(seconds: float) -> str:
    """A duration for people: "48 s", "3 min 12 s", "5 h 07 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def commit(code: Path = _CODE) -> str | None:
    """`git describe` of the checkout that contains this code; None if there is none."""
    try:
        if Path(_git(code, "rev-parse", "--show-toplevel")).resolve() != code.resolve():
            return None  # installed somewhere inside another repository
        return _git(code, "describe", "--always", "--dirty") or None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def hardware() -> str:
    """This machine in a line: "NVIDIA H200", or "2 cores of AMD EPYC 9B14"."""
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return f"{f'{count} x ' if count > 1 else ''}{torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} cores{f' of {name}' if (name := _processor()) else ''}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*:(.*)$", text, re.MULTILINE):
            return found[1].strip()
    return platform.processor()


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
