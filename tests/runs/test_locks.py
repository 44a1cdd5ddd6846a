"""One holder at a time, whoever dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vitrine.core.process_identity import this_process
from vitrine.runs import locks

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from vitrine.runs import locks
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
lock = locks.acquire(Path(sys.argv[1]), "step=1")
print(lock is not None, flush=True)
if lock is not None:
    with lock:
        time.sleep(60)
"""


def holders(folder: Path, go: Path, count: int) -> list[subprocess.Popen]:
    command = [sys.executable, "-c", HOLD, str(folder), str(go)]
    return [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(count)]


def elsewhere(folder: Path, age: float, number: int = 0) -> Path:
    """A lock that a process of another machine holds, its last sign of life so many seconds ago."""
    folder.mkdir(exist_ok=True)
    file = folder / f".lock-step=1.{number}"
    file.write_text(json.dumps({"machine": "another", "pid": 1, "began": "1"}))
    os.utime(file, (time.time() - age,) * 2)
    return file


@pytest.mark.slow
def test_of_many_processes_exactly_one_gets_it_and_of_those_that_follow_a_killed_one_as_well(tmp_path):
    folder, go = tmp_path / "locks", tmp_path / "go"
    first = holders(folder, go, 4)
    go.touch()
    got = [process.stdout.readline().strip() for process in first]
    assert sorted(got) == ["False"] * 3 + ["True"]
    holder = first[got.index("True")]
    assert locks.acquire(folder, "step=1") is None
    holder.kill()
    assert holder.wait() == -signal.SIGKILL
    go.unlink()
    second = holders(folder, go, 4)
    go.touch()
    assert sorted(p.stdout.readline().strip() for p in second) == ["False"] * 3 + ["True"]
    for process in (*first, *second):
        process.kill()
        process.wait()


def test_of_many_threads_that_find_a_stale_lock_one_takes_it_over_however_often(tmp_path):
    for turn in range(20):
        folder = tmp_path / str(turn)
        elsewhere(folder, age=1000)
        start, got = threading.Barrier(12), []

        def attempt(folder=folder, start=start, got=got):
            start.wait()
            if lock := locks.acquire(folder, "step=1"):
                got.append(lock)

        threads = [threading.Thread(target=attempt) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1, turn
        assert got[0].held()


def test_a_holder_elsewhere_is_dead_when_its_signs_of_life_end(tmp_path):
    elsewhere(tmp_path, age=60)
    assert locks.acquire(tmp_path, "step=1", stale=100) is None
    assert locks.acquire(tmp_path, "step=2", stale=100) is not None  # another matter
    taken = locks.acquire(tmp_path, "step=1", stale=50)
    assert taken.number == 1 and taken.held()


@pytest.mark.slow
def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    with locks.acquire(tmp_path, "step=1", heartbeat=0.05):
        monkeypatch.setattr(socket, "gethostname", lambda: "another")  # where its process cannot be seen
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert locks.acquire(tmp_path, "step=1", stale=0.75) is None
            time.sleep(0.05)


def test_a_process_under_a_dead_ones_number_is_not_taken_for_it(tmp_path):
    content = {**this_process(), "began": "long ago"}
    (tmp_path / ".lock-step=1.0").write_text(json.dumps(content))
    assert locks.acquire(tmp_path, "step=1") is not None


def test_a_lock_just_created_is_respected_until_it_is_old(tmp_path):
    file = tmp_path / ".lock-step=1.0"
    file.touch()
    assert locks.acquire(tmp_path, "step=1") is None
    os.utime(file, (time.time() - 1000,) * 2)
    assert locks.acquire(tmp_path, "step=1") is not None


def test_whoever_was_stopped_for_long_sees_that_it_was_succeeded_and_takes_nothing_away(tmp_path):
    slow = locks.acquire(tmp_path, "step=1")
    elsewhere(tmp_path, age=0, number=1)
    assert not slow.held()
    slow.release()
    assert locks.acquire(tmp_path, "step=1") is None


def test_nothing_is_left_of_a_lock_that_is_released(tmp_path):
    folder = tmp_path / "locks"
    for _ in range(3):
        with locks.acquire(folder, "step=1") as lock:
            assert lock.file.exists() and lock.held()
        assert not list(folder.iterdir())
    elsewhere(folder, age=1000)
    with locks.acquire(folder, "step=1"):
        pass
    assert not list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_many_that_take_turns_never_hold_it_together(tmp_path):
    held, worst = [], []

    def work():
        taken = 0
        while taken < 15:
            if lock := locks.acquire(tmp_path / "locks", "step=1"):
                with lock:
                    held.append(1)
                    worst.append(len(held))
                    time.sleep(0.001)
                    held.pop()
                taken += 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(worst) == 1


def test_a_folder_that_refuses_says_so(tmp_path):
    (tmp_path / "locks").write_text("a file")
    with pytest.raises(OSError):
        locks.acquire(tmp_path / "locks", "step=1")
