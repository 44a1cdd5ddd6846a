"""Files and directories that appear whole or not at all, and stay when the power fails."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vitrine.core.process_identity import start_time

_STALE = 24 * 3600  # seconds after which staged files whose writer cannot be asked are leftovers


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that replaces `path` when the scope ends, and not if it ends in an exception.

    A reader finds the old content or the new one, never part of either. Leftovers of killed processes that
    wrote the same file are removed.

    Raises:
        OSError: the disk refused; the old content stands and nothing is left beside it.
    """
    sweep(path.parent, glob.escape(path.name))
    staged = staging_path(path)
    try:
        with open(staged, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the content of a file, see `writing`."""
    with writing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of text as UTF-8; line ends are kept."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """`write_text` of standard JSON (NaN and infinities are refused with ValueError)."""
    write_text(path, json.dumps(content, allow_nan=False, indent=1) + "\n")


def sync(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to the disk."""
    if os.name != "posix" and path.is_dir():
        return  # Windows opens no directories
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)  # Windows flushes no other
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """`sync` a folder and everything in it."""
    for parent, _, files in os.walk(folder, topdown=False):
        for file in files:
            sync(Path(parent, file))
        sync(Path(parent))


def staging_path(final: Path) -> Path:
    """Where this process writes a file or directory before renaming it to `final`: hidden, beside it."""
    return final.with_name(f".{final.name}.{socket.gethostname()}.{os.getpid()}")


def sweep(folder: Path, name: str, *, even_live: bool = False) -> None:
    """Remove staged files and directories that killed processes left in a folder.

    Args:
        name: a glob pattern for the final names.
        even_live: also where the writer may be alive; for folders that no other process writes to.
    """
    for path in folder.glob(f".{name}.*"):
        if not even_live and not _is_abandoned(path):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_abandoned(staged: Path) -> bool:
    match = re.fullmatch(rf"\..+\.{re.escape(socket.gethostname())}\.(\d+)(\.old)?", staged.name)
    if match:
        writer = int(match[1])  # with our id: an earlier process, as ours has not begun to write
        if writer == os.getpid() or start_time(writer) is None:
            return True
    return _age(staged) > _STALE  # a live process may be another one with the same id


def _age(path: Path) -> float:
    with contextlib.suppress(OSError):
        parts = (path, *path.iterdir()) if path.is_dir() else (path,)
        return time.time() - max(part.stat().st_mtime for part in parts)
    return 0.0
