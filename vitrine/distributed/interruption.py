"""Signals that ask a program to end: Ctrl-C, SIGTERM, and SIGUSR1, by which schedulers warn.

Where nothing is lost (setting up, an analysis, waiting) `Interrupted` is raised on the spot. While a network
is trained the signal is only noted (`defer`), and whoever trains asks for it between two steps.
"""

from __future__ import annotations

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
_depth = 0  # of scopes of `handled`


class Interrupted(BaseException):
    """The program was asked to end. No Exception: nothing that contains failures may contain it.

    Attributes:
        signal: by which signal.
    """

    def __init__(self, by: signal.Signals):
        super().__init__(by.name)
        self.signal = by

    @property
    def status(self) -> int:
        """The exit status that tells the scheduler: 130 after Ctrl-C, else 75."""
        return CTRL_C if self.signal is signal.SIGINT else PREEMPTED

    @property
    def state(self) -> str:
        """What becomes of the run: "interrupted" by a person, "preempted" by a scheduler."""
        return "interrupted" if self.signal is signal.SIGINT else "preempted"


@contextmanager
def handled() -> Iterator[None]:
    """Within the scope the signals are answered as said above; a second Ctrl-C ends the process at once.

    Outside of the main thread python allows no handlers: there the scope does nothing.
    """
    global _received, _deferred, _depth
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _answer) for number in SIGNALS}
    outside = _received, _deferred, _depth
    _received, _deferred, _depth = None, False, _depth + 1
    try:
        yield
    finally:
        _received, _deferred, _depth = outside
        for number, handler in before.items():
            signal.signal(number, handler)


def is_handled() -> bool:
    """Whether this is within a scope of `handled`."""
    return _depth > 0


def received() -> signal.Signals | None:
    """The signal that came first, or None."""
    return _received


def check() -> None:
    """Raise Interrupted if a signal has come."""
    if _received is not None:
        raise Interrupted(_received)


def defer() -> None:
    """From here on signals are only noted."""
    global _deferred
    _deferred = True


@contextmanager
def at_once() -> Iterator[None]:
    """Within the scope the first signal raises Interrupted, also where signals are else only noted, and also
    if it came before."""
    global _deferred
    before, _deferred = _deferred, False
    try:
        check()
        yield
    finally:
        _deferred = before


def _answer(number: int, _frame: FrameType | None) -> None:
    global _received
    came = signal.Signals(number)
    if came is signal.SIGINT is _received:
        _say("ending at once")
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return
    if _received is not None:
        return  # we are at it; launchers repeat themselves
    _received = came
    again = "; Ctrl-C once more ends at once" if came is signal.SIGINT else ""
    if _deferred:
        _say(f"{came.name}: stopping after this step{again}")
        return
    _say(f"{came.name}: stopping{again}")
    raise Interrupted(came)


def _say(words: str) -> None:
    with suppress(OSError):
        os.write(2, f"\n{words}\n".encode())  # a handler may come in the midst of a print: no print, no log
