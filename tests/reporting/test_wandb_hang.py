"""W&B that dies or hangs: its service is killed or stopped, and whoever logs goes on."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from vitrine.core.bounded import BoundedCaller, CallTimeout
from vitrine.reporting import guarded_run
from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
from vitrine.reporting.wandb_sink import WandbSink

wandb = pytest.importorskip("wandb")
pytestmark = [pytest.mark.usefixtures("offline_home"), pytest.mark.slow]
MUCH = {f"metric-{i}": float(i) for i in range(2000)}  # of these the socket holds but a few


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(guarded_run, "CALL_SECONDS", 2)
    monkeypatch.setattr(guarded_run, "FINISH_SECONDS", 1)


@pytest.fixture
def opened(tmp_path, services):
    (tmp_path / "run").mkdir()
    logger, _ = wandb_logger(tmp_path / "run", WandbSettings())
    sink = WandbSink(logger.experiment)
    logger.log_metrics({"train/loss": 0.5}, step=1)
    (service,) = services()
    return logger, sink, service


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_a_service_that_is_killed_or_stopped_is_done_without(
    tmp_path, opened, services, quick, report, caplog, what
):
    logger, sink, service = opened
    os.kill(service, what)
    began = time.monotonic()
    for step in range(2, 400):
        logger.log_metrics(MUCH, step=step)
        if logger.experiment.disabled:
            break
    assert logger.experiment.disabled
    sink.log(report(500), tmp_path / "run" / "analysis" / "step=00000500")
    sink.close()
    assert time.monotonic() - began < 40
    assert services() == []  # nothing is left for the end of the process to wait for
    assert "W&B is disabled for the rest of the run" in caplog.text


def test_an_end_that_never_comes_is_not_waited_for(opened, services, quick):
    _, sink, service = opened
    os.kill(service, signal.SIGSTOP)
    began = time.monotonic()
    sink.close()
    assert time.monotonic() - began < 25 and services() == []


@pytest.mark.slow
def test_what_was_logged_before_can_be_synced(tmp_path, opened, quick, history):
    logger, sink, service = opened
    for step in range(2, 40):
        logger.log_metrics(MUCH, step=step)
    deadline = time.monotonic() + 20
    while len(history(tmp_path / "run")) < 20 and time.monotonic() < deadline:
        time.sleep(0.5)  # the service writes at its own pace
    os.kill(service, signal.SIGKILL)
    sink.close()
    rows = history(tmp_path / "run")
    assert [row["trainer/global_step"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("what", ["SIGSTOP", "SIGKILL"])
def test_the_process_ends_although_nobody_closed_the_run(tmp_path, what):
    script = """
        import os, signal, sys
        from vitrine.reporting import guarded_run, wandb_internals
        from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
        guarded_run.CALL_SECONDS = guarded_run.FINISH_SECONDS = 1
        logger, _ = wandb_logger(sys.argv[1], WandbSettings())
        wandb_internals.service_process().send_signal(getattr(signal, sys.argv[2]))
        for step in range(20):
            logger.log_metrics({f"metric-{i}": i for i in range(2000)}, step=step)
        print("trained to the end")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / what), what],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert done.returncode == 0 and "trained to the end" in done.stdout
    assert "atexit" not in done.stderr


def test_a_call_that_does_not_return_is_not_waited_for():
    caller = BoundedCaller("it")
    with pytest.raises(CallTimeout, match=r"no answer within 0.05 s"):
        caller.call(0.05, time.sleep, 0.5)
    with pytest.raises(CallTimeout):  # behind the one that hangs
        caller.call(0.05, len, "abc")
    assert caller.call(5, len, "abc") == 3


def test_a_call_raises_what_it_calls():
    caller = BoundedCaller("it")
    with pytest.raises(ZeroDivisionError):
        caller.call(5, lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="SystemExit"):  # whoever calls decides
        caller.call(5, sys.exit)
    assert caller.call(5, len, "abc") == 3


class FakeRun:
    """A `wandb.Run` whose `log` does what it is given."""

    offline, id = True, "x"

    def __init__(self, log):
        self.log, self.finished = log, []

    def finish(self, exit_code=None):
        self.finished.append(exit_code)


def test_after_a_call_that_does_not_return_nothing_is_called(quick, caplog):
    called = []
    run = FakeRun(lambda payload: (called.append(payload), time.sleep(3)))
    guarded = guarded_run.GuardedRun(run)
    for step in range(3):
        guarded.log({"step": step})
    assert guarded.disabled and called == [{"step": 0}]
    assert "W&B is disabled for the rest of the run: log: no answer within 2 s" in caplog.text


def test_a_call_that_fails_is_passed_over_and_reported_once(caplog):
    run = FakeRun(lambda payload: 1 / payload["divisor"])
    guarded = guarded_run.GuardedRun(run)
    for divisor in (0, 0, 0, 1):
        guarded.log({"divisor": divisor})
    guarded.finish()
    assert not guarded.disabled and run.finished == [None]
    assert caplog.text.count("W&B: log failed") == 1
