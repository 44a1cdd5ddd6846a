"""Calls into a library that may hang: each is waited for only so long, and never raises."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)


class Bounded:
    """Makes calls one after another in a thread of its own.

    A call that fails is logged (once, where the same happens again and again) and passed over. After one
    that does not come back in time nothing is called any more.

    Args:
        name: who is called, for messages.

    Attributes:
        given_up: nothing is called any more.
        on_give_up: called once when that happens, to end what hangs.
    """

    def __init__(self, name: str):
        self.name, self.given_up = name, False
        self.on_give_up: Callable[[], Any] = lambda: None
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        self._said: set[str] = set()
        self._thread: threading.Thread | None = None

    def call(
        self, what: str, seconds: float, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> bool:
        """Whether `function` came back in time and without an exception.

        Args:
            what: what it is for, for messages.
            seconds: how long to wait.
        """
        try:
            self.ask(what, seconds, function, *args, **kwargs)
            return True
        except Hung:
            return False
        except Exception as error:
            told = f"{what}: {type(error).__name__}: {error}"
            if told not in self._said:
                self._said.add(told)
                _log.warning("%s: %s failed", self.name, what, exc_info=True)
            return False

    def ask(self, what: str, seconds: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `function` returns.

        Raises:
            Hung: it did not come back in time, or nothing is called any more.
            Exception: what it raises.
        """
        if self.given_up:
            raise Hung(f"{self.name} was given up")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"calls to {self.name}", daemon=True)
            self._thread.start()
        done, outcome = threading.Event(), {}
        self._calls.put((done, outcome, lambda: function(*args, **kwargs)))
        if not done.wait(seconds):
            self.give_up(f"{what} took more than {seconds:g} s")
            raise Hung(f"{self.name} does not answer")
        if "error" in outcome:
            raise outcome["error"]
        return outcome["result"]

    def give_up(self, why: str) -> None:
        """Call nothing any more."""
        if not self.given_up:
            self.given_up = True
            _log.warning("%s is done without from here on: %s", self.name, why)
            self.on_give_up()

    def _work(self) -> None:
        while True:
            done, outcome, function = self._calls.get()
            try:
                outcome["result"] = function()
            except BaseException as error:  # SystemExit, too: whoever asked decides
                outcome["error"] = error if isinstance(error, Exception) else RuntimeError(repr(error))
            done.set()


class Hung(RuntimeError):
    """A call did not come back in time."""
