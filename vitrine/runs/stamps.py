"""Whether a file on the disk is the one that was read before, without reading it again."""

from __future__ import annotations

import os
from pathlib import Path

Stamp = tuple[int, ...] | None  # None: there is no such file


def stamp(path: str | Path) -> Stamp:
    """The number, size and times of a file or folder: others once it is replaced, copied or written to."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
