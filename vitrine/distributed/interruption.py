"""Signals that ask a program to end: Ctrl-C, SIGTERM, and SIGUSR1, by which schedulers warn.

Where nothing is lost (setting up, an analysis, waiting) `Interrupted` is raised in the signal handler. During
training the signal is only recorded (`defer`), and the training loop checks for it between two steps.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
PREEMPTED = 75  # exit status: EX_TEMPFAIL, "try again later"
CTRL_C = 130  # exit status: as shells give it

_received: signal.Signals | None = None
_deferred = False
_depth = 0  # of nested `handle_signals` scopes


class Interrupted(BaseException):
    """A signal asked the program to end. A BaseException: `except Exception` must not swallow it."""

    def __init__(self, number: signal.Signals):
        super().__init__(number.name)
        self.signal = number

    @property
    def status(self) -> int:
        """The exit status: 130 after Ctrl-C, 75 ("try again later") otherwise."""
        return CTRL_C if self.signal is signal.SIGINT else PREEMPTED

    @property
    def state(self) -> str:
        """Of the run, for its record: "interrupted" by a person, "preempted" by a scheduler."""
        return "interrupted" if self.signal is signal.SIGINT else "preempted"


@contextmanager
def handle_signals() -> Iterator[None]:
    """A scope in which our signal handlers are installed; a second Ctrl-C ends the process at once.

    Python allows handlers in the main thread only: in other threads the scope does nothing.
    """
    global _received, _deferred, _depth
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    outside = _received, _deferred, _depth
    _received, _deferred, _depth = None, False, _depth + 1
    try:
        yield
    finally:
        _received, _deferred, _depth = outside
        for number, handler in before.items():
            signal.signal(number, handler)


def launched_first() -> bool:
    """Whether this is rank 0, by the environment of torchrun, or else of srun and Lightning."""
    names = ["RANK"] if "RANK" in os.environ else ["SLURM_PROCID", "LOCAL_RANK"]
    return all(os.environ.get(name, "0") == "0" for name in names)


def signals_are_handled() -> bool:
    """Whether a `handle_signals` scope is active."""
    return _depth > 0


def received() -> signal.Signals | None:
    """The first signal received, or None."""
    return _received


def check() -> None:
    """Raise Interrupted if a signal was received."""
    if _received is not None:
        raise Interrupted(_received)


def defer() -> None:
    """From here on signals are only recorded; see `check`."""
    global _deferred
    _deferred = True


@contextmanager
def immediate() -> Iterator[None]:
    """A scope in which a signal, also one received before, raises Interrupted at once."""
    global _deferred
    before, _deferred = _deferred, False
    try:
        check()
        yield
    finally:
        _deferred = before


def _on_signal(number: int, _frame: FrameType | None) -> None:
    global _received
    new = signal.Signals(number)
    if new is signal.SIGINT is _received:
        _print("ending at once")
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return
    if _received is not None:
        return  # already ending; launchers send signals repeatedly
    _received = new
    again = "; Ctrl-C once more ends at once" if new is signal.SIGINT else ""
    announce(new, f"stopping{' after this step' if _deferred else ''}{again}")
    if not _deferred:
        raise Interrupted(new)


def announce(number: signal.Signals, text: str) -> None:
    """Print what a signal leads to, on rank 0: launchers signal all ranks, and one line is enough."""
    if launched_first():
        _print(f"{number.name}: {text}")


def _print(text: str) -> None:
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())  # the handler may have interrupted a print: no print, no log
