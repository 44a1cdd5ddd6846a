"""A W&B run that cannot stop whoever logs to it: it never raises, and never hangs for longer than it may."""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from vitrine.core.bounded import Bounded

_log = logging.getLogger(__name__)

CALL_SECONDS = 120  # handing over a checkpoint's pictures takes seconds
FINISH_SECONDS = 300  # what is not uploaded by then stays in the run directory
END_SECONDS = 15  # for ending a service that hangs


class GuardedRun:
    """Wraps a `wandb.Run`. What is not named here (`id`, `url`, ...) is the run's own.

    W&B's calls write to a socket that a service of its own, wandb-core, reads from. Where that one is
    stopped, calls block once the socket is full, and ending the run and the process waits for ever; where it
    was killed, they raise. Either way the run is given up: the service is killed if it is still there, one
    line is logged, and further calls do nothing. What is on disk stays, and can be synced.

    Args:
        run: what `wandb.init` gave.
        bounded: what makes the calls.
    """

    def __init__(self, run: Any, bounded: Bounded | None = None):
        self._run = run
        self._bounded = bounded or Bounded("W&B")
        self._bounded.on_give_up = self._let_go
        self.offline, self.id = bool(run.offline), str(run.id)
        atexit.register(
            self.finish
        )  # before W&B's own end, which waits for its service whatever became of it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    @property
    def given_up(self) -> bool:
        """Whether nothing is logged any more."""
        return self._bounded.given_up

    def log(self, payload: Mapping[str, Any]) -> None:
        self._call("log", self._run.log, dict(payload))

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self._call("log_artifact", self._run.log_artifact, artifact, aliases=aliases)

    def define_metric(self, name: str, **how: Any) -> None:
        self._call("define_metric", self._run.define_metric, name, **how)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Put values into the run's summary."""
        self._call("summary", lambda: self._run.summary.update(dict(values)))

    def configure(self, values: Mapping[str, Any]) -> None:
        """Put values into the run's config."""
        self._call("config", lambda: self._run.config.update(dict(values), allow_val_change=True))

    def finish(self, exit_code: int | None = None) -> None:
        atexit.unregister(self.finish)
        self._call("finish", self._run.finish, exit_code, seconds=FINISH_SECONDS + CALL_SECONDS)

    def _call(
        self, what: str, function: Callable[..., Any], *args: Any, seconds: float | None = None, **kwargs: Any
    ) -> None:
        if self.given_up:
            return
        seconds = CALL_SECONDS if seconds is None else seconds
        if not self._bounded.call(what, seconds, function, *args, **kwargs) and _service_ended():
            self._bounded.give_up("its service ended")

    def _let_go(self) -> None:
        """End what would keep this process from ending."""

        def end() -> None:
            import wandb

            if service := _service():
                service.kill()
            for last in (self._run.finish, wandb.teardown):  # fail at once, and take back what they set up
                with contextlib.suppress(BaseException):
                    last()

        ending = threading.Thread(target=end, name="ending W&B", daemon=True)
        ending.start()
        ending.join(END_SECONDS)


def _service() -> Any:
    """The process of wandb-core, where this one started it; None where it did not, or W&B does not say."""
    from wandb.sdk import wandb_setup

    try:
        return wandb_setup._singleton._connection._proc._process  # `wandb.setup()` would start another
    except AttributeError:
        return None


def _service_ended() -> bool:
    service = _service()
    return service is not None and service.poll() is not None
