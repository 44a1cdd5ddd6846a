"""Calls into a library that may hang: each is waited for only so long."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any


class CallTimeout(TimeoutError):
    """A call did not return in time."""


class BoundedCaller:
    """Makes calls one after another in a thread of that name, which does not keep the process alive.

    The thread starts here and not at a call, because Python 3.12 starts none while a process exits.
    """

    def __init__(self, name: str):
        self._calls: queue.SimpleQueue[tuple[Future, Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, seconds: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The return value of `function`.

        Raises:
            CallTimeout: it did not return within `seconds`, or a call before it still has not.
            Exception: what it raises; RuntimeError in place of SystemExit and KeyboardInterrupt.
        """
        result: Future = Future()
        self._calls.put((result, partial(function, *args, **kwargs)))
        if not wait([result], seconds).done:
            raise CallTimeout(f"no answer within {seconds:g} s")
        return result.result()

    def _run(self) -> None:
        while True:
            result, function = self._calls.get()
            try:
                result.set_result(function())
            except Exception as error:
                result.set_exception(error)
            except BaseException as error:
                result.set_exception(RuntimeError(repr(error)))
