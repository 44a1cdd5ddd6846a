"""A W&B run that cannot stop the program that logs to it: no call raises or waits without end."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from vitrine.core.bounded import BoundedCaller, CallTimeout
from vitrine.reporting import wandb_internals

_log = logging.getLogger(__name__)

CALL_SECONDS = 120  # handing over a checkpoint's pictures takes seconds
FINISH_SECONDS = 300  # what is not uploaded by then stays in the run directory
TEARDOWN_SECONDS = 15  # for releasing a service that was killed
EXIT_SECONDS = 1  # between a lost connection and the exit of the service that lost it


class GuardedRun:
    """Wraps a `wandb.Run`. Attributes that are not named here are the run's own, its methods bounded.

    W&B's calls write to a socket that its own process, wandb-core, reads from. If that one is stopped, calls
    block once the socket is full, and so do the end of the run and of this process; if it was killed, calls
    raise. In both cases W&B is disabled for the rest of the run: wandb-core is killed, one line is logged,
    and further calls do nothing. What is on disk stays, and can be synced.

    Args:
        run: what `wandb.init` returned.
        caller: the thread that calls it.
        owned: False: the run is somebody else's, and neither ended nor killed.

    Attributes:
        disabled: nothing is logged any more.
    """

    def __init__(self, run: Any, caller: BoundedCaller | None = None, owned: bool = True):
        self._run, self._caller, self._owned = run, caller or BoundedCaller("W&B"), owned
        self._service = wandb_internals.service_process()
        self._failures: set[str] = set()
        self.disabled, self.offline, self.id = False, bool(run.offline), str(run.id)
        self._finished = False
        if owned:
            atexit.register(self._exit)  # before W&B's own handler, which waits for the service without end

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._run, name)
        return functools.partial(self._call, name, value) if callable(value) else value

    def update_summary(self, values: Mapping[str, Any]) -> None:
        self._call("summary", lambda: self._run.summary.update(dict(values)))

    def update_config(self, values: Mapping[str, Any]) -> None:
        self._call("config", lambda: self._run.config.update(dict(values), allow_val_change=True))

    def finish(self, exit_code: int | None = None) -> None:
        if self._owned and not self._finished:
            self._finished = True
            self._call("finish", self._run.finish, exit_code, seconds=FINISH_SECONDS + CALL_SECONDS)

    def _exit(self) -> None:
        self.finish()
        if self._service is not None:
            with contextlib.suppress(
                Exception
            ):  # W&B's handler would print the traceback of a lost connection
                self._caller.call(TEARDOWN_SECONDS, _teardown)

    def _call(
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        if self.disabled or self._disable_if_service_exited(0):
            return
        try:
            self._caller.call(CALL_SECONDS if seconds is None else seconds, function, *args, **kwargs)
        except CallTimeout as error:
            self._disable(f"{name}: {error}")
        except Exception as error:
            failure = f"{name} failed: {error!r}"
            if failure not in self._failures and not self._disable_if_service_exited(EXIT_SECONDS):
                self._failures.add(failure)
                _log.warning("W&B: %s", failure)
                _log.debug("W&B: %s", name, exc_info=True)

    def _disable_if_service_exited(self, seconds: float) -> bool:
        """Disable the run if wandb-core is not running, or stops running within `seconds`."""
        if self._service is None:
            return False
        try:
            status = self._service.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._disable(f"its process ended (status {status})")
        return True

    def _disable(self, reason: str) -> None:
        self.disabled = True
        _log.warning("W&B is disabled for the rest of the run: %s", reason)
        if not self._owned:
            return
        if self._service is not None:
            self._service.kill()  # after which a call that hangs fails
        for release in (self._run.finish, _teardown):
            with contextlib.suppress(Exception):
                self._caller.call(TEARDOWN_SECONDS, release)


def _teardown() -> None:
    """Disconnect W&B from a service that was killed, and remove its exit handler."""
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown()
