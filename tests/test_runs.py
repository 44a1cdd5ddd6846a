"""Run directories never collide."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import runs
from settings import SettingError

ROOT = Path(runs.__file__).parent


def test_a_hundred_runs_that_begin_in_the_same_second_have_a_hundred_folders(tmp_path):
    folder, start, got = tmp_path / "runs" / "signs-convnet-20260101-120000", threading.Barrier(100), []

    def begin():
        start.wait()
        got.append(runs.claim(folder, resume=False, unnamed=True))

    threads = [threading.Thread(target=begin) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == len(got) == 100
    assert all(made.is_dir() for made in got)
    assert folder in got and folder.with_name(folder.name + "-100") in got


def test_processes_that_begin_in_the_same_instant_have_folders_of_their_own(tmp_path):
    program = f"""
import sys, time, runs
from pathlib import Path
time.sleep(max(0, {time.time() + 2} - time.time()))
for _ in range(10):
    print(runs.claim(Path({str(tmp_path)!r}) / "name", False, unnamed=True).name)
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    names = [name for process in started for name in process.communicate()[0].split()]
    assert sorted(names) == sorted(["name", *(f"name-{n}" for n in range(2, 61))])


def test_a_name_that_was_chosen_is_not_changed(tmp_path):
    runs.claim(tmp_path / "mine", resume=False)
    with pytest.raises(SettingError, match="was made by another run just now"):
        runs.claim(tmp_path / "mine", resume=False)
    assert runs.claim(tmp_path / "mine", resume=True) == tmp_path / "mine"
