"""Locks as files, by which processes on several machines divide work without a server.

A lock is a series of files `.lock-NAME.0`, `.lock-NAME.1`, ...; its holder is the process that created the
last one. Creating a file that must not exist (O_EXCL) succeeds for exactly one process, on network file
systems too. A dead holder is succeeded by creating the next number, so that of several takers exactly one
wins and nobody renames or deletes a lock that another has just taken over.

(filelock's SoftFileLease takes a dead holder's lock over only where the file system exchanges two names
atomically. NFS and SMB do not: there a killed holder would keep its lock forever.)
"""

import contextlib
import json
import logging
import os
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Self

from vitrine.core.process_identity import is_gone, this_process

log = logging.getLogger(__name__)

HEARTBEAT = 10.0  # seconds between two signs of life
STALE = 120.0  # seconds without one after which a holder on another machine counts as dead


class Lock:
    """A lock held by this process, from `acquire`. Within `with`, a thread gives signs of life."""

    def __init__(self, folder: Path, name: str, number: int, heartbeat: float):
        self.folder, self.name, self.number, self.heartbeat = folder, name, number, heartbeat
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._give_signs_of_life, name=f"lock {name}", daemon=True)

    @property
    def file(self) -> Path:
        return _file(self.folder, self.name, self.number)

    def held(self) -> bool:
        """False once another has taken it over, as happens to a process that was stopped for long."""
        return _last(self.folder, self.name) == self.number

    def release(self) -> None:
        """Remove the lock's files, unless another has taken it over."""
        self._released.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.held():
            for number in range(self.number + 1):  # the last one last: until then it is held
                _file(self.folder, self.name, number).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _give_signs_of_life(self) -> None:
        while not self._released.wait(self.heartbeat):
            with contextlib.suppress(OSError):
                os.utime(self.file)  # the time is the file system's own


def acquire(folder: Path, name: str, *, heartbeat: float = HEARTBEAT, stale: float = STALE) -> Lock | None:
    """Take the lock `name` in a folder, or take it over from a dead holder; None if a living one has it.

    A holder is dead if it is a process of this machine that has ended, or if its last sign of life is older
    than `stale` seconds by the file system's own clock (clocks of machines may differ).

    Args:
        folder: created if needed.
        name: letters, digits, "=", "_" and "-".

    Raises:
        OSError: the file system refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = _last(folder, name)
    before = None
    if last is not None:
        before = _read(_file(folder, name, last))
        if before is None or not _is_dead(folder, *before, stale):
            return None
    lock = Lock(folder, name, 0 if last is None else last + 1, heartbeat)
    try:
        with open(lock.file, "x", encoding="utf-8") as file:
            json.dump({**this_process(), "lock": uuid.uuid4().hex}, file)
    except FileExistsError:
        return None  # another was quicker
    unchanged = before is None or (_read(_file(folder, name, last)) or ("",))[0] == before[0]
    if not unchanged or not lock.held():  # since it was read, others took it over, released it, began anew
        lock.file.unlink(missing_ok=True)
        return None
    if last is not None:
        log.warning("took over %s from a process that is gone", name)
    return lock


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f".lock-{name}.{number}"


def _last(folder: Path, name: str) -> int | None:
    files = folder.glob(f".lock-{name}.*")
    return max((int(file.suffix[1:]) for file in files if file.suffix[1:].isdecimal()), default=None)


def _read(file: Path) -> tuple[str, float] | None:
    """A lock file's content and last sign of life; None if it was released just now."""
    try:
        with open(file, encoding="utf-8") as opened:  # opening asks a file server, where stat may ask a cache
            return opened.read(), os.fstat(opened.fileno()).st_mtime
    except OSError:
        return None


def _is_dead(folder: Path, content: str, last_sign: float, stale: float) -> bool:
    with contextlib.suppress(ValueError):  # its holder is about to write the file, or died before
        if (gone := is_gone(json.loads(content))) is not None:
            return gone
    with tempfile.TemporaryFile(dir=folder) as probe:  # dated by the file system's clock
        return os.fstat(probe.fileno()).st_mtime - last_sign > stale
