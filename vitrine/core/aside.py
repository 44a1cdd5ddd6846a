"""What is made aside: a file or a step's directory, beside its place, until one rename shows it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time
from pathlib import Path

_STALE = 24 * 3600  # seconds after which something aside, whose writer cannot be asked, is a leftover


def place(final: Path) -> Path:
    """Where this process makes what will appear at `final`: hidden, and no other process' place."""
    return final.with_name(f".{final.name}.{socket.gethostname()}.{os.getpid()}")


def sweep(folder: Path, name: str = "step=*") -> None:
    """Remove what killed processes have left aside in a folder, of all steps or of what `name` matches."""
    for path in folder.glob(f".{name}.*"):
        if not abandoned(path):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def abandoned(path: Path) -> bool:
    """Whether nobody is writing to something aside any more."""
    match = re.fullmatch(rf"\..+\.{re.escape(socket.gethostname())}\.(\d+)(\.old)?", path.name)
    if match and os.name == "posix":
        writer = int(match[1])
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
        parts = (path, *path.iterdir()) if path.is_dir() else (path,)
        return time.time() - max(part.stat().st_mtime for part in parts)
    return 0.0
