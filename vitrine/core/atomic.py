"""Files that appear whole or not at all, and stay when the power fails."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path
from typing import Any

from vitrine.core import aside


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` in a file: a reader finds the old content or the new one, never part of either.

    What a process that was killed while it wrote the same file has left is removed.

    Raises:
        OSError: the disk refused; the old content stands and nothing is left beside it.
    """
    aside.sweep(path.parent, glob.escape(path.name))
    staged = aside.place(path)
    try:
        with open(staged, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of text, as UTF-8 with the line ends it has."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """`write_text` of JSON as every parser reads it (NaN and infinities are refused with ValueError)."""
    write_text(path, json.dumps(content, allow_nan=False, indent=1) + "\n")


def sync(path: Path) -> None:
    """Have a file's content, or a directory's names, reach the disk."""
    if os.name != "posix" and path.is_dir():
        return  # Windows opens no directories
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """`sync` a folder and all that is in it."""
    for parent, _, files in os.walk(folder, topdown=False):
        for file in files:
            sync(Path(parent, file))
        sync(Path(parent))
