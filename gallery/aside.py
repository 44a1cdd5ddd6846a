"""Directories aside: a step is made in one of its own, beside its place, and one rename shows it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time
from pathlib import Path

_STALE = 24 * 3600  # seconds after which a directory aside, whose writer cannot be asked, is a leftover


def place(final: Path) -> Path:
    """Where this process makes what will appear at `final`: hidden, and no other process' place."""
    return final.with_name(f".{final.name}.{socket.gethostname()}.{os.getpid()}")


def sweep(folder: Path) -> None:
    """Remove what killed processes have left aside in a folder of steps."""
    for path in folder.glob(".step=*"):
        if abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def abandoned(path: Path) -> bool:
    """Whether nobody is writing to a directory aside any more."""
    match = re.fullmatch(r"\.step=\d+\.(.+)\.(\d+)(\.old)?", path.name)
    if match and match[1] == socket.gethostname() and os.name == "posix":
        writer = int(match[2])
        if writer == os.getpid():
            return True  # of a process that had our number: ours has not begun
        try:
            os.kill(writer, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # another user's
    return _age(path) > _STALE  # even a live process may be another under the same number


def _age(path: Path) -> float:
    with contextlib.suppress(OSError):
        return time.time() - max(p.stat().st_mtime for p in (path, *path.iterdir()))
    return 0.0
