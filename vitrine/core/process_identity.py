"""Which process it is and whether it still runs, as seen from another process, maybe on another machine."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

_UNKNOWN = "alive"  # the start time of a process that runs, where it cannot be read


def this_process() -> dict[str, Any]:
    """An identifier, as JSON's own types, that this process shares with no other on any machine."""
    return {"machine": _machine(), "pid": os.getpid(), "began": start_time(os.getpid())}


def is_gone(process: Any) -> bool | None:
    """Whether the process identified by a `this_process` has ended; None if it ran on another machine."""
    try:
        if process["machine"] == _machine():
            now = start_time(int(process["pid"]))
            return now is None or (now != process["began"] and _UNKNOWN not in (now, process["began"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        pass
    return None


def start_time(pid: int) -> str | None:
    """When a process of this machine began: it tells apart two processes that had the same id.

    None where no such process runs; "alive" where the system does not say when it began.
    """
    if os.name == "posix":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:  # it is another user's
            pass
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except (OSError, ValueError, IndexError):
        return _UNKNOWN


def _machine() -> str:
    """What process ids are unique within: a host since it was booted, and a container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
