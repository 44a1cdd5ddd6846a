"""Who works on what: locks as files, so that processes on several machines divide work without a server.

A lock is a row of files NAME.0, NAME.1, ...: its holder is who created the last. Creating a file that must
not exist (O_EXCL) succeeds for exactly one process, on network file systems too. A holder that died is
succeeded by creating the next number, so that of several who notice exactly one wins, and nobody renames or
deletes a lock that another has just taken over.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

BEAT = 10.0  # seconds between two signs of life
STALE = 120.0  # seconds without one after which a holder on another machine counts as dead


class Lock:
    """A lock that this process holds; made by `acquire`. Within `with`, a thread gives signs of life."""

    def __init__(self, folder: Path, name: str, number: int, beat: float):
        self.folder, self.name, self.number, self.beat = folder, name, number, beat
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"lock of {name}", daemon=True)

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.{self.number}"

    def held(self) -> bool:
        """Whether nobody has taken it over, as happens to a process that was stopped for long."""
        return _last(self.folder, self.name) == self.number

    def release(self) -> None:
        """Give it up; whoever comes next starts from nothing."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.held():
            for number in range(self.number + 1):  # the last one last: until then it is held
                (self.folder / f"{self.name}.{number}").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others hold locks there
            self.folder.rmdir()

    def __enter__(self) -> Lock:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _live(self) -> None:
        while not self._done.wait(self.beat):
            with contextlib.suppress(OSError):
                os.utime(self.file)  # the file system's own clock tells when


def acquire(folder: Path, name: str, *, beat: float = BEAT, stale: float = STALE) -> Lock | None:
    """Take the lock `name` in a folder, or take it over from a holder that is dead; None where one lives.

    A holder is dead if it is a process of this machine that is no more, or if its last sign of life is older
    than `stale` by the file system's own clock (machines may disagree about the time).

    Args:
        folder: made if it is not there.
        name: letters, digits, "=", "_" and "-".
        beat, stale: seconds.

    Raises:
        OSError: the file system refuses.
    """
    last = _last(folder, name)
    number, before = (0, None) if last is None else (last + 1, _read(folder / f"{name}.{last}"))
    if last is not None and (before is None or not _dead(folder, *before, stale)):
        return None
    lock = Lock(folder, name, number, beat)
    if not _created(lock.file):
        return None  # another was quicker
    overtaken = before is not None and (_read(folder / f"{name}.{last}") or ("",))[0] != before[0]
    if overtaken or not lock.held():  # since we looked, others took it over, were done with it, began anew
        lock.file.unlink(missing_ok=True)
        return None
    if last is not None:
        log.warning("took over %s from a process that is gone", name)
    return lock


def _last(folder: Path, name: str) -> int | None:
    try:
        found = [re.fullmatch(rf"{re.escape(name)}\.(\d+)", file) for file in os.listdir(folder)]
    except FileNotFoundError:
        return None
    return max((int(match[1]) for match in found if match), default=None)


def _created(file: Path) -> bool:
    """Whether it was this process that created a file that must not exist."""
    holder = {**this_process(), "lock": uuid.uuid4().hex}
    for _ in range(100):
        with contextlib.suppress(FileExistsError):
            file.parent.mkdir(parents=True)
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except FileNotFoundError:
            continue  # another released the last lock there, and the folder with it
        with open(handle, "w", encoding="utf-8") as opened:
            json.dump(holder, opened)
        return True
    raise OSError(f"{file.parent} vanishes as often as it is made")


def _read(file: Path) -> tuple[str, float] | None:
    """What a lock's file holds, and its last sign of life; None where it was released this instant."""
    try:
        with open(file, encoding="utf-8") as opened:  # opening asks a file server, where stat may ask a cache
            return opened.read(), os.fstat(opened.fileno()).st_mtime
    except OSError:
        return None


def _dead(folder: Path, content: str, seen: float, stale: float) -> bool:
    try:
        gone = is_gone(json.loads(content))
    except ValueError:
        gone = None  # its holder is between creating and writing, or died there
    try:
        return _now(folder) - seen > stale if gone is None else gone
    except FileNotFoundError:
        return False  # released this instant, and the folder with it


def _now(folder: Path) -> float:
    """The time by the clock of the folder's file system."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def this_process() -> dict[str, Any]:
    """What tells this process from all others, on whatever machine, as JSON's own types."""
    return {"machine": _machine(), "pid": os.getpid(), "began": _began(os.getpid())}


def is_gone(process: Any) -> bool | None:
    """Whether the process that said `this_process` is no more; None where that cannot be told from here."""
    try:
        if process["machine"] == _machine():
            return _began(int(process["pid"])) != process["began"]
    except (ValueError, KeyError, TypeError):
        pass
    return None


@functools.cache
def _machine() -> str:
    """Names what process ids belong to: the host since it was started, and the container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _began(pid: int) -> str | None:
    """When a process of this machine began, so that another under the same number is told apart.

    None where there is no such process; "alive" where it cannot be told when.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        state, *rest = stat.rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists() or os.name != "posix":
        return None if os.name == "posix" else "alive"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "alive"
