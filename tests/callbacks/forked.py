"""Processes forked from one that has imported all: each begins four seconds sooner than a new Python."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["imported"])


def start(target: Callable[..., Any], *args: Any, **kwargs: Any) -> multiprocessing.Process:
    """Run `target(*args, **kwargs)`, which a module has to have by name, in a process of its own."""
    path = os.environ.get("PYTHONPATH")
    with_ours = [str(ROOT), str(Path(__file__).parent), *([path] if path else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        with_ours
    )  # the server is a new Python: ours, not an installed one
    try:
        forkserver.ensure_running()
    finally:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path
    process = CONTEXT.Process(target=target, args=args, kwargs=kwargs)
    process.start()
    return process


class Program:
    """`python FILE WORD ...`, as `subprocess.Popen` has it with pipes of text; it leads a process group.

    Not for tests of what is imported from where, or of how Python itself ends.

    Args:
        words: the file and its arguments.
        env: all of its environment, as of this process unless given.
        stderr: `subprocess.STDOUT` for one stream of both.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        cwd: str | Path = ROOT,
        env: Mapping[str, str] | None = None,
        stderr: int = subprocess.PIPE,
    ):
        readers, writers = zip(
            *(CONTEXT.Pipe(duplex=False) for _ in range(1 if stderr == subprocess.STDOUT else 2))
        )
        environment = dict(os.environ if env is None else env)
        self.args = [sys.executable, *map(str, words)]
        self._process = start(_run, self.args[1:], str(cwd), environment, list(writers))
        for writer in writers:
            writer.close()
        streams = [
            os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="replace") for reader in readers
        ]
        for reader in readers:
            reader.close()
        self.pid, self.stdout = self._process.pid, streams[0]
        self.stderr = streams[1] if len(streams) > 1 else None

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """What it has said until its end, on both streams; raises `subprocess.TimeoutExpired`."""
        end = None if timeout is None else time.monotonic() + timeout
        said: list[str | None] = [None, None]

        def read(place: int, stream: Any) -> None:
            said[place] = stream.read()

        threads = [
            threading.Thread(target=read, args=(place, stream), daemon=True)
            for place, stream in enumerate((self.stdout, self.stderr))
            if stream is not None
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(None if end is None else max(1.0, end - time.monotonic()))
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(words: list[str], cwd: str, environment: dict[str, str], writers: list[Any]) -> None:
    """The child: as a new Python begins and ends."""
    os.setsid()
    for number, writer in zip((1, 2), writers if len(writers) > 1 else writers * 2):
        os.dup2(writer.fileno(), number)
    for writer in writers:
        writer.close()
    os.chdir(cwd)
    os.environ.clear()
    os.environ |= environment
    installed = [place for place in sys.path if place and ROOT not in (Path(place), *Path(place).parents)]
    named = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:] = [str(Path(cwd, words[0]).resolve().parent), *named, *installed]
    sys.argv[:] = words
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
