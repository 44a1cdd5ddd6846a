"""W&B that dies or hangs: its service is killed or stopped, and whoever logs goes on."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from vitrine.core.bounded import Bounded
from vitrine.reporting import guarded_run
from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
from vitrine.reporting.wandb_sink import WandbSink

wandb = pytest.importorskip("wandb")
pytestmark = [
    pytest.mark.usefixtures("offline_home"),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for W&B's service in /proc"),
]
MUCH = {f"metric-{i}": float(i) for i in range(2000)}  # of these the socket holds but a few


def services() -> list[int]:
    """The wandb-core processes that this one has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.read_text().split(" (", 1)
        except OSError:
            continue  # ended meanwhile
        name, rest = rest.rsplit(") ", 1)
        if name.startswith("wandb-core") and int(rest.split()[1]) == os.getpid() and rest[0] != "Z":
            found.append(int(pid))
    return found


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(guarded_run, "CALL_SECONDS", 2)
    monkeypatch.setattr(guarded_run, "FINISH_SECONDS", 1)


@pytest.fixture
def opened(tmp_path):
    (tmp_path / "run").mkdir()
    logger, _ = wandb_logger(tmp_path / "run", WandbSettings())
    sink = WandbSink(logger.experiment)
    logger.log_metrics({"train/loss": 0.5}, step=1)
    (service,) = services()
    return logger, sink, service


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_a_service_that_is_killed_or_stopped_is_done_without(tmp_path, opened, quick, report, caplog, what):
    logger, sink, service = opened
    os.kill(service, what)
    began = time.monotonic()
    for step in range(2, 400):
        logger.log_metrics(MUCH, step=step)
        if logger.experiment.given_up:
            break
    assert logger.experiment.given_up
    sink.log(report(500), tmp_path / "run" / "analysis" / "step=00000500")
    sink.close()
    assert time.monotonic() - began < 40
    assert services() == []  # nothing is left for the end of the process to wait for
    assert "W&B is done without" in caplog.text


def test_an_end_that_never_comes_is_not_waited_for(opened, quick):
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
        import os, signal, sys, wandb
        from vitrine.reporting import guarded_run
        from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
        guarded_run.CALL_SECONDS = guarded_run.FINISH_SECONDS = 1
        logger, _ = wandb_logger(sys.argv[1], WandbSettings())
        os.kill(wandb.setup()._connection._proc._process.pid, getattr(signal, sys.argv[2]))
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


def test_a_call_that_does_not_come_back_is_the_last(caplog):
    ended, called = [], []
    bounded = Bounded("it")
    bounded.on_give_up = lambda: ended.append(True)
    assert not bounded.call("sleep", 0.05, time.sleep, 0.5)
    assert not bounded.call("more", 1, called.append, 1)
    assert bounded.given_up and ended == [True] and called == []
    assert "it is done without from here on: sleep took more than 0.05 s" in caplog.text


def test_a_call_that_fails_is_passed_over_and_said_once(caplog):
    bounded = Bounded("it")
    for _ in range(3):
        assert not bounded.call("divide", 1, lambda: 1 / 0)
    assert bounded.call("count", 1, len, "abc") and not bounded.given_up
    assert caplog.text.count("it: divide failed") == 1
